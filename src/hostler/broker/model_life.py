"""How attempts and jobs of the model end, and what time does to them."""

from datetime import datetime
from typing import Any

from hostler.broker.model_core import ModelCore
from hostler.broker.model_state import JobRecord, QueueRecord, error_of
from hostler.contracts.failure import Failure, FailureClass
from hostler.contracts.fence import attempt_of
from hostler.contracts.job import Attempt, JobState
from hostler.policy.lifecycle import Verb
from hostler.valkeyio.layout import ATTEMPTS_KEPT

S = JobState


class ModelLife(ModelCore):
    """The moves that several verbs make."""

    def _close_attempt(
        self, job: JobRecord, now: datetime, outcome: str, *, failure: Failure | None = None, counted: bool = False
    ) -> None:
        """End the live lease: history gets an attempt unless it succeeded, amounts and keys are free again."""
        lease = job.lease
        if lease is None:
            raise AssertionError(f"{job.id} has no lease to end")
        job.lease = job.preview = None
        job.cancel_asked = None if outcome == "cancel" else job.cancel_asked
        if counted:
            job.attempts_used += 1
        if failure is not None:
            job.error = error_of(failure)
        if outcome == "finish":
            return
        job.attempts.append(
            Attempt(
                number=attempt_of(job.fence),
                generation=job.generation,
                worker=lease.worker,
                endpoint=job.endpoint,
                started_at=lease.began,
                ended_at=now,
                outcome=outcome,
                error=failure,
                counted=counted,
                remote=job.remote,
            )
        )
        del job.attempts[:-ATTEMPTS_KEPT]

    def _end(
        self, queue: QueueRecord, job: JobRecord, now: datetime, verb: Verb, state: JobState, **facts: Any
    ) -> None:
        """Move a job to a terminal state."""
        queue.move(now, job, verb, state, **facts)
        queue.count(str(state))
        job.finished_at = now
        job.due = job.cancel_asked = None
        job.waiting_for = None

    def _ready(self, queue: QueueRecord, job: JobRecord, now: datetime, verb: Verb, **facts: Any) -> None:
        """Move a job to its place in the line."""
        queue.move(now, job, verb, S.READY, **facts)
        job.ready_at = now
        job.due = None
        job.waiting_for = None

    def _wake_due(self, queue: QueueRecord, now: datetime) -> None:
        for job in sorted(queue.jobs_in(S.SCHEDULED, S.WAITING), key=lambda one: (one.due or now, one.number)):
            if job.due is not None and job.due <= now:
                self._ready(queue, job, now, Verb.WAKE)

    def _expires(self, job: JobRecord) -> datetime | None:
        """Return when a job that does not run expires: its deadline, or the longest wait before its first start."""
        limits = [limit for limit in (job.deadline, job.queue_until) if limit is not None]
        return min(limits, default=None)

    def _expire(self, queue: QueueRecord, now: datetime) -> None:
        """End what has passed its deadline or its longest wait."""
        for job in [job for job in queue.jobs.values() if job.live]:
            limit = job.deadline if job.state is S.RUNNING else self._expires(job)
            if limit is None or limit > now:
                continue
            worker = job.worker
            if job.state is S.RUNNING:
                self._close_attempt(job, now, "expire")
            self._end(queue, job, now, Verb.EXPIRE, S.EXPIRED, worker=worker)

    def _forget(self, queue: QueueRecord, job: JobRecord) -> None:
        """Remove a job that ended, with all that is kept of it."""
        del queue.jobs[job.id]
        queue.count("purged")

    def _lose(self, queue: QueueRecord, job: JobRecord, now: datetime) -> None:
        """Take a lease away that ran out."""
        lease = job.lease
        if lease is None:
            raise AssertionError(f"{job.id} has no lease to lose")
        excused: dict[str, Any] = {} if job.grace != lease.ends else {"charged": False}
        if not excused:
            job.crashes += 1
            job.down.append(lease.worker)
        failure = Failure(class_=FailureClass.LOST, message=f"the lease of worker {lease.worker} ran out")
        queue.count("reaped")
        if job.cancel_asked is not None:
            self._close_attempt(job, now, "cancel", failure=failure)
            self._end(queue, job, now, Verb.CANCEL, S.CANCELLED, worker=lease.worker)
        elif job.crashes >= self._policy(job).crashes:
            poison = Failure(
                class_=FailureClass.POISON, message="it took down too many workers", details={"workers": job.down[:]}
            )
            self._close_attempt(job, now, "reap", failure=failure)
            job.error = error_of(poison)
            self._end(queue, job, now, Verb.BURY, S.DEAD, worker=lease.worker)
        else:
            self._close_attempt(job, now, "reap", failure=failure)
            self._ready(queue, job, now, Verb.REAP, worker=lease.worker, **excused)
