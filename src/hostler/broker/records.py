"""What the engine keeps of a job, as Python sees it: packed arrays whose order is `valkeyio.layout`."""

import math
from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final, Literal, TypeVar

import msgspec
from msgspec import Raw, Struct, field

from hostler.contracts.event import Event
from hostler.contracts.failure import Failure
from hostler.contracts.fence import attempt_of
from hostler.contracts.job import Attempt, BlobRef, JobState, Progress
from hostler.contracts.needs import Avoid, Lane, Needs
from hostler.contracts.timeouts import Timeouts
from hostler.kernel.stored import Reader
from hostler.valkeyio import layout
from hostler.valkeyio.instants import instant

Absent = Literal[False]
"""How the functions write *nothing*."""


class Record(Struct, frozen=True, array_like=True, kw_only=True):
    """`j:<seq>`, field by field as `layout.RECORD`; times in microseconds, 0 for none."""

    state: int
    lane: int
    tenant: str
    vt: int
    ckey: str | Absent
    fence: int
    attempts: int
    crashes: int
    overloads: int
    generation: int
    worker: str | Absent
    created: int
    ready_at: int
    started: int
    finished: int
    deadline: int
    queue_until: int
    size: int
    cancel: int
    max_attempts: int
    max_crashes: int
    max_overloads: int
    priority: int
    events: list[int]
    taken: list[str | int] | Absent
    waiting_for: str | Absent
    settled_fence: int
    settled_ending: int
    rejected: list[int] | Absent
    parked: int
    offer: int | Absent
    lease: int
    bad_workers: list[str] | Absent
    affinity: str | Absent = False

    @property
    def job_state(self) -> JobState:
        """Return the state by name."""
        return layout.STATES[self.state - 1]


class Envelope(Struct, frozen=True, array_like=True, omit_defaults=True):
    """`p:<seq>`: all of a job that never changes; the functions never open it."""

    kind: str
    payload: bytes
    needs: Needs = Needs()
    avoid: Avoid = Avoid()
    timeouts: Timeouts = Timeouts()
    labels: dict[str, str] = field(default_factory=dict[str, str])
    webhook: str | None = None
    concurrency_key: str | None = None
    idempotency_key: str | None = None
    flow: str | None = None


class StoredAttempt(Struct, frozen=True, array_like=True):
    """One element of `a:<seq>`, as `layout.ATTEMPT`."""

    number: int
    generation: int
    worker: str | Absent
    endpoint: str | Absent
    started: int
    ended: int
    outcome: str
    failure: Raw
    counted: bool
    remote: str | Absent


class StoredProgress(Struct, frozen=True, array_like=True):
    """`g:<seq>`, as `layout.PROGRESS`."""

    progress: Raw
    remote: str | Absent
    endpoint: str | Absent
    fence: int
    offset: int


class StoredResult(Struct, frozen=True, array_like=True):
    """`s:<seq>`, as `layout.RESULT`."""

    result: bytes
    ref: bytes | Absent


class StoredLane(Struct, frozen=True, array_like=True):
    """One value of `lanes`, as `layout.LANE`; `created` and `key` are written by the functions."""

    lane: Raw
    amounts: list[str | int]
    avoid: tuple[str, ...]
    shun: tuple[str, ...]
    created: int = 0
    key: str = ""


class StoredEntry(Struct, frozen=True, array_like=True):
    """Field `e` of one stream entry, as `layout.ENTRY`."""

    at: int
    events: list["StoredEvent"]


class StoredEvent(Struct, frozen=True, array_like=True):
    """One event of an entry, as `layout.EVENT`."""

    type: int | str
    seq: int | Absent
    state: int
    attempt: int
    worker: str | Absent
    data: Raw


_ENCODER = msgspec.msgpack.Encoder()
pack = _ENCODER.encode
"""Pack any of these, or a contract inside them."""

unpack_record = msgspec.msgpack.Decoder(Record).decode
unpack_result = msgspec.msgpack.Decoder(StoredResult).decode
_unpack_attempt = msgspec.msgpack.Decoder(StoredAttempt).decode
_unpack_progress = msgspec.msgpack.Decoder(StoredProgress).decode
_unpack_entry = msgspec.msgpack.Decoder(StoredEntry).decode
_unpack_stored_lane = msgspec.msgpack.Decoder(StoredLane).decode
_failure = msgspec.msgpack.Decoder(Failure).decode
_progress = msgspec.msgpack.Decoder(Progress).decode
_ref = msgspec.msgpack.Decoder(BlobRef).decode
_facts = msgspec.msgpack.Decoder(dict[str, Any]).decode

LATER: Final = "hostler.later-version"
"""Label that nobody offers, in the needs of what asks for something that this version does not know."""

_Wanting = TypeVar("_Wanting", Lane, Envelope)


def _beyond(found: _Wanting, unknown: tuple[str, ...]) -> _Wanting:
    """Return it so that this version takes none of it: what it cannot judge it must not promise."""
    matters = isinstance(found, Lane)  # all of a lane says where; of an envelope only these do
    places = [place.removeprefix(".") for place in unknown if matters or place.startswith((".needs.", ".avoid."))]
    if not places:
        return found
    labels = {**found.needs.labels, LATER: ", ".join(places)}
    return msgspec.structs.replace(found, needs=msgspec.structs.replace(found.needs, labels=labels))


