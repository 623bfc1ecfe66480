"""Whether what a language service says can be true: a result is believed only where it fits what was asked."""

from typing import Final

import msgspec
from msgspec import Raw, Struct

from hostler.connectors.faults import fault, off_protocol
from hostler.connectors.services.nlp.messages import (
    AnalyzePayload,
    AnalyzeResult,
    Answer,
    CompareResult,
    ExpandResult,
    Payload,
    SimilarityPayload,
    SimilarityResult,
)
from hostler.connectors.transports.http import Codes
from hostler.contracts.failure import FailureClass

CODES: Final[Codes] = {
    "invalid_input": FailureClass.INVALID_INPUT,
    "too_large": FailureClass.INVALID_INPUT,
    "unknown_provider": FailureClass.CAPABILITY_MISMATCH,
    "unknown_verb": FailureClass.CAPABILITY_MISMATCH,
    "unsupported": FailureClass.CAPABILITY_MISMATCH,
    "missing_extra": FailureClass.CAPABILITY_MISMATCH,
    "loading": FailureClass.OVERLOADED,
    "overloaded": FailureClass.OVERLOADED,
    "draining": FailureClass.OVERLOADED,
    "load_failed": FailureClass.TRANSIENT,
    "too_slow": FailureClass.TRANSIENT,
    "internal_error": FailureClass.TRANSIENT,
    "unauthorized": FailureClass.AUTH,
}

RESULTS: Final[dict[str, type[Struct]]] = {
    "expand": ExpandResult,
    "analyze": AnalyzeResult,
    "similarity": SimilarityResult,
    "compare": CompareResult,
}


def judged(body: bytes, verb: str, payload: Payload) -> Raw:
    """Return the sealed result of an answer of status 2xx; raises the fault of one that says no or cannot be true.

    A service that says no without a code is taken at its word that it failed: `transient`.
    """
    try:
        answer = msgspec.json.decode(body, type=Answer)
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise off_protocol(f"the service sent an answer that is not its protocol: {error}") from None
    if not answer.success:
        code = None if answer.error is None else answer.error.code
        words = answer.error_message or ("" if answer.error is None else answer.error.message)
        class_ = CODES.get(code or "", FailureClass.TRANSIENT)
        raise fault(class_, words or "the service says that it did not succeed", code=code, said_no=True)
    if not isinstance(answer.result, Raw):
        raise off_protocol("the service says success and gives no result")
    try:
        result = msgspec.json.decode(answer.result, type=RESULTS[verb])
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise off_protocol(f"the service gave a result that is none of {verb}: {error}") from None
    _check(payload, result)
    return Raw(msgspec.json.encode(result))


def _check(payload: Payload, result: Struct) -> None:
    """Raise unless places and candidates are those of the question, to the letter."""
    match payload, result:
        case AnalyzePayload(text=text), AnalyzeResult(items=items):
            for item in items:
                if item.start < 0 or text[item.start : item.end] != item.text:
                    raise off_protocol(f"the service found {item.text[:100]!r} where the text does not say it")
        case SimilarityPayload(candidates=candidates), SimilarityResult(matches=matches):
            places = [match.index for match in matches]
            if len(set(places)) != len(places):
                raise off_protocol("the service ranked one candidate twice")
            for match in matches:
                if not 0 <= match.index < len(candidates) or candidates[match.index] != match.candidate:
                    raise off_protocol(f"the service ranked {match.candidate[:100]!r}, which it was not asked about")
        case _:
            pass
