"""When a second endpoint may be asked: after the 95th percentile, with room, and inside the retry budget."""

from typing import cast

from hostler.dispatch.gauge import Gauge
from hostler.dispatch.repeats import Repeats
from hostler.policy.budget import FLOOR, SPAN
from hostler.ports.connector import Connector
from hostler.testing.clock import FakeClock, SeededDice
from hostler.worker.hedges import Hedge, Second


def hedge(clock: FakeClock, gauge: Gauge, *, room: bool = True) -> Hedge:
    second = Second(connector=cast("Connector", None), gauge=gauge)
    repeats = Repeats("nlp", clock=clock, dice=SeededDice())
    return Hedge(gauge=gauge, repeats=repeats, find=lambda: second if room else None)


def measured(clock: FakeClock, gauge: Gauge, *took: float) -> None:
    for seconds in took:
        ticket = gauge.begin("nlp.similarity")
        clock.advance(seconds)
        gauge.end(ticket, None)


def test_no_second_endpoint_is_asked_before_it_is_known_how_long_calls_take() -> None:
    clock = FakeClock()
    gauge = Gauge(clock=clock, dice=SeededDice(), first=64)
    found = hedge(clock, gauge)
    measured(clock, gauge, *range(1, 8))
    assert found.after("nlp.similarity") is None
    measured(clock, gauge, *range(8, 21))
    assert found.after("nlp.similarity") == 19
    assert found.after("nlp.expand") is None


def test_no_more_is_asked_twice_than_the_retry_budget_has_and_what_found_no_room_costs_nothing() -> None:
    clock = FakeClock()
    gauge = Gauge(clock=clock, dice=SeededDice(), first=64)
    measured(clock, gauge, *range(1, 21))
    full, found = hedge(clock, gauge, room=False), hedge(clock, gauge)
    assert [full.second() for _ in range(100)] == [None] * 100
    assert full.after("nlp.similarity") is not None
    assert sum(found.second() is not None for _ in range(100)) == FLOOR * SPAN
    assert found.after("nlp.similarity") is None
