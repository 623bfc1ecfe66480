"""A job: what is submitted, what can be seen of it, and what was tried."""

from enum import StrEnum
from typing import Annotated

from msgspec import UNSET, Meta, Raw, Struct, UnsetType, field

from hostler.contracts.failure import Failure
from hostler.contracts.needs import Avoid, Needs
from hostler.contracts.timeouts import Timeouts
from hostler.kernel.units import Bytes, Fraction, Instant, Json, Label, Name, Priority, QueueName, Seconds


class JobState(StrEnum):
    """Where a job is in its life; the table of moves is `policy.lifecycle`."""

    SCHEDULED = "scheduled"
    """Waits for its time (a delay, or a retry's backoff)."""
    READY = "ready"
    """May be claimed."""
    RUNNING = "running"
    """Leased to one worker."""
    WAITING = "waiting"
    """Needs a resource, a secret or a person; not a failure."""
    SUCCEEDED = "succeeded"
    DEAD = "dead"
    """Failed for good: kept, inspectable, replayable."""
    CANCELLED = "cancelled"
    EXPIRED = "expired"

    @property
    def terminal(self) -> bool:
        """Tell whether nothing moves it any more within this generation."""
        return self in _TERMINAL


_TERMINAL = frozenset({JobState.SUCCEEDED, JobState.DEAD, JobState.CANCELLED, JobState.EXPIRED})

IdempotencyKey = Annotated[str, Meta(min_length=1, max_length=256)]
ConcurrencyKey = Annotated[str, Meta(min_length=1, max_length=256)]
Delay = Annotated[float, Meta(ge=0, le=31_536_000, extra_json_schema={"unit": "s"})]
"""Seconds until a job may start; a year at most."""

TENANT_DEFAULT = "default"
PRIORITY_DEFAULT = 50
INLINE_LIMIT: Bytes = 262_144
"""Payloads and results over 256 KiB go by reference to the blob store."""


def null_json() -> Raw:
    """Return the JSON value null, sealed."""
    return Raw(b"null")


MediaType = Annotated[
    str,
    Meta(
        max_length=127, pattern=r"^[A-Za-z0-9!#$&^_.+-]+/[A-Za-z0-9!#$&^_.+-]+( ?; ?[A-Za-z0-9_-]+=[A-Za-z0-9_.-]+)*\Z"
    ),
]
"""As in a `Content-Type` header, with parameters that need no quotes."""


class BlobRef(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A reference to bytes in the blob store."""

    sha256: Annotated[str, Meta(pattern="^[0-9a-f]{64}\\Z")]
    size: Bytes
    media_type: MediaType = "application/json"


class JobRequest(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """One job as it is submitted (body of `POST /v1/jobs`)."""

    kind: Name
    payload: Raw = field(default_factory=null_json)
    """Sealed JSON: only the connector or handler that runs it opens it."""
    queue: QueueName | None = None
    """The kind's own queue unless set."""
    needs: Needs = field(default_factory=Needs)
    avoid: Avoid = field(default_factory=Avoid)
    priority: Priority = PRIORITY_DEFAULT
    delay: Delay | None = None
    run_at: Instant | None = None
    """Start no earlier than this; excludes `delay`."""
    deadline: Instant | None = None
    """The whole job must have ended by this; then it is `expired`."""
    idempotency_key: IdempotencyKey | None = None
    tenant: Name = TENANT_DEFAULT
    concurrency_key: ConcurrencyKey | None = None
    """Jobs with one key never run at the same time (limit 1 unless the queue sets another)."""
    timeouts: Timeouts = field(default_factory=Timeouts)
    webhook: Annotated[str, Meta(max_length=2048)] | None = None
    labels: Annotated[dict[Label, Label], Meta(max_length=16)] = {}


class Progress(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How far running work is; every field is optional, the latest wins."""

    fraction: Fraction | None = None
    stage: str | None = None
    message: str | None = None
    eta_s: Seconds | None = None
    text: str | None = None
    """Text produced since the attempt's previous progress event (streamed tokens); merged by appending."""
    preview: int | None = None
    """Number of the attempt's latest preview picture, from 1; the picture itself is at `/v1/jobs/{id}/preview`."""


class Attempt(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One claim of a job that ended without success: append-only."""

    number: int
    """Counts claims from 1, over all generations (the same number as the fence)."""
    generation: int
    worker: str
    endpoint: str | None = None
    started_at: Instant
    ended_at: Instant
    outcome: str
    """The verb that ended it: `fail`, `retry`, `wait`, `reap`, `cancel`, `expire`."""
    error: Failure | None = None
    counted: bool = False
    """Whether it used up one of the allowed attempts."""
    remote: str | None = None
    """The service's own id of the work, if it gave one."""


class JobError(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why a job is dead, or what its last attempt ran into."""

    class_: str = field(name="class")
    message: str
    details: dict[str, Json] = {}


class Job(Struct, frozen=True, kw_only=True):
    """A job as the API shows it."""

    id: str
    kind: str
    queue: str
    state: JobState
    tenant: str
    priority: int
    attempt: int
    """Claims so far (0 before the first)."""
    generation: int
    """1, and one more for each replay."""
    created_at: Instant
    ready_at: Instant | None
    started_at: Instant | None
    finished_at: Instant | None
    deadline: Instant | None
    progress: Progress | None
    worker: str | None
    service: str | None
    result: Raw
    """The result as the connector or handler sealed it; JSON null while there is none."""
    result_ref: BlobRef | None
    error: JobError | None
    attempts: tuple[Attempt, ...]
    """The last 200 claims that did not succeed, oldest first."""
    resources: dict[str, float]
    """Amounts that it takes while it runs."""
    labels: dict[str, str]
    needs: Needs
    avoid: Avoid
    unworkable: bool
    """No live worker can serve it; `explain` says why."""
    cancel_requested: bool = False
    waiting_for: str | None = None
    """What a `waiting` job waits for."""
    flow: str | None = None
    payload: Raw | UnsetType = UNSET
    """Only in the view of a single job."""


class Submitted(Struct, frozen=True, kw_only=True):
    """The answer to one submit."""

    id: str
    created: bool
    """False when the idempotency key was seen: `id` is then the first job's."""
