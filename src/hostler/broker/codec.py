"""What the functions for workers take and return, as the contracts say it."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

from msgspec import UNSET, Raw

from hostler.broker.envelopes import read_envelope
from hostler.broker.records import (
    Envelope,
    Record,
    job_id,
    pack,
    read_attempt,
    read_progress,
    sealed,
    sealed_lane,
    split_id,
    unpack_lane,
    unpack_record,
)
from hostler.contracts.failure import Failure
from hostler.contracts.lease import Again, Die, Hold, Lease, Settlement, Stopped, Succeed, Update
from hostler.contracts.needs import Lane
from hostler.policy.lanes import lane_key
from hostler.policy.sharding import home_of
from hostler.valkeyio import layout
from hostler.valkeyio.instants import instant, instant_or_none

_MICRO = 1_000_000
_SUCCEED, _AGAIN, _HOLD, _DIE, _STOPPED = range(1, len(layout.ENDINGS) + 1)
_NULL = b"null"


def lanes_of(flat: Sequence[Any]) -> dict[int, Lane]:
    """Return lanes given as number, packed lane, number, packed lane, ..."""
    return {int(number): unpack_lane(row) for number, row in zip(flat[::2], flat[1::2], strict=True)}


def leases_of(queue: str, now: int, lanes: Mapping[int, Lane], jobs: Sequence[Sequence[Any]]) -> tuple[Lease, ...]:
    """Return what `claim` granted."""
    return tuple(_lease(queue, now, lanes, job) for job in jobs)


def _lease(queue: str, now: int, lanes: Mapping[int, Lane], job: Sequence[Any]) -> Lease:
    seq, packed, sealed, progress, checkpoint, attempts = job
    record: Record = unpack_record(packed)
    envelope: Envelope = read_envelope(sealed)
    stored = read_progress(progress)[0] if progress else None
    return Lease(
        job_id=job_id(queue, seq),
        kind=envelope.kind,
        queue=home_of(queue),
        fence=record.fence,
        generation=record.generation,
        attempts_used=record.attempts,
        attempts_max=record.max_attempts,
        crashes=record.crashes,
        crashes_max=record.max_crashes,
        overloads=record.overloads,
        payload=Raw(envelope.payload),
        lane=lanes[record.lane],
        offer=None if record.offer is False else record.offer,
        lease_s=record.lease / _MICRO,
        expires_at=instant(record.started + record.lease),
        now=instant(now),
        deadline=instant_or_none(record.deadline),
        timeouts=envelope.timeouts,
        tenant=record.tenant,
        labels=envelope.labels,
        remote=(stored.remote or None) if stored else None,
        remote_endpoint=(stored.endpoint or None) if stored else None,
        checkpoint=Raw(checkpoint) if checkpoint else UNSET,
        history=tuple(read_attempt(attempt) for attempt in attempts),
    )


class LaneTable:
    """Lanes that one call hands over, each once, with the place of each."""

    def __init__(self) -> None:
        self._places: dict[str, int] = {}
        self._words: list[str | Raw] = []

    def place(self, lane: Lane | None) -> int:
        """Return the lane's place from 1, and 0 for None."""
        if lane is None:
            return 0
        key = lane_key(lane)
        if key not in self._places:
            self._places[key] = len(self._places) + 1
            self._words += (key, sealed(sealed_lane(lane)))
        return self._places[key]

    def packed(self) -> bytes:
        """Return all of them as key, packed row, key, packed row, ..."""
        return pack(self._words)


def settle_item(settlement: Settlement, lanes: LaneTable) -> tuple[object, ...]:
    """Return one settlement as the function `settle` takes it."""
    _, seq = split_id(settlement.job_id)
    head = (seq, settlement.fence)
    tail = (settlement.endpoint or False,)
    ending = settlement.ending
    match ending:
        case Succeed():
            rest: tuple[object, ...] = (_SUCCEED, False, False, 0, 0, _result(ending), False, *tail, False)
        case Again():
            place, delay = lanes.place(ending.lane), _span(ending.delay)
            failure = _failure(ending.failure)
            rest = (_AGAIN, ending.counted, ending.overload, delay, place, False, failure, *tail, False)
        case Hold():
            until = 0 if ending.until is None else max(1, _span(ending.until))
            rest = (_HOLD, False, False, until, 0, False, _failure(ending.failure), *tail, ending.reason)
        case Die():
            rest = (_DIE, True, False, 0, 0, False, _failure(ending.failure), *tail, False)
        case Stopped():
            rest = (_STOPPED, False, False, 0, 0, False, False, *tail, False)
    return (*head, *rest)


def _span(seconds: float) -> int:
    return round(seconds * _MICRO)


def _failure(failure: Failure | None) -> Raw | bool:
    return False if failure is None else sealed(pack(failure))


def _result(ending: Succeed) -> Raw | bool:
    """Return the packed result; False for plain null, which needs no key."""
    if ending.ref is None and bytes(ending.result) == _NULL:
        return False
    return sealed(pack((bytes(ending.result), False if ending.ref is None else pack(ending.ref))))


def update_item(update: Update) -> tuple[object, ...]:
    """Return one update as the function `progress` takes it."""
    _, seq = split_id(update.job_id)
    return (
        seq,
        update.fence,
        False if update.progress is None else sealed(pack(update.progress)),
        update.remote or False,
        update.remote_endpoint or False,
        sealed(bytes(update.checkpoint)) if isinstance(update.checkpoint, Raw) else False,
        False if update.preview is None else sealed(update.preview.data),
    )


def state_name(code: object) -> str:
    """Return a state by name; `gone` for a job that is not there."""
    number = cast("int", code)
    return str(layout.STATES[number - 1]) if number else "gone"
