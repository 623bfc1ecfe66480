"""The lines of a recorded history: what was asked, answered, done and broken, and what the engine says happened.

A history is NDJSON, one line each, of these closed types; `tape.py` writes and reads it. Lines of different
processes may stand in any order: operations are ordered by `t_mono`, events by their offsets, effects as written.
"""

from typing import Literal

from msgspec import Struct, field

from hostler.chaos.values import Value
from hostler.contracts.event import Event, Life
from hostler.contracts.job import Job, JobState
from hostler.contracts.limit import Limit
from hostler.contracts.offer import Offer
from hostler.contracts.queue import QueueStats
from hostler.contracts.service import EndpointState
from hostler.contracts.worker import WorkerState
from hostler.kernel.units import Instant, Name, Seconds, ShardName
from hostler.policy.breaker import Mode

VERSION = 1
OpType = Literal["invoke", "ok", "fail", "info"]


class Terms(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What was promised to one queue; None is not judged."""

    slots: dict[str, int] | None = None
    """Jobs that each worker may hold at the same time."""
    offers: dict[str, tuple[Offer, ...]] | None = None
    """What each worker offered, all the time."""
    depth: int | None = None
    tenant_depth: int | None = None
    key_running: int = 1
    attempts: int | None = None
    crashes: int | None = None
    backoff_cap: Seconds | None = None
    """Longest delay of a retry."""
    head_start: Seconds = 60.0
    weights: dict[str, int] = field(default_factory=dict[str, int])
    window: Seconds = 3600.0
    """How long an idempotency key is remembered."""
    unknown_submits: int = 0
    """Submits whose answer was never seen: they may or may not have happened."""
    effectful: frozenset[str] = frozenset()
    """Kinds whose success needs an effect."""
    lease: Seconds | None = None
    """How long a lease lasts; none is taken back before that."""


class Bounds(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """How long each kind of recovery may take."""

    terminal: Seconds = 120.0
    """From the last fault's end to the last job's end (L1)."""
    recovery_p99: Seconds = 15.0
    recovery_most: Seconds = 30.0
    """From a fault's end to the next claim of the work that it struck (L2)."""
    submit_gap: Seconds = 10.0
    """Longest time without an acknowledged submit while some were asked for (L3)."""
    failover: Seconds = 10.0
    """From one settled job to the next, around a fault by which the engine may lose something: less than this (L3)."""
    reaper: Seconds = 2.0
    """How long a lease may stand over its end, beside its length (L4)."""
    breaker: Seconds = 90.0
    """From a fault's end to the endpoint's breaker being closed (L5): its longest pause and a probe."""


class Said(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True, tag_field="line"):
    """What all lines have in common."""


class Header(Said, frozen=True, kw_only=True, tag="header"):
    """The first line, once in a history."""

    version: Literal[1] = VERSION
    began_at: Instant
    seed: int | None = None
    scenario: str | None = None
    queues: dict[ShardName, Terms] = {}
    bounds: Bounds = Bounds()
    one_clock: bool = True
    """Whether `t_mono` of all processes, and wall clocks and the engine's, compare: they ran on one machine."""
    canaries: tuple[str, ...] = ()
    """Secret values that must stand in no other line."""


class Op(Said, frozen=True, kw_only=True, tag="op"):
    """One end of one operation of a client.

    `invoke` begins it, `ok` says that it happened, `fail` that it did not, `info` that nobody knows: it may have
    happened, or may yet happen, and the process's name is never used again. A process has one at a time.
    """

    process: str
    op: Name
    """The verb: `submit claim renew progress settle cancel replay wake purge get pause resume drain`; others are
    kept and not judged."""
    type: OpType
    t_mono: Seconds
    t_wall: Instant
    job: str | None = None
    """Of verbs for one job."""
    queue: str | None = None
    operation: str | None = None
    """The operation id that went with it: the same one again is the same operation, and is answered the same."""
    value: Value | None = None
    """What was asked (`invoke`), answered (`ok`) or refused (`fail`)."""


class Events(Said, frozen=True, kw_only=True, tag="events"):
    """A stretch of one queue's own stream, in order of offsets."""

    queue: str
    epoch: int = 0
    events: tuple[Event, ...]
    gap: bool = False
    """What stood before these was gone before it was read."""


class Effect(Said, frozen=True, kw_only=True, tag="effect"):
    """One thing that a service did for a job, in the order in which it did them."""

    job: str
    fence: int
    type: str = "finished"
    """`finished` is what counts as done; `started`, `failed`, `cancelled` and others tell the rest."""
    service: str | None = None
    at: Instant | None = None


class Roster(Said, frozen=True, kw_only=True, tag="roster"):
    """A worker as the registry showed it, from `at` on."""

    worker: str
    at: Instant
    state: WorkerState
    slots: int | None = None
    offers: tuple[Offer, ...] = ()
    loop_age: Seconds | None = None
    beat_age: Seconds | None = None
    """Seconds since its last heartbeat."""


class Circuit(Said, frozen=True, kw_only=True, tag="circuit"):
    """An endpoint as one process saw it, from `at` on."""

    endpoint: str
    at: Instant
    process: str | None = None
    breaker: Mode | None = None
    state: EndpointState | None = None


class Granted(Said, frozen=True, kw_only=True, tag="granted"):
    """One call that a shared limit let go, by the limiter's clock."""

    limit: Limit
    at: Instant
    units: int = 1


class Fault(Said, frozen=True, kw_only=True, tag="fault"):
    """Something that was broken on purpose; written once it is over."""

    kind: Name
    """As `kill`, `stop`, `restart`, `power_cut`, `partition`, `disk_full`, `clock_jump`, `slow_service`."""
    target: str
    begin: Seconds
    end: Seconds
    """By `t_mono`; equal for what is over at once, as a kill."""
    began_at: Instant
    ended_at: Instant
    how: str = ""
    workers: tuple[str, ...] = ()
    """Whose work it struck; with none, the work of all the `queues` (or of all)."""
    queues: tuple[str, ...] = ()
    endpoints: tuple[str, ...] = ()
    """Services that could not answer meanwhile."""
    loses: tuple[tuple[Seconds, Seconds], ...] = ()
    """By `t_mono`, from when to when: what the engine acknowledged then may be lost by it."""


class Mark(Said, frozen=True, kw_only=True, tag="mark"):
    """A turn in the run.

    `began`: from here on every fault is in the record. `healed`: the last fault is over. `drained`: every job had its
    end, or the wait for that was given up. `read`: all events, jobs and books that could be read at the end stand in
    the record; what needs the whole of it is judged only after that.
    """

    what: Literal["began", "quiet", "healed", "drained", "read"]
    t_mono: Seconds
    t_wall: Instant


class Push(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """One event as it was pushed to a reader."""

    offset: int
    type: str
    job: str | None = None
    state: JobState | None = None


class Heard(Said, frozen=True, kw_only=True, tag="heard"):
    """What a reader of a live stream got on one connection and in one epoch, in the order of arrival."""

    reader: str
    queue: str
    epoch: int = 0
    job: str | None = None
    """It asked for this job's events; None: for all of the queue."""
    after: int = 0
    """It asked for what stands above this offset."""
    pushes: tuple[Push, ...] = ()
    gap: bool = False
    """It was told that what it asked for is no longer kept."""
    reset: bool = False
    """It was told that what it had heard behind `after` is void: the engine lost it, and other things came instead."""
    until: int | None = None
    """It was told that everything up to this offset was sent; None: the connection broke."""
    end: Literal["told", "missed", "gone"] | None = None
    """`told`: its job had ended, and this was all there is to tell of it. `missed`: it was given up before it was told
    that, with nothing broken any more. `gone`: it was told that there is no such job. None: it does not say."""


class Final(Said, frozen=True, kw_only=True, tag="final"):
    """One job that could be read at the end."""

    job: Job


class Books(Said, frozen=True, kw_only=True, tag="books"):
    """One queue's own books at the end."""

    queue: str
    stats: QueueStats | None = None
    audit: tuple[str, ...] | None = None
    """What its audit found; empty when all is well."""
    lives: tuple[Life, ...] = ()
    """The last epochs of its stream, oldest first."""


class Text(Said, frozen=True, kw_only=True, tag="text"):
    """Anything that was printed, logged, answered or shown; only searched for canaries."""

    source: str
    text: str


Line = Header | Op | Events | Effect | Roster | Circuit | Granted | Fault | Mark | Heard | Final | Books | Text
"""All that may stand in a history."""
