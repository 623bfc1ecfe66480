"""The executable promises of the clock and dice ports."""

from datetime import timedelta

import pytest

from hostler.ports.clock import Clock, Dice

ROLLS = 2000


class ClockConformance:
    """Override `clock`."""

    @pytest.fixture
    def clock(self) -> Clock:
        """Return the clock under test."""
        raise NotImplementedError("override this fixture")

    def test_the_wall_clock_is_in_utc(self, clock: Clock) -> None:
        assert clock.now().utcoffset() == timedelta(0)

    def test_the_monotonic_clock_never_falls(self, clock: Clock) -> None:
        seen = [clock.monotonic() for _ in range(ROLLS)]
        assert seen == sorted(seen)


class DiceConformance:
    """Override `dice`."""

    @pytest.fixture
    def dice(self) -> Dice:
        """Return the dice under test."""
        raise NotImplementedError("override this fixture")

    def test_every_roll_is_at_least_zero_and_less_than_one(self, dice: Dice) -> None:
        assert all(0 <= dice.roll() < 1 for _ in range(ROLLS))

    def test_rolls_differ(self, dice: Dice) -> None:
        assert len({dice.roll() for _ in range(ROLLS)}) > ROLLS // 2
