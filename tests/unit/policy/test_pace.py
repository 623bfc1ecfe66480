"""How much at a time, how often again, in how much time, and for which model: the smaller rules of dispatch."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostler.policy.budget import (
    FLOOR,
    SHARE,
    SPAN,
    Budget,
    called,
    given_back,
    hedge_after,
    left,
    put_off,
    repeat,
)
from hostler.policy.concurrency import Limit, aimd, gradient
from hostler.policy.deadline import MARGIN, headers, pass_on, told_by, worth_it
from hostler.policy.latency import DECAY, Latency, quantile, sampled


def measured(*took: float) -> Latency:
    latency = Latency()
    for n, one in enumerate(took):
        latency = sampled(latency, one, float(n))
    return latency


# how long


def test_a_longer_call_counts_at_once_and_a_shorter_one_slowly() -> None:
    peak = sampled(sampled(Latency(), 1.0, 0.0), 9.0, 0.0)
    assert peak.average == 9.0
    assert sampled(peak, 1.0, 0.0).average == 9.0
    later = sampled(peak, 1.0, DECAY).average
    assert later == pytest.approx(1.0 + 8.0 / 2.718281828)


@given(st.lists(st.tuples(st.floats(0, 1000), st.floats(0, 100)), min_size=1, max_size=100))
def test_the_average_lies_between_the_shortest_and_the_longest_call(calls: list[tuple[float, float]]) -> None:
    latency, now = Latency(), 0.0
    for took, wait in calls:
        now += wait
        latency = sampled(latency, took, now)
    shortest, longest = min(took for took, _ in calls), max(took for took, _ in calls)
    assert latency.average is not None
    assert shortest * (1 - 1e-9) <= latency.average <= longest * (1 + 1e-9)


def test_quantiles_are_not_guessed_from_a_few_calls() -> None:
    assert quantile(measured(*range(7)), 0.5) is None
    assert quantile(measured(*range(1, 21)), 0.5) == 10
    assert quantile(measured(*range(1, 21)), 0.95) == 19


# how often again


def test_without_calls_only_the_floor_may_be_repeated_and_a_fifth_of_the_calls_with_them() -> None:
    def repeats(budget: Budget) -> int:
        number = 0
        while (more := repeat(budget, 5.0)) is not None:
            budget, number = more, number + 1
        return number

    busy = Budget()
    for _ in range(1000):
        busy = called(busy, 5.0)
    assert repeats(Budget()) == FLOOR * SPAN
    assert repeats(busy) == FLOOR * SPAN + SHARE * 1000


@given(st.lists(st.tuples(st.floats(0, 3), st.booleans()), max_size=200))
def test_repeats_never_exceed_the_budget_of_the_span(steps: list[tuple[float, bool]]) -> None:
    budget, now, log = Budget(), 0.0, list[tuple[int, bool]]()
    for wait, again in steps:
        now += wait
        if not again:
            budget = called(budget, now)
            log.append((int(now), False))
        elif (taken := repeat(budget, now)) is not None:
            budget = taken
            log.append((int(now), True))
        recent = [again for second, again in log if second > int(now) - SPAN]
        assert sum(recent) <= FLOOR * SPAN + SHARE * (len(recent) - sum(recent)) + 1e-9 or not again
        assert len(budget.seconds) <= SPAN


def test_a_repeat_that_is_given_back_may_be_taken_again_and_none_comes_from_nothing() -> None:
    spent = Budget()
    while (more := repeat(spent, 0.0)) is not None:
        spent = more
    assert left(given_back(spent, 3.0), 3.0) == left(spent, 3.0) + 1.0
    assert given_back(Budget(), 3.0) == Budget()
    assert left(given_back(spent, 100.0), 100.0) == left(Budget(), 100.0)


@given(st.floats(0, 0.999))
def test_who_found_nothing_left_waits_half_a_span_at_least_and_less_than_a_whole_one(roll: float) -> None:
    assert SPAN / 2 <= put_off(roll) < SPAN


def test_a_call_is_hedged_after_the_95th_percentile_while_a_repeat_is_left() -> None:
    latency = measured(*range(1, 21))
    assert hedge_after(latency, budget=Budget(), now=0.0) == 19
    assert hedge_after(measured(1), budget=Budget(), now=0.0) is None
    spent = Budget()
    while (more := repeat(spent, 0.0)) is not None:
        spent = more
    assert left(spent, 0.0) < 1.0
    assert hedge_after(latency, budget=spent, now=0.0) is None


# how much at a time


def test_a_service_without_room_gets_a_tenth_less_and_never_less_than_one() -> None:
    limit = aimd(Limit(value=4.0), dropped=True, outstanding=4, slots=4)
    assert limit.value == pytest.approx(3.6)
    for _ in range(100):
        limit = aimd(limit, dropped=True, outstanding=1, slots=4)
    assert limit.calls == 1


def test_a_service_that_keeps_up_gets_its_declared_slots_back_and_no_more() -> None:
    limit = Limit(value=1.0)
    for _ in range(100):
        limit = aimd(limit, dropped=False, outstanding=limit.calls, slots=4)
    assert limit.value == 4.0


def test_a_limit_that_nobody_reaches_does_not_grow() -> None:
    assert aimd(Limit(value=8.0), dropped=False, outstanding=1, slots=64).value == 8.0
    assert gradient(Limit(value=8.0), dropped=False, outstanding=1, took=1.0).value == 8.0


def test_calls_that_become_slow_lower_the_limit_and_quick_ones_raise_it() -> None:
    limit = Limit()
    for _ in range(200):
        limit = gradient(limit, dropped=False, outstanding=limit.calls, took=1.0)
    raised = limit.value
    for _ in range(20):
        limit = gradient(limit, dropped=False, outstanding=limit.calls, took=5.0)
    assert raised > 30
    assert limit.value < raised / 3


@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 300), st.floats(0, 1e6)), max_size=100),
    st.floats(1, 200),
)
def test_limits_stay_within_their_bounds(steps: list[tuple[bool, int, float]], most: float) -> None:
    one, other = Limit(value=min(4.0, most)), Limit(value=min(4.0, most))
    for dropped, outstanding, took in steps:
        one = aimd(one, dropped=dropped, outstanding=outstanding, slots=most)
        other = gradient(other, dropped=dropped, outstanding=outstanding, took=took, most=most)
        assert 1.0 <= one.value <= most
        assert 1.0 <= other.value <= most


# in how much time


def test_what_is_passed_on_is_what_is_left_less_a_margin_and_nothing_once_that_is_over() -> None:
    assert pass_on(10.0, margin=0.5) == 9.5
    assert pass_on(None) is None
    assert pass_on(0.5, margin=0.5) is None
    assert pass_on(-3.0) is None
    assert headers(None) == headers(-1.0) == headers(0.0) == {}
    assert headers(9.55) == {"X-Request-Timeout-Ms": "9500"}


@given(st.floats(-10, 1e6))
def test_the_next_one_reads_what_it_was_told_and_never_more_than_is_left(seconds: float) -> None:
    told = told_by(headers(seconds).get("X-Request-Timeout-Ms"))
    assert (told is None) == (seconds <= MARGIN)
    assert told is None or seconds - MARGIN - 0.002 <= told <= max(seconds - MARGIN, 0.001)


@pytest.mark.parametrize("text", ["", "soon", "-5", "1.5", "9" * 30, "\u0661"])
def test_a_header_that_is_no_number_of_milliseconds_says_nothing(text: str) -> None:
    assert told_by(text) is None


def test_work_that_usually_takes_longer_than_what_is_left_is_not_begun() -> None:
    assert worth_it(None, 5.0)
    assert worth_it(5.0, 5.0)
    assert not worth_it(4.9, 5.0)
    assert worth_it(0.1, None)
    assert not worth_it(0.0, None)
