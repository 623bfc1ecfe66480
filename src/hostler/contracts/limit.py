"""Limits that all processes share: how many calls or units in a time, how many calls at a time."""

from enum import StrEnum
from typing import Annotated

from msgspec import Meta, Struct

from hostler.kernel.units import Instant, Seconds

Count = Annotated[int, Meta(ge=1, le=1_000_000_000_000)]
LimitName = Annotated[str, Meta(pattern=r"^[^\s{}]{1,200}\Z", max_length=200)]
"""Who uses the same name shares the limit: an endpoint's id, an account, a resource."""


class LimitKind(StrEnum):
    """What is counted."""

    RATE = "rate"
    """Calls in a time."""
    AMOUNT = "amount"
    """Units in a time (tokens, cents) of which a call's true use is known only after it: reserved, then settled."""
    IN_FLIGHT = "in_flight"
    """Calls at a time, each by a lease."""


class Line(StrEnum):
    """What a call that may not go yet has in the line at the limit that lets it wait."""

    NONE = ""
    """Nothing: whoever asks first, then, is granted."""
    OWN = "own"
    """The moment it was told is its own: so many are told of each as may go then."""
    FULL = "full"
    """No moment: so many wait already that they have all that there are."""


class Limit(Struct, frozen=True, kw_only=True):
    """One limit: no window of `per` seconds, wherever it begins, has more than `most`."""

    name: LimitName
    kind: LimitKind
    most: Count
    per: Seconds | None = None
    """Length of the window; None for what is in flight."""
    unit: str | None = None
    """What an amount counts; None for calls."""
    burst: Count = 1
    """So many of `most` may go at once; the others come evenly spaced, `most - burst + 1` in each window."""


class Want(Struct, frozen=True, kw_only=True):
    """What a call needs of one limit."""

    limit: Limit
    units: Annotated[int, Meta(ge=0)] = 1
    """Estimated use of an amount; 1 for a call."""


class Grant(Struct, frozen=True, kw_only=True, tag="grant"):
    """The call may go."""

    at: Instant
    """When it was granted, by the engine's clock: what windows are measured by."""


class Wait(Struct, frozen=True, kw_only=True, tag="wait"):
    """The call may not go yet, and nothing was taken."""

    limit: LimitName
    """The limit that lets it wait longest."""
    after: Seconds
    """When to ask again. Not before then can it be granted; for calls in flight, one may end any time."""
    line: Line = Line.NONE


class LimitView(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One limit as it is shown."""

    name: LimitName
    text: str = ""
    """How it is written, as `60/min burst 5`; empty for an endpoint's hold alone."""
    most: float | None = None
    """Calls or units in `per` seconds, or calls at a time."""
    left: float | None = None
    """So many of them could go now, if nothing held them."""
    per: Seconds | None = None
    unit: str | None = None
    """What is counted; None for calls."""
    whole_s: Seconds = 0.0
    """How long it takes, without calls, until all that may go at once is left again."""
    held_s: Seconds = 0.0
    """How long nobody may call, since the service said so."""
    leases: int = 0
    """Calls that are under way and have to be settled."""


class Lift(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of `POST /v1/limits/lift`."""

    name: LimitName
    reason: Annotated[str, Meta(max_length=2_000)] = ""
    """Why; kept with the event."""


class Lifted(Struct, frozen=True, kw_only=True):
    """Answer of `POST /v1/limits/lift`."""

    lifted: bool
    """False: nothing held it."""


class LimitLook(Struct, frozen=True, kw_only=True):
    """How a limit is now."""

    name: LimitName
    used_s: Seconds = 0.0
    """How long it takes until the whole burst may go at once again."""
    held_s: Seconds = 0.0
    """How long nobody may call, since the service said so."""
    leases: int = 0
    """Calls that are under way and have to be settled."""
