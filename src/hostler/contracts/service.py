"""AI services and their endpoints, and what a connector says about one."""

from enum import StrEnum
from typing import Annotated

from msgspec import Meta, Raw, Struct

from hostler.contracts.failure import Failure
from hostler.contracts.job import Progress
from hostler.contracts.offer import Pool
from hostler.contracts.preview import Preview
from hostler.contracts.timeouts import Timeouts
from hostler.kernel.units import Bytes, Instant, Label, Name, Seconds

EndpointId = Annotated[
    str, Meta(pattern=r"^[^\s/?#\x00-\x1f]{1,200}\Z", description="an id without spaces and slashes")
]
"""Name of one endpoint; opaque, nothing takes it apart."""

ServiceUrl = Annotated[
    str,
    Meta(
        pattern=r"^(https?|wss?|grpcs?)://[^/?#\s@]+(/[^?#\s]*)?\Z",
        description="a URL that begins with http, https, ws, wss, grpc or grpcs, without user, query and fragment",
    ),
]


class EndpointState(StrEnum):
    """How one reachable instance of a service is."""

    UNKNOWN = "unknown"
    LOADING = "loading"
    READY = "ready"
    DEGRADED = "degraded"
    UNHEALTHY = "unhealthy"
    DRAINING = "draining"
    GONE = "gone"


class Probe(Struct, frozen=True, kw_only=True):
    """What a connector found when it looked at its endpoint."""

    state: EndpointState
    message: str = ""
    version: str | None = None
    slots: int | None = None
    """Work that it can do at the same time; None when it does not say."""
    busy: int | None = None
    loaded: tuple[str, ...] | None = None
    """Models in its memory, each by every name that it has; None when it does not say."""
    single: bool = False
    """Whether its memory takes one model at a time, so that a load puts the present one out."""


class ServiceCapabilities(Struct, frozen=True, kw_only=True):
    """What an endpoint can do; asked for at start and refreshed."""

    kinds: tuple[str, ...]
    models: tuple[str, ...] = ()
    models_known: bool = False
    loaded: tuple[str, ...] | None = None
    """Models in its memory now; None when it does not say. A later probe knows better."""
    labels: dict[str, str] = {}
    versions: dict[str, str] = {}
    pools: dict[str, Pool] = {}
    model_sizes: dict[str, Bytes] = {}
    """How large each model is, where it says."""


class ServiceCall(Struct, frozen=True, kw_only=True):
    """One attempt as a connector sees it: the payload is opened here and nowhere else."""

    job_id: str
    fence: int
    kind: str
    payload: Raw
    timeouts: Timeouts
    """Complete: the job's own over the kind's."""
    deadline: Instant | None = None
    history: tuple[Failure, ...] = ()
    tenant: str = ""
    models: tuple[str, ...] = ()
    """Models that the job needs, as its needs name them."""
    beside: bool = False
    """Whether another endpoint was asked first, and may answer yet: limits count both."""


class RemoteRef(Struct, frozen=True, kw_only=True):
    """The service's own name for work that it accepted."""

    id: str
    job_id: str
    fence: int
    heritable: bool = True
    """Whether another process can go on with the work; False when only its own connector knows of it."""


class RemoteState(StrEnum):
    """What a service says about its own job."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    LOST = "lost"
    """The service answers, and knows nothing of it: it never ran, or was forgotten."""
    UNKNOWN = "unknown"
    """The service cannot say."""


class Finished(Struct, frozen=True, kw_only=True, tag="finished"):
    """The service's own result, sealed as JSON."""

    result: Raw
    kept: bool = False
    """Whether the service was not asked: it allowed that an earlier answer is given again."""


class Failed(Struct, frozen=True, kw_only=True, tag="failed"):
    """The service, or the way to it, failed."""

    failure: Failure


Step = Progress | Preview | Finished | Failed
"""What `observe` yields: any number of `Progress` and `Preview`, then exactly one `Finished` or `Failed`."""


class BreakerMode(StrEnum):
    """How an endpoint's breaker is; each worker has its own."""

    CLOSED = "closed"
    OPEN = "open"
    """It failed too often: no call goes there for a while."""
    HALF_OPEN = "half_open"
    """The pause is over: a few calls try it out."""


class Source(StrEnum):
    """How an endpoint became known."""

    ANNOUNCED = "announced"
    """It, or somebody beside it, registered it, with a lease."""
    STATIC = "static"
    """The configuration names its address."""
    CONVENTION = "convention"
    """No address is configured: base port of its service + number of the instance, on this machine."""
    MAPPING = "mapping"
    """A `service-mapping.json` of the prior broker names it."""
    DNS = "dns"
    """Address or service records of a name."""


