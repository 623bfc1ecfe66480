"""What the model remembers: plain records, and the one place where its events are written."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Generic, TypeVar

from msgspec import UNSET, Raw, UnsetType

from hostler.contracts.event import Event
from hostler.contracts.failure import Failure
from hostler.contracts.fence import attempt_of
from hostler.contracts.job import Attempt, BlobRef, JobError, JobRequest, JobState, Progress, null_json
from hostler.contracts.lease import Lease
from hostler.contracts.needs import Lane
from hostler.contracts.preview import Preview
from hostler.contracts.queue import QueueSpec
from hostler.contracts.worker import Worker
from hostler.kernel.units import Json, Seconds
from hostler.policy.lanes import lane_key
from hostler.policy.lifecycle import Verb, advance

SILENCE = 5.0
"""Seconds without any call after which every live lease gets one lease of grace: nobody may have reached the broker."""
STRIDE = 10_080
"""What one claim costs a tenant of weight 1; divisible by every weight up to 10."""

T = TypeVar("T")


@dataclass(kw_only=True)
class Kept(Generic[T]):
    """An answer that is remembered for a while."""

    answer: T
    until: datetime


@dataclass(kw_only=True)
class LeaseRecord:
    """The live lease of a running job."""

    worker: str
    seconds: Seconds
    ends: datetime
    began: datetime
    taken: tuple[tuple[str, str, float], ...]
    """Pool id, name and amount of everything it takes."""


@dataclass(kw_only=True)
class JobRecord:
    """One job."""

    id: str
    number: int
    queue: str
    request: JobRequest
    lane: Lane
    state: JobState
    created_at: datetime
    arrival: int
    """Effective arrival in microseconds: submit time less the head start of its priority."""
    ready_at: datetime | None
    due: datetime | None = None
    """When a scheduled or waiting job wakes by itself."""
    deadline: datetime | None = None
    queue_until: datetime | None = None
    """End of the longest wait before its first start; None once it was started."""
    started_at: datetime | None = None
    finished_at: datetime | None = None
    fence: int = 0
    generation: int = 1
    attempts_used: int = 0
    crashes: int = 0
    overloads: int = 0
    lease: LeaseRecord | None = None
    worker: str | None = None
    endpoint: str | None = None
    cancel_asked: datetime | None = None
    waiting_for: str | None = None
    progress: Progress | None = None
    preview: Kept[Preview] | None = None
    result: Raw = field(default_factory=null_json)
    result_ref: BlobRef | None = None
    error: JobError | None = None
    attempts: list[Attempt] = field(default_factory=list[Attempt])
    remote: str | None = None
    remote_endpoint: str | None = None
    checkpoint: Raw | UnsetType = UNSET
    settled: tuple[int, str] | None = None
    """The last ending that was accepted: sent again, it is accepted again."""
    rejected: set[int] = field(default_factory=set[int])
    """Fences whose refusal is an event already."""
    grace: datetime | None = None
    """The end that its lease was given after a restart or stall: a lease lost at it is not charged."""
    down: list[str] = field(default_factory=list[str])
    """Workers that lost their lease on it."""
    affinity: str | None = None
    """What the jobs of its session share."""
    named: tuple[Lane, str] | None = None
    """The lane that was last asked for its name, and the name."""

    @property
    def lane_key(self) -> str:
        """Return the name of its lane, which takes longer to make than all else that a claim asks of a job."""
        if self.named is None or self.named[0] is not self.lane:
            self.named = self.lane, lane_key(self.lane)
        return self.named[1]

    @property
    def size(self) -> int:
        """Return the bytes of its payload."""
        return len(bytes(self.request.payload))

    @property
    def live(self) -> bool:
        """Tell whether it has not ended."""
        return not self.state.terminal


@dataclass(kw_only=True)
class QueueRecord:
    """One queue with all that is in it."""

    spec: QueueSpec
    jobs: dict[str, JobRecord] = field(default_factory=dict[str, JobRecord])
    numbers: int = 0
    life: int = 0
    """Which life of the queue its jobs are of: fences begin above those of earlier ones (contracts.fence)."""
    clock: int = 0
    """The last effective submit time in microseconds; strictly rising."""
    paused: bool = False
    draining: bool = False
    reason: str | None = None
    events: list[Event] = field(default_factory=list[Event])
    offset: int = 0
    totals: dict[str, int] = field(default_factory=dict[str, int])
    passes: dict[str, int] = field(default_factory=dict[str, int])
    virtual: int = 0
    """The pass of the tenant that was served last: nobody comes back with less."""
    unworkable: set[str] = field(default_factory=set[str])
    """Keys of lanes that nobody serves."""
    idempotency: dict[tuple[str, str], Kept[tuple[str, bytes]]] = field(
        default_factory=dict[tuple[str, str], Kept[tuple[str, bytes]]]
    )
    homes: dict[str, Kept[str]] = field(default_factory=dict[str, Kept[str]])
    """Where the last job of each session ran."""
    claims: dict[str, Kept[tuple[Lease, ...]]] = field(default_factory=dict[str, Kept[tuple[Lease, ...]]])
    ticked: datetime | None = None
    heard: datetime | None = None
    """When anybody last did anything here."""
    silent: bool = False
    """Whether nobody did for a while, though jobs ran, since the last upkeep."""

    def hear(self, at: datetime) -> None:
        """Note that somebody does something."""
        if self.heard is not None and at - self.heard > seconds(SILENCE):
            self.silent = self.silent or any(_ran_before(job, at) for job in self.jobs.values())
        self.heard = at

    def jobs_in(self, *states: JobState) -> list[JobRecord]:
        """Return the jobs in any of these states, in order of submit."""
        return [job for job in self.jobs.values() if job.state in states]

    def home(self, job: JobRecord, now: datetime) -> str | None:
        """Return where the last job of this one's session ran, as far as that is remembered."""
        known = self.homes.get(job.affinity) if job.affinity else None
        return known.answer if known is not None and known.until > now else None

    def count(self, total: str, by: int = 1) -> None:
        """Raise one of the totals."""
        self.totals[total] = self.totals.get(total, 0) + by

    def emit(self, at: datetime, type_: str, job: JobRecord | None = None, **facts: Json) -> None:
        """Append one event that moves nothing."""
        self._append(at, type_, job, None, facts)

    def move(self, at: datetime, job: JobRecord, verb: Verb, state: JobState, **facts: Json) -> None:
        """Move a job, as the life table allows, and append the event."""
        before = None if verb is Verb.SUBMIT else job.state
        if state not in advance(before, verb):
            raise AssertionError(f"{before} has no move {verb} to {state}")
        job.state = state
        if state is not JobState.RUNNING and not state.terminal:
            job.worker = None
        self._append(at, verb, job, state, facts)

    def _append(
        self, at: datetime, type_: str, job: JobRecord | None, state: JobState | None, facts: dict[str, Json]
    ) -> None:
        self.hear(at)
        self.offset += 1
        worker = facts.pop("worker", None)
        self.events.append(
            Event(
                offset=self.offset,
                at=at,
                type=str(type_),
                job=job.id if job else None,
                state=state,
                attempt=attempt_of(job.fence) if job else None,
                worker=worker,
                data=facts,
            )
        )


@dataclass(kw_only=True)
class WorkerRecord:
    """One announced worker."""

    worker: Worker
    ends: datetime
    commands: list[str] = field(default_factory=list[str])


def error_of(failure: Failure) -> JobError:
    """Return a failure as a job shows it."""
    return JobError(class_=failure.label, message=failure.message, details=failure.details)


def seconds(value: Seconds) -> timedelta:
    """Return a duration as a difference of instants."""
    return timedelta(seconds=value)


def _ran_before(job: JobRecord, at: datetime) -> bool:
    """Tell whether a job ran before what happens at this moment, which may have ended it."""
    if job.lease is not None:
        return job.lease.began < at
    if job.state is JobState.SUCCEEDED:
        return job.finished_at in {None, at}  # the event of its end comes first
    return bool(job.attempts) and job.attempts[-1].ended_at == at
