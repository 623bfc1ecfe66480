"""Time and chance, as things that are handed in."""

from datetime import datetime
from typing import Protocol


class Clock(Protocol):
    """Two clocks: one for storage, one for differences."""

    def now(self) -> datetime:
        """Return the wall clock, UTC; may step."""
        ...

    def monotonic(self) -> float:
        """Return seconds that only rise; meaningful as differences only."""
        ...


class Dice(Protocol):
    """Chance."""

    def roll(self) -> float:
        """Return a number in [0, 1)."""
        ...