class Cooling(StrEnum):
    """Why an endpoint is left alone for a time."""

    ASKED = "asked"
    """The service asked for it (429, 503, `Retry-After`)."""
    QUOTA = "quota"
    """The account has nothing left."""
    MISMATCH = "mismatch"
    """Jobs in a row that it said it can run failed, since it lacks what they need."""
    LIMIT = "limit"
    """A limit that all workers share is used up; the service did not say anything."""


class Traffic(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one worker measured at one endpoint."""

    in_flight: int = 0
    limit: int | None = None
    """Calls that it gets at a time, as learned."""
    calls: int = 0
    """Calls that ended within the breaker's window, half a minute."""
    failed: int = 0
    """Those of them that speak against the endpoint."""
    p50_s: Seconds | None = None
    p95_s: Seconds | None = None
    """Of the last successful calls; None while they are too few."""
    breaker: BreakerMode = BreakerMode.CLOSED
    breaker_s: Seconds | None = None
    """How long an open breaker stays open."""
    cooled_s: Seconds | None = None
    """How long it is left alone."""
    cooled_by: Cooling | None = None
    """Why; None when it is not."""
    cooled_why: str | None = None
    """The words of the failure that began it."""
    forced: bool = False
    """Whether its breaker is ignored, since breakers would keep more than half of its service's endpoints out."""
    weight: float = 1.0
    """How dear a call is beside the worker's other endpoints of that service."""
    last_error: str | None = None


class Enrolment(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What is announced of one endpoint: where it is and who drives it."""

    id: EndpointId
    """Opaque; whoever announces the same id again renews it."""
    connector: Name
    """Name of the connector that drives it, as `simulation-http`."""
    url: ServiceUrl
    """Where workers reach it; without a credential, which each worker has of its own."""
    service: Name | None = None
    """Name of the service; the connector's own unless set."""
    version: str | None = None
    labels: Annotated[dict[Label, Label], Meta(max_length=16)] = {}
    """Offered beside the worker's own."""
    slots: Annotated[int, Meta(ge=1, le=10_000)] | None = None
    """Work that it takes at the same time; what it says itself unless set."""


class Enrolled(Struct, frozen=True, kw_only=True):
    """An announced endpoint whose lease holds."""

    enrolment: Enrolment
    since: Instant
    seen_at: Instant
    expires_at: Instant


class EndpointMark(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What operators said about one endpoint."""

    paused: str | None = None
    """Why it gets nothing; None: it does."""
    resets: int = 0
    """How often its breakers were reset."""


class Waiting(Struct, frozen=True, kw_only=True, array_like=True):
    """Jobs that wait for one model, and could run at an endpoint."""

    jobs: int
    oldest: Seconds
    """How long the first of them waits."""


class Shared(Struct, frozen=True, kw_only=True):
    """What workers told of one endpoint that holds one model at a time, so that they do not change it by turns."""

    keeper: str
    """The worker that decides which model comes next."""
    coming: str | None
    """The model that it is to load; None to stay."""
    loads: int
    """Loads that were told so far."""
    models: tuple[str, ...]
    """The models of the latest."""
    by: str
    """The worker that began it."""
    age: Seconds
    """How long ago that was."""
    idle: Seconds | None
    """Since when no other worker has a call there; None when none had one of late."""
    waiting: tuple[dict[str, Waiting], ...]
    """What waits for models, as each of the others sees it."""


class Census(Struct, frozen=True, kw_only=True):
    """All that the registry knows of endpoints at one moment."""

    version: str
    enrolled: tuple[Enrolled, ...] = ()
    marks: dict[str, EndpointMark] = {}


class Sight(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One worker's view of one endpoint."""

    worker: str
    state: EndpointState
    seen_at: Instant
    message: str = ""
    traffic: Traffic = Traffic()


class Endpoint(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One reachable instance of a service."""

    id: str
    service: str
    connector: str
    url: str
    protocol: str
    state: EndpointState
    message: str
    seen_at: Instant
    version: str | None = None
    capabilities: ServiceCapabilities | None = None
    source: Source = Source.STATIC
    health_check: str = ""
    """How it is probed."""
    paused: str | None = None
    """Why an operator stopped it; None: it is not."""
    expires_at: Instant | None = None
    """End of its lease, where it was announced."""
    slots: float | None = None
    """Work that it takes at the same time, as it says."""
    loaded: tuple[str, ...] | None = None
    """Models in its memory; None when it does not say."""
    may_load: tuple[str, ...] | None = None
    """Models that it may load now in place of those; None for any."""
    traffic: Traffic = Traffic()
    """Of all workers together."""
    workers: tuple[Sight, ...] = ()
    """How each worker that serves it sees it."""
