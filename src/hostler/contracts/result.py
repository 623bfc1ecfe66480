"""Results that are kept for equal jobs, and who runs one that is not there."""

from msgspec import UNSET, Raw, Struct, UnsetType

from hostler.contracts.job import BlobRef
from hostler.kernel.units import Bytes, Seconds


class Kept(Struct, frozen=True, kw_only=True, omit_defaults=True, tag="kept"):
    """A result, inline or by reference; one of the two is set."""

    result: Raw | UnsetType = UNSET
    ref: BlobRef | None = None


class Flight(Struct, frozen=True, kw_only=True, tag="flight"):
    """Nothing is kept: whoever asked runs it, for all equal jobs."""


class Taken(Struct, frozen=True, kw_only=True, tag="taken"):
    """Nothing is kept, and another job runs it."""

    left: Seconds
    """How long its flight holds unless it is renewed."""


class CacheStats(Struct, frozen=True, kw_only=True):
    """How one kind's cache is used, since it was first asked."""

    kind: str
    hits: int = 0
    misses: int = 0
    waits: int = 0
    """Times that a job was sent back to wait for an equal one."""
    kept: int = 0
    """Results put there."""

    @property
    def hit_rate(self) -> float:
        """Return the share of jobs that were answered, of those that were answered or had to run; 0 to 1."""
        asked = self.hits + self.misses
        return self.hits / asked if asked else 0.0


class CacheView(Struct, frozen=True, kw_only=True):
    """The whole cache."""

    entries: int
    bytes: Bytes
    """Of kept results, without the blobs that they refer to."""
    kinds: tuple[CacheStats, ...] = ()
    """By name."""
