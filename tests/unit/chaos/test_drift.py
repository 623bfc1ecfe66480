"""What counts as drift in a long run, and what does not."""

import random
from collections.abc import Callable

import pytest

from hostler.chaos.drift import ROOM, Drift, Sample, Unit, drifts

HOURS = 4
SECONDS = HOURS * 3600.0


def run(value: Callable[[float], float | None], unit: Unit = Unit.BYTES, count: int = 120) -> tuple[Drift, ...]:
    samples: list[Sample] = []
    for number in range(count):
        at = SECONDS * number / count
        found = value(at)
        samples.append(Sample(at=at, measures={} if found is None else {"it": found}))
    return drifts(samples, {"it": unit}, seconds=SECONDS)


@pytest.mark.parametrize("unit", list(Unit))
def test_what_grows_all_the_time_is_found_with_its_rate(unit: Unit) -> None:
    rate = ROOM[unit].least  # an hour
    (drift,) = run(lambda at: rate * at / 3600, unit)
    assert drift.grew
    assert drift.per_hour == pytest.approx(rate, rel=0.01)
    assert (drift.early, drift.late) == (pytest.approx(rate * 1.5, rel=0.05), pytest.approx(rate * 3.5, rel=0.05))


@pytest.mark.parametrize("unit", list(Unit))
def test_what_only_goes_up_and_down_is_no_drift(unit: Unit) -> None:
    dice = random.Random(1)
    (drift,) = run(lambda _: ROOM[unit].least * dice.uniform(1, 3), unit)
    assert not drift.grew


def test_warming_up_is_no_drift() -> None:
    (drift,) = run(lambda at: 50e6 + 100e6 * min(1.0, at / (0.25 * SECONDS)))
    assert not drift.grew


def test_what_shrinks_is_no_drift() -> None:
    (drift,) = run(lambda at: 500e6 - at * 1e4)
    assert not drift.grew
    assert drift.per_hour < 0


def test_one_peak_in_the_last_quarter_is_no_drift() -> None:
    (drift,) = run(lambda at: 1e9 if at > 0.99 * SECONDS else 50e6)
    assert not drift.grew


def test_a_measure_that_was_seldom_seen_is_not_judged() -> None:
    assert run(lambda _: 1.0, count=7) == ()
    assert run(lambda at: 1.0 if at < 0.5 * SECONDS else None) == ()
