"""What a service says about the room that is left to whoever calls it."""

from msgspec import Struct

from hostler.kernel.units import Seconds


class Room(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One allowance: of `limit`, `remaining` are left, and all are back in `reset`. What was not said is None."""

    limit: float | None = None
    remaining: float | None = None
    reset: Seconds | None = None


class RateHint(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one answer said about the limits of its sender."""

    status: int
    """Of the answer, as HTTP numbers it; 429 is a hint by itself."""
    requests: Room | None = None
    tokens: Room | None = None
    retry_after: Seconds | None = None
    """Come back no earlier than this."""
