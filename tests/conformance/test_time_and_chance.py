"""The real clock and dice, and those of tests, keep the same promises."""

import pytest

from hostler.ports.clock import Clock, Dice
from hostler.testing.clock import FakeClock, SeededDice
from hostler.testing.time_and_chance import ClockConformance, DiceConformance
from hostler.worker.system import SystemClock, SystemDice


class TestSystemClock(ClockConformance):
    @pytest.fixture
    def clock(self) -> Clock:
        return SystemClock()


class TestFakeClock(ClockConformance):
    @pytest.fixture
    def clock(self) -> Clock:
        return FakeClock()


class TestSystemDice(DiceConformance):
    @pytest.fixture
    def dice(self) -> Dice:
        return SystemDice()


class TestSeededDice(DiceConformance):
    @pytest.fixture
    def dice(self) -> Dice:
        return SeededDice(7)
