"""The model's side for operators and upkeep."""

from datetime import datetime, timedelta

from hostler.broker.model_life import ModelLife
from hostler.broker.model_state import JobRecord, QueueRecord, seconds
from hostler.contracts.job import JobState
from hostler.contracts.queue import KindSpec, QueueSpec, QueueStats, RegistryRow, UpkeepReport
from hostler.kernel.units import Seconds
from hostler.policy.lifecycle import Verb

S = JobState
TICK = 0.5
"""Seconds between two rounds of upkeep."""
EVENTS_HOUR = 3600.0
"""Seconds for which events are kept however many there are."""


class ModelForeman(ModelLife):
    """Implements `ports.broker.Foreman`."""

    _restarted = False

    def restart(self) -> None:
        """Behave as after a restart of the engine: the next upkeep grants a lease of grace."""
        self._restarted = True

    async def declare_kind(self, spec: KindSpec, *, reason: str = "") -> None:
        """Add or renew a kind."""
        del reason
        self._declared += 1
        self._kinds[spec.name] = spec
        if spec.queue not in self._queues:
            self._open(QueueSpec(name=spec.queue))

    async def declare_queue(self, spec: QueueSpec, *, reason: str = "") -> None:
        """Add or change a queue's row."""
        del reason
        self._declared += 1
        self._open(spec)

    async def registry(self) -> tuple[RegistryRow, ...]:
        """Return every queue with its kinds."""
        return tuple(
            RegistryRow(
                queue=self._queues[name].spec,
                kinds=tuple(kind for _, kind in sorted(self._kinds.items()) if kind.queue == name),
            )
            for name in sorted(self._queues)
        )

    async def stats(self, queue: str) -> QueueStats:
        """Return exact counters."""
        record = self._queue(queue)
        now = self._now()
        live = [job for job in record.jobs.values() if job.live]
        ready = record.jobs_in(S.READY)
        return QueueStats(
            name=queue,
            paused=record.paused,
            draining=record.draining,
            reason=record.reason,
            ready=len(ready),
            scheduled=len(record.jobs_in(S.SCHEDULED)),
            running=len(record.jobs_in(S.RUNNING)),
            waiting=len(record.jobs_in(S.WAITING)),
            unworkable=sum(1 for job in ready if job.lane_key in record.unworkable),
            depth=len(live),
            bytes=sum(job.size for job in live),
            totals=dict(record.totals),
            kept={str(state): len(record.jobs_in(state)) for state in S if state.terminal},
            lanes=len({job.lane_key for job in live}),
            tenants=len({job.request.tenant for job in live}),
            workers=sum(1 for worker in self._live_workers(now) if queue in worker.worker.queues),
            oldest_ready_at=min((job.ready_at for job in ready if job.ready_at), default=None),
            offset=record.offset,
            epoch=1,
        )

    async def pause(self, queue: str, *, operation: str, reason: str = "") -> None:
        """Stop claims from this queue."""
        del operation
        record, now = self._queue(queue), self._now()
        if not record.paused:
            record.paused, record.reason = True, reason
            record.emit(now, "pause", reason=reason)

    async def resume(self, queue: str, *, operation: str, reason: str = "") -> None:
        """Allow claims again."""
        del operation
        record, now = self._queue(queue), self._now()
        if record.paused or record.draining:
            record.paused = record.draining = False
            record.reason = None
            record.emit(now, "resume", reason=reason)

    async def drain(self, queue: str, *, operation: str, reason: str = "") -> None:
        """Refuse new submits and let what is there run out."""
        del operation
        record, now = self._queue(queue), self._now()
        if not record.draining:
            record.draining, record.reason = True, reason
            record.emit(now, "drain", reason=reason)

    async def tick(self, queue: str) -> UpkeepReport:
        """Do one round of upkeep."""
        record, now = self._queue(queue), self._now()
        since = None if record.ticked is None else now - record.ticked
        if since is not None and since < seconds(TICK) and not self._restarted:
            return UpkeepReport(fresh=True)
        record.hear(now)
        if self._restarted or record.silent:
            self._grace(record, now)
        self._restarted = record.silent = False
        record.ticked = now
        self._wake_due(record, now)
        self._reap(record, now)
        self._escalate(record, now)
        self._expire(record, now)
        for key, lane in {job.lane_key: job.lane for job in record.jobs_in(S.READY)}.items():
            self._mark_lane(record, key, lane, now)
        self._retire(record, now)
        self._trim(record, now)
        return UpkeepReport(due_in=_due_in(record, now))

    async def promote(self, queue: str) -> Seconds | None:
        """Make delayed jobs that are due ready."""
        record, now = self._queue(queue), self._now()
        record.hear(now)
        self._wake_due(record, now)
        return _due_in(record, now)

    async def audit(self, queue: str, *, repair: bool = False) -> tuple[str, ...]:
        """Return no difference: the model has no index that could differ."""
        del repair
        self._queue(queue)
        return ()

    # upkeep

    def _grace(self, queue: QueueRecord, now: datetime) -> None:
        for job in queue.jobs_in(S.RUNNING):
            lease = self._lease(job)
            lease.ends = max(lease.ends, now + seconds(lease.seconds))
            job.grace = lease.ends

    def _reap(self, queue: QueueRecord, now: datetime) -> None:
        for job in sorted(queue.jobs_in(S.RUNNING), key=lambda one: (self._lease(one).ends, one.number)):
            if self._lease(job).ends <= now:
                self._lose(queue, job, now)

    def _escalate(self, queue: QueueRecord, now: datetime) -> None:
        for job in queue.jobs_in(S.RUNNING):
            if job.cancel_asked is not None and job.cancel_asked + seconds(queue.spec.cancel_grace) <= now:
                worker = self._lease(job).worker
                self._close_attempt(job, now, "cancel")
                self._end(queue, job, now, Verb.CANCEL, S.CANCELLED, worker=worker)

    def _trim(self, queue: QueueRecord, now: datetime) -> None:
        """Keep the last events, and all of the last hour."""
        surplus = max(0, len(queue.events) - queue.spec.retention.events)
        old = sum(1 for event in queue.events[:surplus] if event.at <= now - seconds(EVENTS_HOUR))
        del queue.events[:old]

    def _retire(self, queue: QueueRecord, now: datetime) -> None:
        kept = queue.spec.retention
        ended = sorted(
            queue.jobs_in(S.SUCCEEDED, S.CANCELLED, S.EXPIRED), key=lambda one: (one.finished_at or now, one.number)
        )
        surplus = ended[: max(0, len(ended) - kept.terminal_count)]
        for job in ended:
            if job in surplus or _age(job, now) >= seconds(kept.terminal):
                self._forget(queue, job)
        for job in queue.jobs_in(S.DEAD):
            if _age(job, now) >= seconds(kept.dead):
                self._forget(queue, job)


def _due_in(queue: QueueRecord, now: datetime) -> Seconds | None:
    due = [job.due for job in queue.jobs_in(S.SCHEDULED, S.WAITING) if job.due is not None]
    return max(0.0, (min(due) - now).total_seconds()) if due else None


def _age(job: JobRecord, now: datetime) -> timedelta:
    return now - (job.finished_at or now)
