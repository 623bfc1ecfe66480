"""Workers: what they offer and how they are."""

from enum import StrEnum

from msgspec import Struct, field

from hostler.contracts.lease import Pool
from hostler.kernel.units import Instant, Seconds


class WorkerState(StrEnum):
    """Where a worker is in its life; the table of moves is `policy.lifecycle`."""

    STARTING = "starting"
    READY = "ready"
    BUSY = "busy"
    DRAINING = "draining"
    PAUSED = "paused"
    STOPPING = "stopping"
    STOPPED = "stopped"
    FAILED = "failed"
    LOST = "lost"


class Offer(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing that a worker can do: some kinds, on some service, with what that service has.

    A worker fits a lane when at least one of its offers does.
    """

    kinds: tuple[str, ...]
    service: str | None = None
    endpoint: str | None = None
    healthy: bool = True
    """Whether the endpoint answers; an unhealthy offer serves nothing."""
    models: tuple[str, ...] = ()
    """What is available; meaningless unless `models_known`."""
    models_known: bool = True
    labels: dict[str, str] = field(default_factory=dict[str, str])
    versions: dict[str, str] = field(default_factory=dict[str, str])
    isolation: tuple[str, ...] = ("none",)
    pools: dict[str, Pool] = field(default_factory=dict[str, Pool])
    """Amounts it has, by name."""


class Worker(Struct, frozen=True, kw_only=True):
    """One worker as the registry knows it. Ids are opaque."""

    id: str
    state: WorkerState
    machine: str
    pid: int
    version: str
    slots: int
    running: int
    queues: tuple[str, ...]
    offers: tuple[Offer, ...]
    started_at: Instant
    seen_at: Instant
    expires_at: Instant
    loop_age: Seconds
    """Seconds since its work loop last turned, as its heartbeat thread saw it."""
    settings: str = ""
    """Fingerprint of its settings: two that differ show as drift."""
    reason: str | None = None
    jobs: tuple[str, ...] = ()
