"""What a process learns of an endpoint from its calls, on a clock in our hands."""

import msgspec
import pytest

from hostler.contracts.failure import Failure, FailureClass
from hostler.contracts.service import BreakerMode, Cooling
from hostler.dispatch.gauge import COOL, COOLEST, DEAREST, RAMP, RAMP_LEAST, STALE, Gauge
from hostler.testing.clock import FakeClock, SeededDice

BROKEN = Failure(class_=FailureClass.TRANSIENT, message="it broke")
WRONG = Failure(class_=FailureClass.INVALID_INPUT, message="not like this")
FULL = Failure(class_=FailureClass.OVERLOADED, message="no room", retry_after=7.0)
UNSENT = Failure(class_=FailureClass.OVERLOADED, message="our limit", retry_after=3.0, details={"unsent": True})


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def gauge(clock: FakeClock) -> Gauge:
    found = Gauge(clock=clock, dice=SeededDice(), first=8)
    found.declare(8.0)
    return found


def call(gauge: Gauge, clock: FakeClock, failure: Failure | None = None, *, took: float = 0.1) -> None:
    ticket = gauge.begin("draw")
    clock.advance(took)
    gauge.end(ticket, failure)


@pytest.mark.row("002:53")
def test_five_failures_in_a_row_open_the_breaker_and_a_few_good_calls_close_it(clock: FakeClock, gauge: Gauge) -> None:
    for _ in range(5):
        assert not gauge.out
        call(gauge, clock, BROKEN)
    assert (gauge.out, gauge.spare(), gauge.traffic().breaker) == (True, 0, BreakerMode.OPEN)
    clock.advance(5.0)
    assert (gauge.spare(), gauge.traffic().breaker) == (1, BreakerMode.HALF_OPEN)
    for _ in range(3):
        call(gauge, clock)
    assert (gauge.traffic().breaker, gauge.spare() > 1) == (BreakerMode.CLOSED, True)


@pytest.mark.row("002:53")
def test_what_is_the_callers_fault_and_what_was_stopped_from_here_opens_nothing(clock: FakeClock, gauge: Gauge) -> None:
    for _ in range(20):
        call(gauge, clock, WRONG)
        gauge.end(gauge.begin("draw"), None, told=True)
    assert (gauge.traffic().breaker, gauge.outstanding) == (BreakerMode.CLOSED, 0)


def test_an_operator_closes_the_breaker_and_ends_the_pause(clock: FakeClock, gauge: Gauge) -> None:
    for _ in range(5):
        call(gauge, clock, BROKEN)
    call(gauge, clock, FULL)
    gauge.reset()
    assert not gauge.out
    assert gauge.spare() > 0


def test_a_service_that_asks_for_time_gets_it_and_no_more_than_five_minutes(clock: FakeClock, gauge: Gauge) -> None:
    call(gauge, clock, FULL)
    assert gauge.spare() == 0
    clock.advance(7.0)
    assert gauge.spare() > 0
    gauge.cool(10 * COOLEST)
    clock.advance(COOLEST)
    assert gauge.spare() > 0
    assert COOL < COOLEST


def test_having_no_room_shrinks_the_learned_limit_and_a_limit_of_ours_does_not(clock: FakeClock, gauge: Gauge) -> None:
    for _ in range(10):
        call(gauge, clock, UNSENT)
    assert (gauge.traffic().limit, gauge.traffic().last_error) == (8, None)
    for _ in range(10):
        call(gauge, clock, FULL)
    assert (gauge.traffic().limit or 8) < 8
    assert gauge.traffic().last_error == "overloaded: no room"


def test_calls_that_run_are_no_longer_spare(gauge: Gauge) -> None:
    tickets = [gauge.begin("draw") for _ in range(8)]
    assert gauge.spare() == 0
    for ticket in tickets:
        gauge.end(ticket, None)
    assert gauge.spare() == 8


def test_a_slow_endpoint_is_dearer_within_a_bound_until_that_is_forgotten(clock: FakeClock, gauge: Gauge) -> None:
    clock.advance(RAMP)
    call(gauge, clock, took=4.0)
    assert gauge.weight({"draw": 1.0}) == pytest.approx(4.0)
    assert gauge.weight({"draw": 0.001}) == DEAREST
    clock.advance(300.0)
    assert gauge.weight({"draw": 1.0}) == pytest.approx(1.0, abs=0.01)


