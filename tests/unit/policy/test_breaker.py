"""The circuit breaker: when it opens, how it closes, and what never counts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostler.contracts.failure import Failure, FailureClass, Stage
from hostler.policy.breaker import (
    DEFAULT,
    Breaker,
    BreakerPolicy,
    Mark,
    Mode,
    Permit,
    admit,
    failures,
    lets_through,
    mark_of,
    mode_at,
    panics,
    record,
    reset,
)

C = FailureClass


def ended(breaker: Breaker, mark: Mark, now: float, *, roll: float = 0.0) -> Breaker:
    """Return the breaker after one call that was let through and ended at once."""
    breaker, permit = admit(breaker, now)
    assert permit is not None
    return record(breaker, permit, mark, now=now, roll=roll)


def failed(times: int, *, at: float = 0.0) -> Breaker:
    breaker = Breaker()
    for _ in range(times):
        breaker = ended(breaker, Mark.BAD, at)
    return breaker


def failure(class_: FailureClass, *, status: int | None = None, **more: object) -> Failure:
    details = {} if status is None else {"status": status}
    stage = more.get("stage")
    after = more.get("retry_after")
    return Failure(
        class_=class_,
        message="words",
        details=details,
        stage=stage if isinstance(stage, Stage) else None,
        retry_after=after if isinstance(after, float) else None,
    )


def test_five_failures_in_a_row_open_it_and_four_do_not() -> None:
    assert failed(4).mode is Mode.CLOSED
    opened = failed(5)
    assert opened.mode is Mode.OPEN
    assert not lets_through(opened, 4.99)


def test_a_probe_half_opens_it_and_three_successes_close_it() -> None:
    breaker = failed(5)
    breaker, probe = admit(breaker, 5.0)
    assert (breaker.mode, probe) == (Mode.HALF_OPEN, Permit(term=2, probe=5.0))
    assert not lets_through(breaker, 5.1), "one probe alone first"
    assert probe is not None
    breaker = record(breaker, probe, Mark.GOOD, now=6.0, roll=0.0)
    breaker, second = admit(breaker, 6.0)
    breaker, third = admit(breaker, 6.1)
    assert second is not None
    assert third is not None
    assert not lets_through(breaker, 6.2), "no more than three in all"
    breaker = record(breaker, second, Mark.GOOD, now=7.0, roll=0.0)
    assert breaker.mode is Mode.HALF_OPEN
    assert record(breaker, third, Mark.GOOD, now=7.0, roll=0.0).mode is Mode.CLOSED


def test_a_failed_probe_opens_it_for_twice_as_long_up_to_a_minute() -> None:
    breaker, pauses, now = failed(5), list[float](), 0.0
    for _ in range(6):
        pauses.append(breaker.until - now)
        now = breaker.until
        breaker = ended(breaker, Mark.BAD, now)
    assert pauses == [5.0, 10.0, 20.0, 40.0, 60.0, 60.0]


def test_pauses_begin_anew_only_after_it_stayed_closed_for_a_window() -> None:
    def closed_again(breaker: Breaker, now: float) -> Breaker:
        for _ in range(3):
            breaker = ended(breaker, Mark.GOOD, now)
        assert breaker.mode is Mode.CLOSED
        return breaker

    soon = late = closed_again(failed(5), 5.0)
    for _ in range(5):
        soon, late = ended(soon, Mark.BAD, 20.0), ended(late, Mark.BAD, 36.0)
    assert (soon.until - 20.0, late.until - 36.0) == (10.0, 5.0)


@pytest.mark.parametrize(
    "harmless",
    [
        failure(C.INVALID_INPUT, status=400),
        failure(C.CAPABILITY_MISMATCH, status=404),
        failure(C.TRANSIENT, status=408),
        failure(C.OVERLOADED, status=429),
        failure(C.OVERLOADED, status=503, retry_after=3.0),
        failure(C.AUTH, status=401),
        failure(C.QUOTA, status=402),
        failure(C.REFUSED),
        failure(C.CANCELLED),
        failure(C.INTERNAL),
        failure(C.OUT_OF_MEMORY),
        failure(C.TIMEOUT, stage=Stage.DEADLINE),
    ],
    ids=lambda one: f"{one.label}-{one.details.get('status', '')}",
)
def test_what_the_endpoint_is_not_to_blame_for_does_not_count(harmless: Failure) -> None:
    breaker = failed(4)
    for _ in range(20):
        breaker = ended(breaker, mark_of(harmless, 1.0), 0.0)
    assert breaker == failed(4)


@pytest.mark.parametrize(
    "harmful",
    [
        failure(C.TRANSIENT),
        failure(C.TRANSIENT, status=502),
        failure(C.TRANSIENT, status=200),
        failure(C.TRANSIENT, status=302),
        failure(C.OVERLOADED, status=503),
        failure(C.LOST),
        failure(C.TIMEOUT, stage=Stage.CONNECT),
        failure(C.TIMEOUT, stage=Stage.IDLE),
    ],
    ids=lambda one: f"{one.label}-{one.details.get('status', '')}",
)
def test_what_the_endpoint_is_to_blame_for_counts(harmful: Failure) -> None:
    assert mark_of(harmful, 1.0) is Mark.BAD


def test_a_success_that_took_too_long_counts_as_a_failure() -> None:
    policy = BreakerPolicy(slow=10.0)
    assert mark_of(None, 10.0, policy) is Mark.GOOD
    assert mark_of(None, 10.1, policy) is Mark.BAD
    assert mark_of(None, 1e6) is Mark.GOOD


def test_half_of_ten_calls_opens_it_and_half_of_nine_does_not() -> None:
    def mixed(calls: int) -> Breaker:
        breaker = Breaker()
        for n in range(calls - 1, -1, -1):
            breaker = ended(breaker, Mark.BAD if n % 2 == 0 else Mark.GOOD, 0.0)
        return breaker

    assert mixed(9).mode is Mode.CLOSED
    assert mixed(10).mode is Mode.OPEN


def test_failures_are_forgotten_after_the_window() -> None:
    breaker = Breaker()
    for n in range(8):
        breaker = ended(breaker, Mark.BAD if n % 2 else Mark.GOOD, 0.0)
    assert failures(breaker, 29.9) == (8, 4)
    assert failures(breaker, 30.0) == (0, 0)


def test_a_call_that_began_before_it_opened_does_not_open_it_again() -> None:
    breaker, early = admit(Breaker(), 0.0)
    assert early is not None
    breaker = failed(5)
    breaker, _ = admit(breaker, 5.0)
    assert record(breaker, early, Mark.BAD, now=6.0, roll=0.0) == breaker


def test_a_probe_that_never_ends_gives_its_place_up() -> None:
    breaker, _ = admit(failed(5), 5.0)
    assert not lets_through(breaker, 64.9)
    assert lets_through(breaker, 65.0)


def test_a_neutral_probe_gives_its_place_back_and_proves_nothing() -> None:
    breaker = ended(failed(5), Mark.NEUTRAL, 5.0)
    assert (breaker.mode, breaker.passed) == (Mode.HALF_OPEN, 0)
    assert lets_through(breaker, 5.0)


def test_it_can_be_reset_by_hand_and_old_calls_do_not_count_then() -> None:
    breaker, old = admit(failed(4), 0.0)
    fresh = reset(breaker, 1.0)
    assert old is not None
    assert fresh.mode is Mode.CLOSED
    assert record(fresh, old, Mark.BAD, now=1.0, roll=0.0) == fresh


@given(out=st.integers(0, 20), well=st.integers(0, 20))
def test_never_more_than_half_of_a_pool_is_kept_out(out: int, well: int) -> None:
    pool = out + well
    kept_out = 0 if panics(out, pool) else out
    assert kept_out <= pool / 2 or pool == 1


STEPS = st.lists(
    st.tuples(st.floats(0.0, 20.0), st.sampled_from(Mark), st.integers(0, 3), st.floats(0.0, 0.999)), max_size=60
)


@given(STEPS)
def test_whatever_happens_its_bounds_hold(steps: list[tuple[float, Mark, int, float]]) -> None:
    breaker, now, held = Breaker(), 0.0, list[Permit]()
    for wait, mark, which, roll in steps:
        now += wait
        before = breaker
        breaker, permit = admit(breaker, now)
        assert (permit is None) == (not lets_through(before, now))
        if permit is not None:
            held.append(permit)
        assert breaker.term >= before.term
        if which < len(held):
            before = breaker
            breaker = record(breaker, held.pop(which), mark, now=now, roll=roll)
            if mark is Mark.NEUTRAL:
                assert (breaker.mode, breaker.streak, breaker.window) == (before.mode, before.streak, before.window)
            if breaker.mode is Mode.OPEN and before.mode is not Mode.OPEN:
                assert 0.8 * DEFAULT.first <= breaker.until - now <= DEFAULT.most
                assert mark is Mark.BAD
        match breaker.mode:
            case Mode.CLOSED:
                assert breaker.streak < DEFAULT.streak
            case Mode.HALF_OPEN:
                assert len(breaker.probing) <= (1 if breaker.passed == 0 else DEFAULT.probes - breaker.passed)
            case Mode.OPEN:
                assert mode_at(breaker, breaker.until) is Mode.HALF_OPEN
        assert len(breaker.window) <= DEFAULT.buckets


@given(st.lists(st.tuples(st.floats(0.0, 5.0), st.booleans()), max_size=80))
def test_the_window_counts_what_ended_in_it(calls: list[tuple[float, bool]]) -> None:
    policy = BreakerPolicy(streak=10_000, volume=10_000)
    breaker, now, ends = Breaker(), 0.0, list[tuple[int, bool]]()
    for wait, bad in calls:
        now += wait
        breaker, permit = admit(breaker, now, policy)
        assert permit is not None
        breaker = record(breaker, permit, Mark.BAD if bad else Mark.GOOD, now=now, roll=0.0, policy=policy)
        ends.append((int(now / 3.0), bad))
    kept = [bad for number, bad in ends if number > int(now / 3.0) - 10]
    assert failures(breaker, now, policy) == (len(kept), sum(kept))