def beyond(needs: Needs) -> bool:
    """Tell whether needs were read that this version does not know all of: no lane can be made of them here."""
    return LATER in needs.labels


unpack_envelope = Reader(Envelope, packed=True, unknown=_beyond)
unpack_lane = Reader(Lane, packed=True, unknown=_beyond)

_HEADS: Mapping[int, int] = MappingProxyType(
    dict.fromkeys(range(0xA0, 0xC0), 1) | {0xD9: 2, 0xDA: 3, 0xDB: 5, 0xC4: 2, 0xC5: 3, 0xC6: 5}
)
"""Length of the header of a packed string or of packed bytes, by its first byte."""
_FALSE = b"\xc2"


def unseal(raw: Raw) -> bytes | None:
    """Return the bytes inside a packed string, None for `false`.

    The functions pack all text alike, so bytes that passed through them come back as a *string* that need
    not be UTF-8; only its header is taken off.
    """
    data = bytes(raw)
    if data[:1] == _FALSE or not data:
        return None
    return data[_HEADS[data[0]] :]


_SHORT, _BYTE, _WORD = 0x20, 0x100, 0x10000


def sealed(data: bytes) -> Raw:
    """Return bytes as the functions take them: packed as a string, since their decoder knows no other kind."""
    size = len(data)
    if size < _SHORT:
        head = bytes((0xA0 | size,))
    elif size < _BYTE:
        head = bytes((0xD9, size))
    elif size < _WORD:
        head = b"\xda" + size.to_bytes(2, "big")
    else:
        head = b"\xdb" + size.to_bytes(4, "big")
    return Raw(head + data)


def read_attempt(packed: bytes) -> Attempt:
    """Return one element of `a:<seq>` as the contract says it."""
    stored = _unpack_attempt(packed)
    failure = unseal(stored.failure)
    return Attempt(
        number=stored.number,
        generation=stored.generation,
        worker=stored.worker or "",
        endpoint=stored.endpoint or None,
        started_at=instant(stored.started),
        ended_at=instant(stored.ended),
        outcome=stored.outcome,
        error=_failure(failure) if failure else None,
        counted=stored.counted,
        remote=stored.remote or None,
    )


def read_progress(packed: bytes) -> tuple[StoredProgress, Progress | None]:
    """Return `g:<seq>` and the progress in it."""
    stored = _unpack_progress(packed)
    progress = unseal(stored.progress)
    return stored, _progress(progress) if progress else None


def read_result(packed: bytes) -> tuple[Raw, BlobRef | None]:
    """Return `s:<seq>`: the sealed result and the reference, if it is one."""
    stored = unpack_result(packed)
    return Raw(stored.result), _ref(stored.ref) if stored.ref else None


def read_lane(packed: bytes) -> tuple[StoredLane, Lane]:
    """Return one value of `lanes` and the lane in it."""
    stored = _unpack_stored_lane(packed)
    return stored, unpack_lane(unseal(stored.lane) or b"")


def read_events(queue: str, entry: str, packed: bytes) -> tuple[Event, ...]:
    """Return the events of one stream entry; `entry` is its id, `<first offset>-0`."""
    first, stored = int(entry.partition("-")[0]), _unpack_entry(packed)
    at = instant(stored.at)
    return tuple(_event(queue, first + index, at, event) for index, event in enumerate(stored.events))


def _event(queue: str, offset: int, at: datetime, stored: StoredEvent) -> Event:
    sealed = stored.data
    inner = unseal(sealed) if bytes(sealed)[0] in _HEADS else bytes(sealed)
    facts: dict[str, Any] = _facts(inner) if inner and inner != _FALSE else {}
    return Event(
        offset=offset,
        at=at,
        type=str(layout.VERBS[stored.type - 1]) if isinstance(stored.type, int) else stored.type,
        job=job_id(queue, layout.SEQ_BASE + stored.seq) if stored.seq is not False else None,
        state=layout.STATES[stored.state - 1] if stored.state else None,
        attempt=attempt_of(stored.attempt) if stored.seq is not False else None,
        worker=stored.worker or None,
        data=facts,
    )


def job_id(queue: str, seq: int | str | bytes) -> str:
    """Return the id of a job by queue and number."""
    return f"{queue}.{seq.decode() if isinstance(seq, bytes) else seq}"


def split_id(job_id_: str) -> tuple[str, str]:
    """Return queue and number of a job's id; the number is "" when there is none."""
    queue, _, seq = job_id_.rpartition(".")
    return queue, seq if seq.isascii() and seq.isdigit() else ""


def thousandths(amount: float) -> int:
    """Return an amount as the functions count it, rounded up: a job never takes less than it said."""
    return math.ceil(round(amount * 1000, 6))


def sealed_lane(lane: Lane) -> bytes:
    """Return the packed row of a lane, as `submit` and `settle` hand it over."""
    amounts: list[str | int] = []
    for name, amount in sorted({"slots": 1.0, **lane.needs.amounts}.items()):
        amounts += (name, thousandths(amount))
    return pack((sealed(pack(lane)), amounts, lane.avoid.workers, lane.avoid.shunned))
