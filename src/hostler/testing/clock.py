"""A clock and dice that tests hold in their hands."""

import random
from datetime import UTC, datetime, timedelta


class FakeClock:
    """Time that moves only when told to."""

    def __init__(self, start: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self._start = start
        self._elapsed = 0.0

    def now(self) -> datetime:
        """Return the wall clock."""
        return self._start + timedelta(seconds=self._elapsed)

    def monotonic(self) -> float:
        """Return seconds since the clock was made."""
        return self._elapsed

    def advance(self, seconds: float) -> None:
        """Move both clocks forward."""
        self._elapsed += seconds


class SeededDice:
    """Chance that repeats itself for one seed."""

    def __init__(self, seed: int = 0) -> None:
        self._random = random.Random(seed)  # noqa: S311 - jitter, not a secret

    def roll(self) -> float:
        """Return a number in [0, 1)."""
        return self._random.random()
