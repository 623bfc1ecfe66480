"""Why a job is where it is."""

from msgspec import Struct

from hostler.contracts.job import JobState
from hostler.kernel.units import Json, Seconds


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
