"""What several verbs of the model share: time, look-up, who fits, and what is taken."""

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from hostler.broker.model_state import JobRecord, Kept, LeaseRecord, QueueRecord, WorkerRecord, seconds
from hostler.contracts.job import JobState
from hostler.contracts.lease import Suspicion
from hostler.contracts.needs import Lane
from hostler.contracts.offer import Pool
from hostler.contracts.queue import KindSpec, QueueSpec, RetryPolicy
from hostler.contracts.worker import WorkerState
from hostler.kernel.errors import NotFoundError, UnknownQueueError
from hostler.policy.matching import fits
from hostler.policy.sharding import home_of, shard_of
from hostler.policy.suspicion import suspicion
from hostler.ports.clock import Clock
from hostler.valkeyio.instants import instant
from hostler.valkeyio.layout import JOBS_A_SECOND, LIVES_A_SECOND, SEQ_BEGIN

OPERATION_WINDOW = 600.0
"""Seconds for which an operation's first answer is given again."""
ACCEPTING = frozenset({WorkerState.READY, WorkerState.BUSY})
"""States in which a worker takes new work."""
S = JobState


class ModelCore:
    """All that the model knows, without verbs.

    A queue of several shards is one here, under any of their names: what it promises of each, the model keeps for all.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last: datetime | None = None
        self._queues: dict[str, QueueRecord] = {}
        self._kinds: dict[str, KindSpec] = {}
        self._declared = 0
        """How often a queue or kind was declared."""
        self._workers: dict[str, WorkerRecord] = {}
        self._gone: dict[str, WorkerRecord] = {}
        self._operations: dict[str, Kept[Any]] = {}

    @property
    def moves(self) -> int:
        """Return how many events there were in all queues."""
        return sum([queue.offset for queue in self._queues.values()])

    def offset(self, queue: str) -> int:
        """Return how many events there were in one of them."""
        return self._queue(queue).offset

    @property
    def waits(self) -> bool:
        """Tell whether there is anything that a worker might be given."""
        return any(job.state is S.READY for queue in self._queues.values() for job in queue.jobs.values())

    @property
    def left(self) -> list[str]:
        """Return the ids of all jobs that have not ended, in order of submit within a queue."""
        return [job.id for queue in self._queues.values() for job in queue.jobs.values() if job.live]

    def _now(self) -> datetime:
        """Return the time; never less than it was."""
        now = self._clock.now()
        self._last = now if self._last is None else max(self._last, now)
        return self._last

    def _queue(self, name: str) -> QueueRecord:
        try:
            return self._queues[home_of(name)]
        except KeyError:
            raise UnknownQueueError(f"no queue is named {name!r}", queue=name) from None

    def _job(self, job_id: str) -> tuple[QueueRecord, JobRecord]:
        queue = self._queues.get(shard_of(job_id))
        job = queue.jobs.get(job_id) if queue else None
        if queue is None or job is None:
            raise NotFoundError(f"no job is named {job_id!r}", job=job_id)
        return queue, job

    def _open(self, spec: QueueSpec) -> None:
        if spec.name in self._queues:
            self._queues[spec.name].spec = spec
        else:  # as in the engine, its life, and by that jobs and fences, are numbered by the clock
            since = max(timedelta(), self._now() - instant(SEQ_BEGIN * 1_000_000))
            life = max(1, since // (timedelta(seconds=1) / LIVES_A_SECOND))
            numbers = since // (timedelta(seconds=1) / JOBS_A_SECOND)
            self._queues[spec.name] = QueueRecord(spec=spec, life=life, numbers=numbers)

    def _policy(self, job: JobRecord) -> RetryPolicy:
        return self._kinds[job.request.kind].retry

    def _suspicion(self, job: JobRecord) -> Suspicion:
        return suspicion(job.crashes, self._policy(job).crashes)

    def _answered(self, operation: str, now: datetime) -> Kept[Any] | None:
        known = self._operations.get(operation)
        return known if known is not None and known.until > now else None

    def _remember(self, operation: str, answer: object, now: datetime) -> None:
        self._operations[operation] = Kept(answer=answer, until=now + seconds(OPERATION_WINDOW))

    # who fits

    def _live_workers(self, now: datetime) -> Iterator[WorkerRecord]:
        return (record for record in self._workers.values() if record.ends > now)

    def _serves(self, record: WorkerRecord, lane: Lane) -> bool:
        slots = {"slots": Pool(id=record.worker.id, total=record.worker.slots)}
        return fits(lane, record.worker.offers, worker=record.worker.id, pools=slots) is not None

    def _others_serve(self, lane: Lane, now: datetime) -> bool:
        """Tell whether a worker that the lane does not shun lives and takes its work."""
        return any(
            self._serves(record, lane)
            for record in self._live_workers(now)
            if record.worker.id not in lane.avoid.shunned and record.worker.state in ACCEPTING
        )

    def _mark_lane(self, queue: QueueRecord, key: str, lane: Lane, now: datetime) -> None:
        """Mark one lane unworkable, or workable again; each change is one event."""
        served = any(self._serves(record, lane) for record in self._live_workers(now))
        if served and key in queue.unworkable:
            queue.unworkable.discard(key)
            queue.emit(now, "workable", lane=key)
        elif not served and key not in queue.unworkable:
            queue.unworkable.add(key)
            queue.emit(now, "unworkable", lane=key)

    # room

    def _taken(self, queue: QueueRecord) -> Mapping[tuple[str, str], float]:
        """Return what running jobs of this queue take, by pool and name."""
        total: dict[tuple[str, str], float] = {}
        for job in queue.jobs.values():
            for pool, name, amount in job.lease.taken if job.lease else ():
                total[pool, name] = total.get((pool, name), 0.0) + amount
        return total

    def _lease(self, job: JobRecord) -> LeaseRecord:
        if job.lease is None:
            raise AssertionError(f"{job.id} is not leased")
        return job.lease
