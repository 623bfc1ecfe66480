"""Queues and kinds: one table says who may put what where, and how it is treated."""

from enum import StrEnum
from typing import Annotated

from msgspec import Meta, Struct, field

from hostler.contracts.needs import Lane
from hostler.contracts.timeouts import Timeouts
from hostler.kernel.units import Bytes, Instant, Json, Name, QueueName, Seconds

NAMING = {
    "queue": "what waits in it, as image: lower case, digits, - and _, 48 characters at most",
    "kind": "area and act, as image.generate: lower case, digits, . - and _, 64 characters at most",
    "role": "who puts work in or takes it out, never a process: named as kinds are",
    "lane": "a number that is never given twice; its needs in canonical form, hashed, are its key",
}
"""The one rule by which things in the registry are named: the registry prints it, the types refuse what breaks it."""

Attempts = Annotated[int, Meta(ge=1, le=1000)]
Pointer = Annotated[str, Meta(pattern="^/", max_length=256)]
"""A JSON pointer (RFC 6901) to a part of a payload."""


class RetryPolicy(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """How often, and how far apart, a job is tried."""

    attempts: Attempts = 5
    """Counted attempts in all; the next never starts."""
    crashes: Attempts = 3
    """Lost leases after which the job is poison."""
    overloads: Attempts = 100
    """Times that a service may say *no room* before the job fails."""
    base: Seconds = 1.0
    """First backoff; it doubles, with full jitter."""
    cap: Seconds = 300.0


class Limits(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Backpressure of one queue; None is no limit."""

    depth: Annotated[int, Meta(ge=1)] | None = 1_000_000
    """Jobs that have not ended."""
    bytes: Bytes | None = 4_294_967_296
    """Payload bytes of jobs that have not ended."""
    tenant_depth: Annotated[int, Meta(ge=1)] | None = None
    lanes: Annotated[int, Meta(ge=1, le=100_000)] = 10_000
    key_running: Annotated[int, Meta(ge=1)] = 1
    """Jobs of one concurrency key that may run at the same time."""


class Retention(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """How long the engine keeps what has ended."""

    terminal: Seconds = 86_400.0
    terminal_count: Annotated[int, Meta(ge=0)] = 100_000
    dead: Seconds = 2_592_000.0
    events: Annotated[int, Meta(ge=100)] = 100_000
    idempotency: Seconds = 3_600.0
    operations: Seconds = 600.0
    affinity: Seconds = 1_800.0
    """How long it is known where the last job of a session ran, counted from its start."""


SHARDS_MAX = 64
ShardCount = Annotated[int, Meta(ge=1, le=SHARDS_MAX)]


class QueueSpec(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """One row of the queue registry."""

    name: QueueName
    about: str = ""
    producers: tuple[Name, ...] = ()
    consumers: tuple[Name, ...] = ()
    """Roles, not processes."""
    lease: Annotated[float, Meta(ge=0.05, le=3600, extra_json_schema={"unit": "s"})] = 10.0
    head_start: Annotated[float, Meta(ge=0, le=86_400, extra_json_schema={"unit": "s"})] = 60.0
    """How far ahead one level of priority puts a job."""
    reserve_after: Seconds = 30.0
    """After this wait, capacity is kept free for a job that is too big to fit between small ones."""
    cancel_grace: Seconds = 30.0
    """Time for a worker to acknowledge a cancel; then the lease is taken away."""
    limits: Limits = field(default_factory=Limits)
    retention: Retention = field(default_factory=Retention)
    weights: dict[Name, Annotated[int, Meta(ge=1, le=1000)]] = {}
    """Tenants' weights; 1 unless set."""
    shards: ShardCount = 1
    """Over how many parts it is spread, each with a place of its own in the engine: for a queue that is hotter than one
    primary serves. Limits of depth and bytes, and what is kept, are shared out among them."""
    key_shards: ShardCount | None = None
    """Over how many of them, from the first, jobs with an ordering key are spread; None: all."""
    open_shards: Annotated[int, Meta(ge=0, le=SHARDS_MAX)] | None = None
    """How many of them, from the first, take new jobs; None: all. What is in the others runs out, and they may go."""


class CacheMode(StrEnum):
    """What jobs of a kind have to do with results that are kept."""

    FIRST = "first"
    """Answer from the cache; without a result there, one of equal jobs runs and the others wait for what it brings."""
    ONLY = "only"
    """Answer from the cache, or fail as `refused`; nothing ever runs."""
    BYPASS = "bypass"
    """Run; neither read nor keep a result."""
    REFRESH = "refresh"
    """Run, and keep the result in place of what was there."""


class CachePolicy(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Whether and how long results of a kind are kept for equal jobs: same kind, payload, service and models.

    A job may choose another mode by its label `hostler.cache`. Tenants share what is kept.
    """

    mode: CacheMode = CacheMode.FIRST
    ttl: Annotated[float, Meta(ge=1, le=2_592_000, extra_json_schema={"unit": "s"})] = 3_600.0
    """How long a result answers."""


class KindSpec(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """One kind of work, declared by a worker, a connector or the configuration."""

    name: Name
    queue: QueueName = "default"
    about: str = ""
    service: Name | None = None
    """The service that runs it; None for handlers."""
    payload: dict[str, Json] | None = None
    """JSON Schema; None takes any JSON and shows as *untyped*."""
    result: dict[str, Json] | None = None
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    timeouts: Timeouts = field(default_factory=Timeouts)
    cache: CachePolicy | None = None
    """None: every job runs."""
    read: bool | None = None
    """Whether it is a short read: asking twice at the same time does no harm, and costs little. Only such work is
    asked of a second endpoint when the first is slow; never what makes something, or takes a GPU for long."""
    affinity: Annotated[tuple[Pointer, ...], Meta(max_length=8)] | None = None
    """Where a payload says which session it is of: jobs with the same values there go to one endpoint, within a bound.

    Of a list of chat messages the beginning counts, up to the first of the user. None: what the code declares.
    """
    declared_by: str = "configuration"
    planned: bool = False
    """Announced but not served yet: a submit is refused with that word."""


class UpkeepReport(Struct, frozen=True, kw_only=True):
    """What came of a slice of upkeep."""

    more: bool = False
    """More is left to do at once."""
    fresh: bool = False
    """Nothing was done: somebody did it less than half a second ago."""
    due_in: Seconds | None = None
    """When the next delayed job may be due; None when none waits, and where nothing was done."""


class QueueStats(Struct, frozen=True, kw_only=True):
    """Exact counters of one queue, and what follows from them."""

    name: str
    paused: bool
    draining: bool
    reason: str | None
    ready: int
    scheduled: int
    running: int
    waiting: int
    unworkable: int
    """Ready jobs in lanes that nobody can serve."""
    depth: int
    bytes: int
    totals: dict[str, int]
    """Since the queue began: submitted, deduplicated, claimed, succeeded, dead, cancelled, expired, replayed,
    purged, retried, reaped, rejected."""
    kept: dict[str, int]
    """Terminal jobs still in the engine, by state."""
    lanes: int
    tenants: int
    workers: int
    oldest_ready_at: Instant | None
    offset: int
    """Of its stream; of a queue of several shards, whose streams are apart, all of them added up."""
    epoch: int
    shards: tuple["QueueStats", ...] = ()
    """Each shard by itself, where there are several; the rest is their sum. Lanes and tenants count in each."""


class RegistryRow(Struct, frozen=True, kw_only=True):
    """A queue with its kinds, as `hostler queues registry` shows it."""

    queue: QueueSpec
    kinds: tuple[KindSpec, ...]


class Demand(Struct, frozen=True, kw_only=True):
    """Jobs of one lane that wait for models and may be claimed."""

    lane: Lane
    waiting: int
    oldest: Seconds
    """How long the first of them is ready."""


class QueueView(Struct, frozen=True, kw_only=True):
    """One queue as the API shows it: its row, its kinds and its counters."""

    name: str
    spec: QueueSpec
    kinds: tuple[KindSpec, ...]
    stats: QueueStats
