"""Submitting to the engine: jobs that were judged already are encoded, grouped and stored in one step."""

from collections.abc import Sequence
from hashlib import blake2b
from itertools import islice
from typing import Final

import msgspec
from msgspec import Raw, Struct

from hostler.broker.engine_group import Group
from hostler.broker.records import Envelope, job_id, pack, sealed, sealed_lane
from hostler.contracts.job import JobRequest, Submitted
from hostler.contracts.queue import KindSpec
from hostler.kernel.errors import CapacityError, HostlerError, IdempotencyConflictError, InternalError, QueueFullError
from hostler.policy.affinity import affinity_key
from hostler.policy.lanes import lane_key, lane_of
from hostler.policy.sharding import home_of, ordering_key, place_of
from hostler.valkeyio.instants import micros
from hostler.valkeyio.library import Library

SUBMIT_MAX: Final = 100
"""Jobs of one function call."""
FULL_RETRY: Final = 1.0
"""Seconds after which a submit that found no room may be tried again."""
DRAIN_RETRY: Final = 30.0
MOVE_RETRY: Final = 1.0

_MICRO: Final = 1_000_000
_STORED, _KNOWN, _OTHER_BODY, _DEPTH, _BYTES, _TENANT, _LANES, _DRAINING, _OTHER_NUMBER, _MOVED = range(1, 11)
_THERE: Final = frozenset({_STORED, _KNOWN})
_LIMITS: Final = {_DEPTH: "depth", _BYTES: "bytes", _TENANT: "tenant_depth", _LANES: "lanes"}
_body = msgspec.json.Encoder(order="sorted").encode


class Prepared(Struct, frozen=True, kw_only=True):
    """One job as the function `submit` takes it."""

    lane: str
    """Its lane's key."""
    row: bytes
    facts: tuple[object, ...]
    """All but the place of its lane, in the order that the function's header says."""
    envelope: bytes
    key: str | None = None
    """Its ordering key, which decides the shard."""


class NamedLane(Struct, frozen=True):
    """The lane of a job as `submit` takes it."""

    key: str
    row: bytes


def named_lane(request: JobRequest) -> NamedLane:
    """Return the lane of a job whose needs were judged already."""
    lane = lane_of(request)
    return NamedLane(lane_key(lane), sealed_lane(lane))


class Submission(Struct, frozen=True, kw_only=True):
    """The jobs of one operation for one queue; they are stored in one step."""

    operation: str
    jobs: tuple[Prepared, ...]


def prepare(request: JobRequest, kind: KindSpec, lane: NamedLane | None = None) -> Prepared:
    """Encode one job whose kind, needs and payload were judged already; `lane` is its lane where that is known."""
    lane = lane or named_lane(request)
    wait = request.timeouts.queue if request.timeouts.queue is not None else kind.timeouts.queue
    payload = bytes(request.payload)
    envelope = Envelope(
        request.kind,
        payload,
        request.needs,
        request.avoid,
        request.timeouts,
        request.labels,
        request.webhook,
        request.concurrency_key,
        request.idempotency_key,
    )
    affinity = affinity_key(request, kind)
    facts = (
        request.tenant,
        request.priority,
        request.concurrency_key or False,
        _span(request.delay),
        micros(request.run_at),
        micros(request.deadline),
        -1 if wait is None else _span(wait),
        kind.retry.attempts,
        kind.retry.crashes,
        kind.retry.overloads,
        len(payload),
        request.idempotency_key or False,
        _hash_of(request) if request.idempotency_key else False,
        affinity or False,
    )
    return Prepared(
        lane=lane.key,
        row=lane.row,
        facts=facts,
        envelope=pack(envelope),
        key=ordering_key(request, affinity),
    )


def _span(seconds: float | None) -> int:
    return round(seconds * _MICRO) if seconds else 0


def _hash_of(request: JobRequest) -> str:
    """Return what makes a body the same body: all of it, whatever order it was written in."""
    return blake2b(_body(request), digest_size=12).hexdigest()


