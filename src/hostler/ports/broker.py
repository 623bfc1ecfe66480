"""Where jobs wait: the promises of the job broker.

Three protocols share one adapter: `Broker` is spoken by workers, `Desk` by whoever submits and looks,
`Foreman` by operators and by the maintenance loop. Every mutating verb is one atomic step: it happened
whole, or nothing changed. Every verb may raise `EngineUnavailableError` or `EngineTimeoutError`; for a
mutating verb that means *may or may not have happened*, and the same `operation` (any text, unique per
intent) may then be sent again: within 10 minutes it gives the first answer and changes nothing twice.

A queue may be spread over shards (`QueueSpec.shards`). What is promised of order, turns and limits is then promised
of each. A `queue` that is looked at or operated may be one of them, as `image~2`; submits name the queue, workers
and followers its shards (`policy.sharding.shards_of`).
"""

from collections.abc import Sequence
from typing import Protocol

from hostler.contracts.api import EVERY_JOB, JobFilter
from hostler.contracts.event import Page, Timeline
from hostler.contracts.explain import Explanation
from hostler.contracts.job import Job, JobRequest, JobState, Submitted
from hostler.contracts.lease import ClaimRequest, Lease, LeaseRef, Renewal, Settled, Settlement, Update
from hostler.contracts.preview import Preview
from hostler.contracts.queue import Demand, KindSpec, QueueSpec, QueueStats, RegistryRow, UpkeepReport
from hostler.kernel.units import Seconds


class Broker(Protocol):
    """What a worker needs."""

    async def claim(self, request: ClaimRequest, *, operation: str) -> tuple[Lease, ...]:
        """Lease the best jobs that this worker fits, at most `request.limit`, best first; empty when there is none.

        From a queue without other shards, or from one shard.

        One step: due jobs become ready, pause, limits, concurrency keys and amounts are checked, the jobs are
        leased and their amounts taken. Order: tenants by least share used, inside a tenant the earliest
        effective arrival. The worker must be announced (`Registry.announce`); its offers decide which lanes
        it fits. No two live leases ever exist for one job. A replay of `operation` returns only those of its
        leases that are still held; with a limit of 0 nothing is claimed, not even by a try under this operation that
        arrives later. Nothing is claimed from a paused or draining queue.
        """
        ...

    async def wait_for_work(self, queues: Sequence[str], worker: str, *, timeout: float) -> bool:
        """Return True soon after work for this worker may have appeared, False after `timeout` seconds.

        A hint only: a lost wake-up costs at most `timeout`, a spurious one an empty claim.
        """
        ...

    async def demand(self, queue: str) -> tuple[Demand, ...]:
        """Return what waits for models, lane by lane: jobs that may be claimed now and name at least one.

        Nothing while the queue is paused or drained. The first 64 tenants in turn are looked at, and 16 lanes of each.
        """
        ...

    async def renew(self, worker: str, leases: Sequence[LeaseRef]) -> Renewal:
        """Extend all these leases by their queue's lease time and say which are lost or were asked to stop.

        Leases of any number of queues in one call. Idempotent.
        """
        ...

    async def progress(self, worker: str, updates: Sequence[Update]) -> tuple[LeaseRef, ...]:
        """Store progress, remote ids, checkpoints and previews; return the stale leases (nothing stored for those).

        The latest wins; each update with `progress` set is one event. A preview is gone after a minute without
        another, and when its attempt ends.
        """
        ...

    async def settle(self, worker: str, settlements: Sequence[Settlement]) -> tuple[Settled, ...]:
        """End attempts, in the order given: finish, retry, wait, fail or acknowledge a cancel.

        Each is judged by itself: a stale fence is refused and is one event (`reject`, once per job and fence).
        Idempotent by fence: the same ending sent again is accepted again and changes nothing. A success whose
        job was asked to cancel ends `cancelled`, its result is not recorded. An `Again` beyond the budget
        (attempts, overloads) ends `dead`. Amounts and concurrency keys are given back in the same step.
        """
        ...


