"""Jobs as the API shows them, from what the engine keeps of each."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

from msgspec import UNSET, Raw, Struct

from hostler.broker.envelopes import read_envelope
from hostler.broker.records import (
    Envelope,
    Record,
    job_id,
    read_attempt,
    read_lane,
    read_progress,
    read_result,
    unpack_record,
)
from hostler.contracts.failure import FailureClass
from hostler.contracts.fence import attempt_of
from hostler.contracts.job import Attempt, BlobRef, Job, JobError, JobRequest, JobState, Progress, null_json
from hostler.contracts.needs import Lane
from hostler.contracts.queue import KindSpec
from hostler.policy.lanes import lane_of
from hostler.policy.sharding import home_of
from hostler.valkeyio.instants import instant, instant_or_none


class Kept(Struct, frozen=True, kw_only=True):
    """One job as the function `look` returns it, decoded."""

    seq: str
    record: Record
    envelope: Envelope
    progress: Progress | None
    result: Raw
    result_ref: BlobRef | None
    attempts: tuple[Attempt, ...]
    lane: Lane
    unworkable: bool


def read_kept(words: Sequence[Any]) -> Kept:
    """Decode one job; an envelope that cannot be read is shown as it lies there, under the kind `(unreadable)`."""
    seq, packed, sealed, progress, result, attempts, row, unworkable = cast(
        "tuple[bytes, bytes, bytes, bytes, bytes, list[bytes], bytes, int]", tuple(words)
    )
    envelope = read_envelope(sealed)
    value, ref = read_result(result) if result else (null_json(), None)
    record = unpack_record(packed)
    return Kept(
        seq=seq.decode(),
        record=record,
        envelope=envelope,
        progress=_of_this_attempt(progress, record.fence),
        result=value,
        result_ref=ref,
        attempts=tuple(read_attempt(one) for one in attempts),
        lane=read_lane(row)[1] if row else lane_of(request_of(envelope)),
        unworkable=bool(unworkable),
    )


def _of_this_attempt(packed: bytes, fence: int) -> Progress | None:
    """Return the progress unless it is an earlier attempt's: a new one begins at nothing."""
    if not packed:
        return None
    stored, progress = read_progress(packed)
    return progress if stored.fence == fence else None


def request_of(envelope: Envelope) -> JobRequest:
    """Return what decides a job's lane."""
    return JobRequest(kind=envelope.kind, needs=envelope.needs, avoid=envelope.avoid)


def view(queue: str, kept: Kept, kinds: Mapping[str, KindSpec], *, payload: bool = False) -> Job:
    """Return the job that the API shows; `queue` is its queue, or the shard of that."""
    record, envelope = kept.record, kept.envelope
    kind = kinds.get(envelope.kind)
    return Job(
        id=job_id(queue, kept.seq),
        kind=envelope.kind,
        queue=home_of(queue),
        state=record.job_state,
        tenant=record.tenant,
        priority=record.priority,
        attempt=attempt_of(record.fence),
        generation=record.generation,
        created_at=instant(record.created),
        ready_at=instant_or_none(record.ready_at),
        started_at=instant_or_none(record.started),
        finished_at=instant_or_none(record.finished),
        deadline=instant_or_none(record.deadline),
        progress=kept.progress,
        worker=record.worker or None,
        service=envelope.needs.service or (kind.service if kind else None),
        result=kept.result,
        result_ref=kept.result_ref,
        error=error_of(record, kept.attempts),
        attempts=kept.attempts,
        resources=kept.lane.needs.amounts,
        labels=envelope.labels,
        needs=envelope.needs,
        avoid=kept.lane.avoid,
        unworkable=kept.unworkable,
        cancel_requested=record.cancel > 0,
        waiting_for=record.waiting_for or None,
        flow=envelope.flow,
        payload=Raw(envelope.payload) if payload else UNSET,
    )


def error_of(record: Record, attempts: Sequence[Attempt]) -> JobError | None:
    """Return why a job is dead, or what the last attempt of its generation ran into; None once it succeeded."""
    if record.job_state is JobState.SUCCEEDED:
        return None
    mine = [attempt for attempt in attempts if attempt.generation == record.generation]
    if record.job_state is JobState.DEAD and mine and mine[-1].outcome == "reap":
        return JobError(
            class_=FailureClass.POISON.value,
            message="it took down too many workers",
            details={"workers": list(record.bad_workers or ())},
        )
    failure = next((attempt.error for attempt in reversed(mine) if attempt.error), None)
    if failure is None:
        return None
    return JobError(class_=failure.label, message=failure.message, details=failure.details)