class Submitter:
    """Stores jobs in one engine; calls that wait at the same moment share one function call."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self._groups: dict[tuple[str, int], Group[Submission, tuple[Submitted | HostlerError, ...]]] = {}

    async def submit(
        self, shard: str, prepared: Sequence[Prepared], operation: str, *, spread: int = 1
    ) -> tuple[Submitted | HostlerError, ...]:
        """Store jobs of one queue, or of a shard of it, in one step, at most `SUBMIT_MAX`; one answer each, in order.

        `spread` is over how many shards keys are spread, as far as is known here: where the engine goes by another
        number, it stores no job with a key (`moved`).

        `EngineUnavailableError` and `EngineTimeoutError` mean that they may or may not be stored: the same
        `operation` may be sent again.
        """
        if len(prepared) > SUBMIT_MAX:
            raise InternalError(f"{len(prepared)} jobs in one step, at most {SUBMIT_MAX}")
        group = self._groups.get((shard, spread))
        if group is None:

            async def act(batch: Sequence[Submission]) -> list[tuple[Submitted | HostlerError, ...]]:
                return await submit_all(self._library, shard, batch, spread=spread)

            group = Group(act, most=SUBMIT_MAX)
            self._groups[shard, spread] = group
        return await group.do(Submission(operation=operation, jobs=tuple(prepared)), weight=len(prepared))


async def submit_jobs(
    library: Library, queue: str, prepared: Sequence[Prepared], operation: str
) -> tuple[Submitted | HostlerError, ...]:
    """Store jobs of one queue with one function call of their own; as `Submitter.submit`."""
    return (await submit_all(library, queue, (Submission(operation=operation, jobs=tuple(prepared)),)))[0]


async def submit_all(
    library: Library, shard: str, batch: Sequence[Submission], *, spread: int = 1
) -> list[tuple[Submitted | HostlerError, ...]]:
    """Store several operations' jobs with one function call; one answer per operation, in order."""
    lanes: dict[str, int] = {}
    rows: list[str | Raw] = []
    jobs: list[tuple[object, ...]] = []
    for submission in batch:
        for job in submission.jobs:
            if job.lane not in lanes:
                rows += (job.lane, sealed(job.row))
                lanes[job.lane] = len(lanes) + 1
            jobs.append((lanes[job.lane], *job.facts))
    _, answers = await library.call(
        "submit",
        place_of(shard),
        jobs=pack(jobs),
        lanes_given=pack(rows),
        operations=pack([word for one in batch for word in (one.operation, len(one.jobs))]),
        spread=spread,
        envelopes=[job.envelope for one in batch for job in one.jobs],
    )
    place, pairs = place_of(shard), zip(answers[::2], answers[1::2], strict=True)
    replies = iter(
        [
            Submitted(id=job_id(place, seq), created=code == _STORED) if code in _THERE else _refusal(shard, code, seq)
            for code, seq in pairs
        ]
    )
    return [tuple(islice(replies, len(one.jobs))) for one in batch]


def _refusal(shard: str, code: int, seq: bytes) -> HostlerError:
    queue = home_of(shard)
    if code == _OTHER_BODY:
        return IdempotencyConflictError(
            "the idempotency key was used for another body", job=job_id(place_of(shard), seq), field="idempotency_key"
        )
    if code == _OTHER_NUMBER:
        return IdempotencyConflictError(
            "the operation id was used for another number of jobs of this queue", field="operation"
        )
    if code == _DRAINING:
        return CapacityError(f"{shard} is being drained", retry_after=DRAIN_RETRY, queue=queue)
    if code == _MOVED:
        words = f"{shard} takes no such jobs just now: it is closed, or the shards of {queue} are being changed"
        return CapacityError(words, retry_after=MOVE_RETRY, queue=queue, moved=True)
    limit = _LIMITS[code]
    what = limit if shard == queue else f"share of {limit}"
    return QueueFullError(f"{shard} has reached its {what}", retry_after=FULL_RETRY, queue=queue, limit=limit)


def moved(answer: object) -> bool:
    """Tell whether a job was refused because it belongs to another shard by now, or soon."""
    return isinstance(answer, CapacityError) and "moved" in answer.facts