class Desk(Protocol):
    """What whoever submits and follows jobs needs."""

    async def submit(self, requests: Sequence[JobRequest], *, operation: str) -> tuple[Submitted | Exception, ...]:
        """Store jobs durably; one answer each, in order, an exception (never raised) for each refused one.

        All of one call share one fate per queue: a queue's jobs are stored in one step (at most 100 a step).
        Refused without a trace: `UnknownKindError`, `PlannedKindError`, `PayloadError`, `QueueFullError`,
        `IdempotencyConflictError` (same key, other body), `InvalidError`. Where some queues of the call answer and
        others do not, jobs of these are answered with `EngineUnavailableError` or `EngineTimeoutError`: they may or
        may not be stored.

        To several shards each part goes in a step of its own. Jobs with one ordering key lie in one shard; the others
        go where the operation leads. `reroutable` refusals are for that shard only: another operation may do.
        """
        ...

    async def get(self, job_id: str, *, payload: bool = False) -> Job:
        """Return one job; `NotFoundError` when it never was or is no longer kept."""
        ...

    async def find(
        self, which: JobFilter = EVERY_JOB, *, cursor: str | None = None, limit: int = 50
    ) -> tuple[tuple[Job, ...], str | None]:
        """Return one page of the jobs that fit, newest first, and the cursor of the next (None at the end).

        A page may hold fewer than `limit` and still have a next: one call looks at a bounded number of jobs.
        """
        ...

    async def timeline(self, job_id: str) -> Timeline:
        """Return the events of one job, oldest first."""
        ...

    async def preview(self, job_id: str) -> Preview:
        """Return the latest picture of running work; `NotFoundError` when there is no such job, or no picture now."""
        ...

    async def explain(self, job_id: str) -> Explanation:
        """Say why the job is where it is, per need and worker, with its place in the line."""
        ...

    async def cancel(self, job_id: str, *, operation: str, reason: str = "") -> JobState:
        """Cancel a job: at once unless it runs; a running one is asked to stop and stays `running` until it did.

        Idempotent. `StateConflictError` when it has ended otherwise.
        """
        ...

    async def replay(self, job_id: str, *, operation: str, reason: str = "") -> JobState:
        """Make a dead job ready again as a new generation with fresh budgets; `StateConflictError` otherwise."""
        ...

    async def wake(self, job_id: str, *, operation: str, reason: str = "") -> JobState:
        """Make a waiting or scheduled job ready now; `StateConflictError` otherwise."""
        ...

    async def purge(self, job_id: str, *, operation: str, reason: str = "") -> None:
        """Remove a job that has ended, with all that is kept of it; `StateConflictError` while it has not."""
        ...

    async def events(self, queue: str, *, after: int, limit: int = 1000, wait: float = 0.0) -> Page:
        """Return events with offsets above `after`, oldest first; wait up to `wait` seconds for one to come.

        `gap` is True when `after` is older than what is kept. `InvalidError` for a queue of several shards: each
        has a stream of its own.
        """
        ...


class Foreman(Protocol):
    """What operators and the maintenance loop need."""

    async def declare_kind(self, spec: KindSpec, *, reason: str = "") -> None:
        """Add or renew a kind (and its queue, with defaults, if absent). The last declaration wins.

        What changes anything is an event of the registry, with the reason.
        """
        ...

    async def declare_queue(self, spec: QueueSpec, *, reason: str = "") -> None:
        """Add or change a queue's row: it holds from the next call on. An event as for kinds.

        `ConflictError` for other shards than before where that would part jobs of one key, or drop any.
        """
        ...

    async def registry(self) -> tuple[RegistryRow, ...]:
        """Return every queue with its kinds, by name."""
        ...

    async def stats(self, queue: str) -> QueueStats:
        """Return exact counters, those of several shards added up; `UnknownQueueError`."""
        ...

    async def pause(self, queue: str, *, operation: str, reason: str = "") -> None:
        """Stop claims from this queue; running work goes on. Idempotent."""
        ...

    async def resume(self, queue: str, *, operation: str, reason: str = "") -> None:
        """Allow claims again; ends a drain too. Idempotent."""
        ...

    async def drain(self, queue: str, *, operation: str, reason: str = "") -> None:
        """Refuse new submits (`CapacityError`) and let what is there run out. Idempotent."""
        ...

    async def tick(self, queue: str) -> UpkeepReport:
        """Do one slice of upkeep: wake due jobs, reap lost leases, expire, escalate, mark lanes, retire old jobs.

        Any process may call it as often as it likes: the engine does the work at most every half second. After an
        engine restart or stall every live lease first gets one lease of grace.
        """
        ...

    async def promote(self, queue: str) -> Seconds | None:
        """Make delayed jobs that are due ready; return when the next one may be due, None when none waits.

        Upkeep does that too; this is for whoever knows from it when the next one is due.
        """
        ...

    async def audit(self, queue: str, *, repair: bool = False) -> tuple[str, ...]:
        """Recount every index of the queue and return each difference as a sentence; optionally mend them."""
        ...
