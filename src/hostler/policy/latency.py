"""How long calls take: a peak-sensitive average for comparing endpoints, and quantiles of the last calls."""

import math
from typing import Final

from msgspec import Struct

from hostler.kernel.units import Fraction, Seconds

DECAY: Final[Seconds] = 10.0
"""A sample's weight falls to 1/e in this time."""
KEPT: Final = 64
ENOUGH: Final = 8
"""Calls below which a quantile would be a guess."""


class Latency(Struct, frozen=True, kw_only=True):
    """What is known of one endpoint's calls."""

    average: Seconds | None = None
    at: Seconds = 0.0
    """When the latest sample came, on the clock of the caller."""
    recent: tuple[Seconds, ...] = ()
    """The last calls, oldest first."""


def sampled(latency: Latency, took: Seconds, now: Seconds) -> Latency:
    """Take in one call: a longer one counts at once, shorter ones draw the average down with time."""
    average = latency.average
    if average is None or took >= average:
        average = took
    else:
        old = math.exp(-max(0.0, now - latency.at) / DECAY)
        average = average * old + took * (1.0 - old)
    return Latency(average=average, at=now, recent=(*latency.recent, took)[-KEPT:])


def quantile(latency: Latency, share: Fraction) -> Seconds | None:
    """Return the smallest recent length that `share` of the calls did not exceed; None with too few calls."""
    if len(latency.recent) < ENOUGH:
        return None
    rank = max(1, math.ceil(share * len(latency.recent)))
    return sorted(latency.recent)[rank - 1]
