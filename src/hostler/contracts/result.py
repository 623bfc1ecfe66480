"""Results that are kept for equal jobs, and who runs one that is not there."""

from typing import Annotated

from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from hostler.contracts.job import BlobRef
from hostler.kernel.units import Bytes, Fraction, Seconds


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

    hit_rate: Fraction = 0.0
    """Share of those that were answered, of all that were answered or had to run."""


class CacheView(Struct, frozen=True, kw_only=True):
    """The whole cache."""

    entries: int
    bytes: Bytes
    """Of kept results, without the blobs that they refer to."""
    kinds: tuple[CacheStats, ...] = ()
    """By name."""


class CacheClear(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of `POST /v1/cache/clear`."""

    prefix: Annotated[str, Meta(max_length=256)]
    """What the keys begin with that are dropped: `image.generate:` is a whole kind, the empty text is everything."""


class CacheCleared(Struct, frozen=True, kw_only=True):
    """What a clear did."""

    dropped: int
