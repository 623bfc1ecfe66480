"""Why a job is where it is."""

from enum import StrEnum

from msgspec import Struct

from hostler.contracts.job import JobState
from hostler.kernel.units import Instant, Json, Seconds


class Holding(Struct, frozen=True, kw_only=True):
    """What one worker has of a need."""

    worker: str
    has: Json


class Lacking(Struct, frozen=True, kw_only=True):
    """One need, and who cannot meet it."""

    key: str
    """`kind`, `service`, `models`, `labels.tier`, `amounts.gpu_memory`, `avoid.labels.x`, ..."""
    wanted: Json
    lacking: tuple[Holding, ...]


class Obstacle(StrEnum):
    """What keeps an endpoint, or a worker's own handlers, from taking a job now."""

    CAPABILITY = "capability"
    """It lacks what the job needs, or has what it avoids."""
    ISOLATION = "isolation"
    """It does not isolate jobs as this one needs."""
    WORKER = "worker"
    """The worker takes no work now: it starts, is paused, drains or stops."""
    HEALTH = "health"
    """It does not answer well, or was never asked."""
    DRAINING = "draining"
    """It leaves: what runs there ends, nothing new begins."""
    PAUSE = "pause"
    """An operator stopped it."""
    BREAKER = "breaker"
    """It failed too often, so it is left alone for a while, or tried out by a few calls."""
    COOLING = "cooling"
    """It is left alone for a time: it asked for that (429, `Retry-After`), or lacked what it says it has."""
    QUOTA = "quota"
    """The account has nothing left, or a limit that all workers share is used up."""
    MODEL = "model"
    """It holds one model at a time, and another one now: that stays while jobs ask for it."""
    FULL = "full"
    """It has as many calls as it takes now."""


class Hindrance(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing that keeps one endpoint from taking a job now."""

    what: Obstacle
    words: str
    """A sentence for people."""
    until: Instant | None = None
    """When it ends by itself, where that is known."""


class Candidate(Struct, frozen=True, kw_only=True):
    """An endpoint that has what the job needs, as one worker sees it."""

    worker: str
    endpoint: str | None
    """None: the worker's own handlers."""
    hindrances: tuple[Hindrance, ...]
    """The most important first; empty when nothing keeps the job from it."""
    age_s: Seconds
    """How old these facts are: the time since the worker's last report."""


class Explanation(Struct, frozen=True, kw_only=True):
    """Why a job waits, or is where it is."""

    state: JobState
    unworkable: bool
    needs: tuple[Lacking, ...]
    position: int | None
    """Place in its tenant's line, from 1; None unless ready."""
    ahead: int | None
    """Jobs of its tenant that go before it."""
    estimate_s: Seconds | None
    """From measured rates; None when there is not enough data (`reasons` then says n of m)."""
    reasons: tuple[str, ...]
    """Sentences, the most important first."""
    endpoints: int = 0
    """How many endpoints the workers of its queue serve, handlers of its kind counted as one per worker."""
    kept_out: dict[Obstacle, int] = {}
    """How many of these cannot take it now, by what keeps them: one that several things keep is counted with each."""
    candidates: tuple[Candidate, ...] = ()
    """Those that have what it needs, by endpoint and worker; the first 200."""