def test_one_that_has_just_come_gets_its_share_only_by_and_by(clock: FakeClock, gauge: Gauge) -> None:
    gauge.came()
    assert gauge.weight({}) == pytest.approx(1.0 / RAMP_LEAST)
    clock.advance(RAMP / 2)
    assert gauge.weight({}) == pytest.approx(2.0)
    clock.advance(RAMP)
    assert gauge.weight({}) == pytest.approx(1.0)


def test_a_breaker_that_is_ignored_lets_calls_through(clock: FakeClock, gauge: Gauge) -> None:
    for _ in range(5):
        call(gauge, clock, BROKEN)
    gauge.forced = True
    assert gauge.spare() > 0


def test_the_end_of_a_pause_is_told_in_advance(clock: FakeClock) -> None:
    told: list[float] = []
    gauge = Gauge(clock=clock, dice=SeededDice(), first=8, woken=told.append)
    call(gauge, clock, FULL)
    assert told == [pytest.approx(7.0)]


def test_a_tenants_or_models_own_limit_leaves_the_endpoint_to_others(clock: FakeClock, gauge: Gauge) -> None:
    narrow = msgspec.structs.replace(UNSENT, details={"unsent": True, "narrow": True})
    call(gauge, clock, narrow)
    assert (gauge.spare(), gauge.traffic().cooled_s, gauge.traffic().last_error) == (8, None, None)


def test_what_holds_for_all_workers_holds_here_until_its_end_or_until_it_is_lifted(clock: FakeClock) -> None:
    woken: list[float] = []
    gauge = Gauge(clock=clock, dice=SeededDice(), first=8, woken=woken.append)
    gauge.hold(0.0)
    gauge.hold(10.0)
    gauge.hold(9.0)
    assert (gauge.spare(), gauge.traffic().cooled_s) == (0, 9.0)
    call(gauge, clock, FULL)
    gauge.hold(0.0)
    assert gauge.spare() == 7  # lifted, and with it the pause that this worker was asked for itself
    gauge.hold(5.0)
    clock.advance(5.0)
    gauge.hold(0.0)
    assert gauge.spare() == 7
    assert woken[0] == 10.0
    assert woken[-1] == 5.0


def test_the_turns_of_a_breaker_and_the_pauses_that_a_service_is_the_reason_for_are_told_once(
    clock: FakeClock, gauge: Gauge
) -> None:
    told: list[tuple[str, str, str]] = []
    gauge.told = lambda was, now, why: told.append((was, now, why.partition(" s, ")[2]))
    for _ in range(7):
        call(gauge, clock, BROKEN, took=0.0)
    assert told == [("breaker closed", "breaker open", f"after {BROKEN.label}: {BROKEN.message}")]
    clock.advance(5.0)
    for _ in range(3):
        call(gauge, clock)
    assert told[1:] == [("breaker half_open", "breaker closed", "")]
    for _ in range(4):
        call(gauge, clock, FULL, took=0.0)
    limit = Failure(class_=FailureClass.OVERLOADED, message="ours", retry_after=90.0, details={"unsent": True})
    clock.advance(COOLEST)
    call(gauge, clock, limit)
    assert told[2:] == [("in use", "cooled", f"asked: {FULL.message}")]
    assert gauge.traffic().cooled_by is Cooling.LIMIT


def test_an_endpoint_that_lacks_what_it_offers_time_after_time_is_left_alone_longer_and_longer(
    clock: FakeClock, gauge: Gauge
) -> None:
    lacking = Failure(class_=FailureClass.CAPABILITY_MISMATCH, message="no such model")
    for _ in range(2):
        call(gauge, clock, lacking)
    call(gauge, clock)
    for _ in range(2):
        call(gauge, clock, lacking)
    assert gauge.spare() > 0
    pauses: list[float] = []
    for _ in range(3):
        call(gauge, clock, lacking, took=0.0)
        traffic = gauge.traffic()
        assert (traffic.cooled_by, gauge.spare()) == (Cooling.MISMATCH, 0)
        pauses.append(round(traffic.cooled_s or 0.0, 3))
        clock.advance(60.0)
    assert pauses == [1.0, 2.0, 4.0]
    call(gauge, clock)
    call(gauge, clock, lacking)
    assert gauge.spare() > 0


def test_how_long_calls_take_is_known_only_while_some_were_made_of_late(clock: FakeClock, gauge: Gauge) -> None:
    for _ in range(8):
        call(gauge, clock, took=40.0)
    assert gauge.median("draw") == 40.0
    clock.advance(STALE)
    assert gauge.median("draw") is None
