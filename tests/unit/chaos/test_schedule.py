"""The schedule of faults: the same for the same seed, spaced, of many kinds, and never without a pause."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hostler.chaos.kinds import KINDS, Kind, Part
from hostler.chaos.schedule import Strike, plan, plan_pauses
from hostler.kernel.errors import SettingsError

TARGETS = {
    Part.WORKER: ("worker-1", "worker-2", "worker-3"),
    Part.GATEWAY: ("gateway-1", "gateway-2"),
    Part.ENGINE: ("engine",),
    Part.PRIMARY: ("primary",),
    Part.SENTINEL: ("sentinel-1", "sentinel-2"),
    Part.CLOCK: ("worker-1",),
    Part.MACHINE: ("machine-1",),
    Part.LINK: ("gateway-1", "worker-1"),
    Part.SERVICE: ("studio-a",),
    Part.SERVICE_LINK: ("studio-a",),
}
seeds = st.integers(min_value=0, max_value=2**64)
lengths = st.floats(min_value=5, max_value=1200)


def busy(strikes: tuple[Strike, ...]) -> float:
    """Return for how long at least one fault lasts."""
    total, until = 0.0, 0.0
    for strike in strikes:
        total += max(0.0, strike.end - max(until, strike.begin))
        until = max(until, strike.end)
    return total


@settings(deadline=None, max_examples=40)
@given(seed=seeds, seconds=lengths)
def test_one_seed_gives_one_schedule(seed: int, seconds: float) -> None:
    strikes = plan(seed, seconds=seconds, targets=TARGETS)
    assert strikes == plan(seed, seconds=seconds, targets=TARGETS)
    assert strikes == tuple(sorted(strikes, key=lambda strike: strike.begin))


@settings(deadline=None, max_examples=40)
@given(seed=seeds, seconds=lengths)
def test_every_fault_strikes_something_that_is_there_for_as_long_as_its_kind_may_and_ends_in_time(
    seed: int, seconds: float
) -> None:
    for strike in plan(seed, seconds=seconds, targets=TARGETS):
        row = KINDS[strike.kind]
        assert strike.target in TARGETS[row.part]
        assert row.least - 0.001 <= strike.length <= row.most + 0.001
        assert strike.begin > 0
        assert strike.end < seconds


@settings(deadline=None, max_examples=40)
@given(seed=seeds, seconds=lengths)
def test_a_quarter_of_the_time_is_without_faults(seed: int, seconds: float) -> None:
    assert busy(plan(seed, seconds=seconds, targets=TARGETS)) <= 0.75 * seconds


@settings(deadline=None, max_examples=40)
@given(seed=seeds, seconds=st.floats(min_value=30, max_value=1200))
def test_a_run_of_thirty_seconds_has_three_kinds_of_faults_that_are_spaced(seed: int, seconds: float) -> None:
    strikes = plan(seed, seconds=seconds, targets=TARGETS)
    assert len({strike.kind for strike in strikes}) >= 3
    ends: list[float] = []
    for before, after in pairwise(strikes):
        ends.append(before.end)
        apart = after.begin - max(ends)
        together = KINDS[before.kind].part is not KINDS[after.kind].part and after.end <= before.end + 0.002
        assert apart >= 0.5 or together


@settings(deadline=None, max_examples=40)
@given(seed=seeds)
def test_no_kind_comes_again_before_every_other_had_its_turn(seed: int) -> None:
    kinds = (Kind.WORKER_KILL, Kind.ENGINE_KILL, Kind.LINK_LOST)
    strikes = plan(seed, seconds=40, targets=TARGETS, kinds=kinds)
    assert {strike.kind for strike in strikes[:3]} == set(kinds)


def test_seeds_differ() -> None:
    assert len({plan(seed, seconds=60, targets=TARGETS) for seed in range(50)}) == 50


def test_in_time_every_kind_comes() -> None:
    strikes = plan(7, seconds=1500, targets=TARGETS)
    assert {strike.kind for strike in strikes} == set(Kind)


@pytest.mark.parametrize("seconds", [4.9, 86_401, float("nan")])
def test_a_run_that_is_too_short_or_too_long_is_refused(seconds: float) -> None:
    with pytest.raises(SettingsError):
        plan(1, seconds=seconds, targets=TARGETS)


def test_too_few_kinds_are_refused_by_name() -> None:
    with pytest.raises(SettingsError, match="worker_kill"):
        plan(1, seconds=60, targets={Part.WORKER: ("w",)}, kinds=(Kind.WORKER_KILL, Kind.LINK_LOST))


@settings(deadline=None, max_examples=40)
@given(seed=seeds, seconds=st.floats(min_value=180, max_value=1200))
def test_faults_that_are_to_be_spaced_are_over_long_before_the_next_and_come_alone(seed: int, seconds: float) -> None:
    strikes = plan(seed, seconds=seconds, targets=TARGETS, spacing=60)
    assert len(strikes) == int(seconds // 60)
    assert all(after.begin - before.end > 40 for before, after in pairwise(strikes))


def test_spaced_faults_that_do_not_fit_are_refused() -> None:
    with pytest.raises(SettingsError, match="60 s apart do not fit"):
        plan(1, seconds=120, targets=TARGETS, spacing=60)


@settings(deadline=None, max_examples=40)
@given(seed=seeds, seconds=lengths)
def test_pauses_follow_from_the_seed_one_after_another_and_are_over_before_the_run_is(
    seed: int, seconds: float
) -> None:
    pauses = plan_pauses(seed, seconds=seconds, queues=("a", "b"))
    assert pauses == plan_pauses(seed, seconds=seconds, queues=("a", "b"))
    assert len(pauses) == max(1, round(seconds / 30))
    assert all(before.begin + before.length < after.begin for before, after in pairwise(pauses))
    assert pauses[-1].begin + pauses[-1].length < seconds
    assert all(before.queue != after.queue for before, after in pairwise(pauses))


def test_without_queues_nothing_is_paused() -> None:
    assert plan_pauses(1, seconds=60, queues=()) == ()
