"""What an answer of a described service means: how the work is, a result, or a failure with its class."""

from typing import Any

import msgspec
from msgspec import Raw, Struct, structs

from hostler.connectors.faults import ServiceFaultError, fault, off_protocol
from hostler.connectors.follow import Signal
from hostler.connectors.services.generic.description import Errors, Reading
from hostler.connectors.services.generic.pointers import MISSING, find, number_at, text_at
from hostler.connectors.transports.http import Answer
from hostler.connectors.transports.http_faults import failure_of_answer, retry_after
from hostler.contracts.failure import Failure, FailureClass, Stage
from hostler.contracts.job import Progress
from hostler.contracts.service import RemoteState


class Document(Struct, frozen=True, kw_only=True):
    """A JSON document as it came, and its value."""

    raw: Raw
    value: Any


def read_document(data: bytes | str, *, what: str) -> Document:
    """Decode foreign JSON; raises a transient fault when it is none."""
    try:
        sealed = Raw(data.encode() if isinstance(data, str) else data)
        return Document(raw=sealed, value=msgspec.json.decode(sealed))
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise off_protocol(f"the service sent {what} that is no JSON: {error}") from None


def accepted(answer: Answer, errors: Errors) -> Document:
    """Return what a 2xx brought; raises the fault of another status, or of a no that is said under a good one."""
    if not answer.ok:
        raise ServiceFaultError(_refused(answer, errors))
    kind = answer.headers.get("content-type", "no content type")
    found = read_document(answer.body, what=f"{answer.status} with {kind}")
    refuse(found.value, errors, answer=answer)
    return found


def refuse(value: Any, errors: Errors, *, answer: Answer | None = None) -> None:
    """Raise the fault of a document in which the service says no, whatever its status."""
    if errors.said is None:
        return
    said = find(value, errors.said)
    if not said:  # MISSING, null, false, 0, "", {} and []
        return
    words = said if isinstance(said, str) else f"the service said no at {errors.said}"
    wait = None if answer is None else retry_after(answer.headers)
    raise ServiceFaultError(spoken(value, errors, words=words, retry_after=wait))


def spoken(value: Any, errors: Errors, *, words: str, retry_after: float | None = None) -> Failure:
    """Return the failure that a document tells of; `words` stand where it has none."""
    code = text_at(value, errors.code)
    class_ = errors.codes.get(code or "", errors.otherwise)
    return _failure(class_, text_at(value, errors.message) or words, code=code, retry_after=retry_after)


def _refused(answer: Answer, errors: Errors) -> Failure:
    plain = failure_of_answer(answer.status, answer.headers, answer.body, codes={})
    try:
        value = msgspec.json.decode(answer.body)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        value = MISSING
    code = text_at(value, errors.code)
    class_ = errors.codes.get(code or "") or errors.statuses.get(str(answer.status)) or plain.class_
    found = _failure(class_, text_at(value, errors.message) or plain.message, code=code, retry_after=plain.retry_after)
    return structs.replace(found, details={**plain.details, **found.details})


def _failure(class_: FailureClass, message: str, *, code: str | None, retry_after: float | None) -> Failure:
    found = fault(class_, message, retry_after=retry_after, code=code).failure
    return structs.replace(found, stage=Stage.RUN) if class_ is FailureClass.TIMEOUT else found


def signal_of(value: Any, reading: Reading, *, cursor: str | None = None, certain: bool = True) -> Signal:
    """Return how the work is; without `certain` (an event) a document that names no state says that it runs.

    A word that is in no table is a fault: nothing is guessed.
    """
    word = text_at(value, reading.state)
    if word is None and certain:
        raise off_protocol(f"the service says no state at {reading.state}")
    state = RemoteState.RUNNING if word is None else reading.states.get(word)
    if state is None:
        raise off_protocol(f"the service says {word!r} at {reading.state}, which is none of its words for a state")
    return Signal(state=state, progress=progress_of(value, reading, state=state), cursor=cursor)


def progress_of(value: Any, reading: Reading, *, state: RemoteState) -> Progress:
    """Return the progress that a document tells of; its stage is the state where it names none."""
    share = number_at(value, reading.fraction)
    eta = number_at(value, reading.eta_s)
    return Progress(
        fraction=None if share is None else min(1.0, max(0.0, share / reading.whole)),
        stage=text_at(value, reading.stage) or str(state),
        message=text_at(value, reading.message),
        eta_s=None if eta is None else max(0.0, eta),
        text=text_at(value, reading.text),
    )


def result_of(found: Document, reading: Reading) -> Raw:
    """Return the result in a document; a success that brings none is a fault, since nobody could use it."""
    if reading.result == "":
        return found.raw
    value = find(found.value, reading.result)
    if value is MISSING or value is None:
        raise off_protocol(f"the service says that the work succeeded, and gives no result at {reading.result}")
    return Raw(msgspec.json.encode(value))
