"""AI services and their endpoints, and what a connector says about one."""

from enum import StrEnum

from msgspec import Raw, Struct

from hostler.contracts.failure import Failure
from hostler.contracts.job import Progress
from hostler.contracts.offer import Pool
from hostler.contracts.timeouts import Timeouts
from hostler.kernel.units import Bytes, Instant


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


class Failed(Struct, frozen=True, kw_only=True, tag="failed"):
    """The service, or the way to it, failed."""

    failure: Failure


Step = Progress | Finished | Failed
"""What `observe` yields: any number of `Progress`, then exactly one `Finished` or `Failed`."""


class Endpoint(Struct, frozen=True, kw_only=True):
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
