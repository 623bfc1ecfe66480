"""Workers: what they offer and how they are."""

from enum import StrEnum

from msgspec import Struct

from hostler.contracts.offer import Offer
from hostler.contracts.service import Endpoint
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


class Heard(Struct, frozen=True, kw_only=True):
    """What a worker hears when it announces itself."""

    commands: bool
    """Commands may wait for it."""
    catalogue: str
    """Changes with each queue or kind that is declared; opaque."""


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
    endpoints: tuple[Endpoint, ...] = ()
    """The endpoints that it serves, as it sees them; what they have is in the offers."""
