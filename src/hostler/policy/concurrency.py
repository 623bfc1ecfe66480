"""How many calls an endpoint takes at a time, learned from what it does.

Two rules. `aimd` for services that declare their slots (GPU services: one to four): grow by one when all is well
and used, shrink by a tenth when it has no room. `gradient` for pools of language and text services: compare
how long calls take now with how long they take in general.
"""

import math
from typing import Final

import msgspec
from msgspec import Struct

from hostler.kernel.units import Seconds

BACKOFF: Final = 0.9
FEWEST: Final = 1.0
MOST: Final = 200.0
FIRST: Final = 4.0
"""Where `gradient` begins."""

TOLERANCE: Final = 1.5
"""Calls may take so much longer than usual before the limit falls."""
SMOOTHING: Final = 0.2
LONG: Final = 600
"""Calls that the usual length is averaged over."""
QUEUE: Final = 1.0
"""Calls that may wait inside the service, so that it is never idle."""


class Limit(Struct, frozen=True, kw_only=True):
    """The limit of one endpoint."""

    value: float = FIRST
    usual: Seconds | None = None
    """Usual length of a call, for `gradient`."""
    samples: int = 0

    @property
    def calls(self) -> int:
        """Return the limit as a number of calls, at least 1."""
        return max(1, int(self.value))


def aimd(limit: Limit, *, dropped: bool, outstanding: int, slots: float) -> Limit:
    """Return the limit after one call: `dropped` is no room or a timeout, `outstanding` counted it too.

    Never below 1 nor above the declared `slots`. A limit that nobody reached is no evidence that more would do.
    """
    value = min(limit.value, max(FEWEST, slots))
    if dropped:
        value *= BACKOFF
    elif outstanding * 2 >= value:
        value += 1.0 / value
    return msgspec.structs.replace(limit, value=_within(value, slots))


def gradient(limit: Limit, *, dropped: bool, outstanding: int, took: Seconds, most: float = MOST) -> Limit:
    """Return the limit after one call that took `took` seconds."""
    if dropped:
        return msgspec.structs.replace(limit, value=_within(limit.value * BACKOFF, most))
    took = max(took, 1e-6)
    samples = min(limit.samples + 1, LONG)
    usual = took if limit.usual is None else limit.usual + (took - limit.usual) / samples
    if usual > 2.0 * took:
        usual *= 0.95  # calls became short for good: do not live off a slow past
    value = limit.value
    if outstanding * 2 >= value:
        slope = min(1.0, max(0.5, TOLERANCE * usual / took))
        value = value * (1.0 - SMOOTHING) + (value * slope + QUEUE) * SMOOTHING
    return Limit(value=_within(value, most), usual=usual, samples=samples)


def _within(value: float, most: float) -> float:
    return min(max(FEWEST, value), max(FEWEST, most)) if math.isfinite(value) else FEWEST
