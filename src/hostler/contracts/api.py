"""Bodies that only the API has: lists, batches and actions on many jobs."""

from enum import StrEnum
from typing import Annotated, Generic, TypeVar

from msgspec import Meta, Raw, Struct

from hostler.contracts.failure import FailureClass, Stage
from hostler.contracts.job import JobState
from hostler.contracts.problem import Problem
from hostler.contracts.service import EndpointState, Enrolment, Source
from hostler.kernel.units import Instant, JobId, Json, Label, Name, ShardName

T = TypeVar("T")

ErrorClass = Annotated[
    str,
    Meta(
        pattern=rf"^({'|'.join(FailureClass)})(:({'|'.join(Stage)}))?\Z",
        description="A failure class, as `transient`; a timeout may name its stage, as `timeout:idle`.",
    ),
]

Text = Annotated[str, Meta(max_length=500)]
"""One sentence of a person, kept with what it explains."""

BATCH_LIMIT = 500
"""Most jobs of one batch."""
ACTION_LIMIT = 1000
"""Most jobs that one action touches; its answer's `next` says where to go on."""


class Listing(Struct, Generic[T], frozen=True, kw_only=True):
    """One page of a list."""

    items: tuple[T, ...]
    next: str | None = None
    """Hand this in as `cursor` to get the next page; null at the end."""


class Because(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of a verb that a person may explain; it may be left out."""

    reason: Text = ""


class Reconfigured(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of `POST /v1/queues/{name}/configure`: what is to change; all else stays as it is."""

    reason: Annotated[str, Meta(min_length=1, max_length=500)]
    """Why; it is kept with the event."""
    queue: dict[str, Json] = {}
    """Part of the queue's row, as `{"limits": {"key_running": 3}}`."""
    kinds: Annotated[dict[Name, dict[str, Json]], Meta(max_length=64)] = {}
    """By kind of this queue: part of its row, `retry`, `timeouts` and `about`."""


class Batch(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of `POST /v1/jobs/batch`."""

    jobs: Annotated[tuple[Raw, ...], Meta(min_length=1, max_length=BATCH_LIMIT)]
    """Each is a `JobRequest`, judged by itself: a bad one does not keep the others out."""


class BatchItem(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What became of one job of a batch: an id, or a problem."""

    id: str | None = None
    created: bool = False
    """False when the idempotency key was seen: `id` is then the first job's."""
    problem: Problem | None = None


class BatchAnswer(Struct, frozen=True, kw_only=True):
    """One answer for each job of a batch, in its order."""

    items: tuple[BatchItem, ...]


class JobFilter(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Which jobs; every part given must hold."""

    queue: ShardName | None = None
    kind: Name | None = None
    states: Annotated[tuple[JobState, ...], Meta(max_length=8)] = ()
    tenant: Name | None = None
    worker: Label | None = None
    labels: Annotated[dict[Label, Label], Meta(max_length=16)] = {}
    error_class: ErrorClass | None = None
    """Class of the error that the job shows; `timeout` stands for the timeout of every stage."""
    ended_since: Instant | None = None
    """Ended then or later; a job that goes on does not match."""
    ended_until: Instant | None = None
    """Ended before that."""


EVERY_JOB = JobFilter()
"""Narrowed by nothing."""


class ActionVerb(StrEnum):
    """What can be done to many jobs at once."""

    CANCEL = "cancel"
    RETRY = "retry"
    """A replay: dead jobs begin anew as a new generation."""
    PURGE = "purge"


class Selection(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Jobs by id, by filter, or all of them: exactly one of the three."""

    ids: Annotated[tuple[JobId, ...], Meta(max_length=ACTION_LIMIT)] = ()
    filter: JobFilter | None = None
    all: bool = False
    """Every job in a state that the verb applies to; has to be said, so that an empty filter harms nobody."""
    dry_run: bool = False
    """Only say which jobs it would touch."""
    reason: Text = ""
    limit: Annotated[int, Meta(ge=1, le=ACTION_LIMIT)] = ACTION_LIMIT
    cursor: Annotated[str, Meta(max_length=512)] | None = None
    """The `next` of the answer before, to go on with the same selection."""


class Action(Selection, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of `POST /v1/jobs/actions`."""

    verb: ActionVerb


class ActionItem(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What became of one job of an action."""

    id: str
    state: JobState | None = None
    """Its state now; none when it is gone, or when this was a dry run."""
    problem: Problem | None = None


class ActionReport(Struct, frozen=True, kw_only=True):
    """What an action on many jobs did."""

    verb: ActionVerb
    dry_run: bool
    matched: int
    done: int
    failed: int
    items: tuple[ActionItem, ...]
    next: str | None = None
    """More jobs match: send the same selection with this as `cursor`."""


class Moved(Struct, frozen=True, kw_only=True):
    """The answer to a verb on one job."""

    id: str
    state: JobState
    """Its state now; a running job that was asked to stop says `running` until it did."""


class WorkerVerb(StrEnum):
    """What an operator can ask of a worker."""

    PAUSE = "pause"
    RESUME = "resume"
    DRAIN = "drain"


class Commanded(Struct, frozen=True, kw_only=True):
    """A worker was asked; it takes the command up within one heartbeat."""

    worker: str
    verb: WorkerVerb


class EndpointVerb(StrEnum):
    """What an operator can say of an endpoint."""

    PAUSE = "pause"
    """It gets nothing more; what runs there goes on."""
    RESUME = "resume"
    RESET = "reset"
    """Every worker closes its breaker and forgets the pauses that it asked for."""


class Marked(Struct, frozen=True, kw_only=True):
    """Workers take the word up within three seconds."""

    endpoint: str
    verb: EndpointVerb
    changed: bool


class Announcement(Enrolment, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """An endpoint that is announced, or renewed, for a time."""

    ttl: Annotated[float, Meta(ge=1, le=3600, extra_json_schema={"unit": "s"})] = 10.0
    """Seconds after which it is forgotten unless it is announced again."""

    def enrolment(self) -> Enrolment:
        """Return what is kept of it."""
        return Enrolment(**{name: getattr(self, name) for name in Enrolment.__struct_fields__})


class Announced(Struct, frozen=True, kw_only=True):
    """An announcement was taken in."""

    endpoint: str
    news: bool
    """Whether it was not known before, or was known otherwise."""


class Left(Struct, frozen=True, kw_only=True):
    """An endpoint was forgotten, or had not been announced."""

    endpoint: str
    left: bool


class EndpointReasons(Struct, frozen=True, kw_only=True):
    """Why one endpoint gets jobs, or does not."""

    endpoint: str
    service: str
    state: EndpointState
    source: Source
    found: str
    """How it became known."""
    open: bool
    """Whether it can get a job now."""
    reasons: tuple[str, ...]
    """What keeps jobs away, the most important first; or limits them."""


class ServiceReasons(Struct, frozen=True, kw_only=True):
    """Why the endpoints of one name get jobs, or do not."""

    name: str
    endpoints: tuple[EndpointReasons, ...]


class Health(Struct, frozen=True, kw_only=True):
    """The gateway's word on itself."""

    status: str
    """`alive`, `ready` or `degraded`."""
    version: str
    degraded: tuple[str, ...] = ()
    """What is less safe than it should be, one sentence each."""
