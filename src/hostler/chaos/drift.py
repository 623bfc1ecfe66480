"""Whether something grows in a long run: the second quarter of its samples beside the last."""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from statistics import median
from types import MappingProxyType
from typing import Final

from msgspec import Struct

from hostler.kernel.units import Seconds

SAMPLES_LEAST: Final = 8
"""Fewer say nothing about a drift."""
HOUR: Final[Seconds] = 3600.0


class Unit(StrEnum):
    """What a measure counts."""

    BYTES = "bytes"
    KEYS = "keys"
    FILES = "files"
    SECONDS = "seconds"


class Room(Struct, frozen=True, kw_only=True):
    """How much a measure may grow from the second quarter to the last: the larger of both."""

    share: float
    """Of what it was."""
    least: float
    """In its unit."""


ROOM: Final[Mapping[Unit, Room]] = MappingProxyType(
    {
        Unit.BYTES: Room(share=0.15, least=12e6),
        Unit.KEYS: Room(share=0.25, least=200),
        Unit.FILES: Room(share=0.5, least=32),
        Unit.SECONDS: Room(share=1.0, least=0.25),
    }
)
"""Caches fill, requests come in bursts and pools open connections for them; what leaks passes any of these in time."""


class Sample(Struct, frozen=True, kw_only=True):
    """What was measured at one moment."""

    at: Seconds
    """Since the load began."""
    measures: dict[str, float]
    """By name; what could not be measured just then is not in it."""


class Drift(Struct, frozen=True, kw_only=True):
    """How one measure went."""

    name: str
    unit: Unit
    samples: int
    early: float
    """Median of the second quarter; the first is for warming up."""
    late: float
    """Median of the last quarter."""
    per_hour: float
    """Growth from the middle of the one to the middle of the other, as if it went on."""
    allowed: float
    """Growth that says nothing."""
    grew: bool


def drifts(samples: Sequence[Sample], units: Mapping[str, Unit], *, seconds: Seconds) -> tuple[Drift, ...]:
    """Judge every measure that was seen often enough, by name; `seconds` is how long the load lasted."""
    found = [_drift(name, unit, samples, seconds) for name, unit in sorted(units.items())]
    return tuple(drift for drift in found if drift is not None)


def _drift(name: str, unit: Unit, samples: Sequence[Sample], seconds: Seconds) -> Drift | None:
    points = [(one.at, one.measures[name]) for one in samples if name in one.measures]
    early = [value for at, value in points if 0.25 * seconds <= at < 0.5 * seconds]
    late = [value for at, value in points if 0.75 * seconds <= at]
    if len(points) < SAMPLES_LEAST or not early or not late:
        return None
    before, after = median(early), median(late)
    allowed = max(ROOM[unit].share * before, ROOM[unit].least)
    return Drift(
        name=name,
        unit=unit,
        samples=len(points),
        early=before,
        late=after,
        per_hour=(after - before) / (seconds / 2) * HOUR,
        allowed=allowed,
        grew=after - before > allowed,
    )
