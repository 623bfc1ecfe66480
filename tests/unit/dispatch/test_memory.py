"""What an endpoint that holds one model at a time takes, as calls, probes and jobs that wait say; the clock is ours."""

from typing import Any

import pytest

from hostler.contracts.failure import Failure, FailureClass, Stage
from hostler.contracts.offer import Standing
from hostler.contracts.service import Shared
from hostler.dispatch.memory import BESIDE, LULL, Memory
from hostler.policy.pressure import GRUDGE, Line
from hostler.testing.clock import FakeClock

ABLE = ("a", "b", "c")
TOO_LARGE = Failure(class_=FailureClass.OUT_OF_MEMORY, message="no room for it")
SLOW = Failure(class_=FailureClass.TIMEOUT, stage=Stage.LOAD, message="it did not load")
WRONG = Failure(class_=FailureClass.INVALID_INPUT, message="not like this")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def memory(clock: FakeClock) -> Memory:
    found = Memory(clock, dwell=30.0)
    found.saw(("a",), single=True)
    return found


def stands(memory: Memory, *, busy: bool = False, taken: tuple[str, ...] = ()) -> Standing:
    return memory.standing(1.0, ABLE, busy=busy, taken=taken)


def call(memory: Memory, clock: FakeClock, model: str, failure: Failure | None = None, *, took: float = 1.0) -> None:
    loads = memory.begins((model,))
    clock.advance(took)
    memory.ended((model,), failure, took, loads=loads)


def test_while_nobody_waits_for_its_model_any_other_that_nobody_holds_may_come(memory: Memory) -> None:
    assert (stands(memory).loaded, stands(memory).swaps) == (("a",), ("b", "c"))
    assert stands(memory, taken=("b",)).swaps == ("c",)


def test_while_jobs_wait_for_its_model_or_run_on_it_no_other_may_come(memory: Memory) -> None:
    assert stands(memory, busy=True).swaps == ()
    memory.decide({"a": Line(waiting=1, oldest=1.0), "b": Line(waiting=1, oldest=0.0)}, ABLE)
    assert (stands(memory).loaded, stands(memory).swaps) == (("a",), ())


def test_an_endpoint_that_is_to_change_takes_nothing_while_it_is_busy_and_then_only_what_comes_next(
    memory: Memory, clock: FakeClock
) -> None:
    loads = memory.begins(("a",))
    clock.advance(31.0)
    memory.decide({"a": Line(waiting=1, oldest=1.0), "b": Line(waiting=9, oldest=9.0)}, ABLE)
    assert (memory.next, stands(memory, busy=True).loaded, stands(memory, busy=True).swaps) == ("b", (), ())
    memory.ended(("a",), None, 31.0, loads=loads)
    assert (stands(memory).loaded, stands(memory).swaps) == ((), ("b",))
    memory.begins(("b",))
    assert (memory.next, tuple(memory.models)) == (None, ("b",))


def test_a_call_brings_its_model_and_a_probe_that_looked_before_does_not_take_it_away(
    memory: Memory, clock: FakeClock
) -> None:
    loads = memory.begins(("b",))
    memory.saw(("a",), single=True)
    assert (loads, tuple(memory.models)) == (True, ("b",))
    memory.ended(("b",), None, 1.0, loads=loads)
    memory.saw(("a",), single=True)
    assert tuple(memory.models) == ("a",)
    assert not memory.begins(("a",))
    assert clock.monotonic() >= 0


@pytest.mark.parametrize("failure", [TOO_LARGE, SLOW])
def test_a_model_that_does_not_load_is_not_tried_again_for_a_while(
    memory: Memory, clock: FakeClock, failure: Failure
) -> None:
    call(memory, clock, "b", failure)
    assert stands(memory).swaps == ("a", "c")
    clock.advance(GRUDGE)
    assert stands(memory).swaps == ("a", "b", "c")


def test_a_failure_that_is_not_the_loads_is_held_against_no_model(memory: Memory, clock: FakeClock) -> None:
    call(memory, clock, "b", WRONG)
    call(memory, clock, "c")
    assert stands(memory).swaps == ("a", "b")


def test_jobs_that_wait_and_never_come_do_not_keep_the_others_out(memory: Memory, clock: FakeClock) -> None:
    lines = {"a": Line(waiting=9, oldest=60.0), "b": Line(waiting=1, oldest=1.0)}
    memory.decide(lines, ABLE)
    assert stands(memory).swaps == ()
    clock.advance(LULL)
    memory.decide(lines, ABLE)
    assert stands(memory).swaps == ("b",)


def test_a_next_model_whose_jobs_never_come_does_not_hold_the_endpoint(memory: Memory, clock: FakeClock) -> None:
    lines = {"b": Line(waiting=9, oldest=60.0)}
    memory.decide(lines, ABLE)
    assert memory.next == "b"
    clock.advance(LULL)
    memory.decide(lines, ABLE)
    assert (memory.next, stands(memory).loaded) == (None, ("a",))


def test_what_loads_take_is_learned_and_spares_a_second_copy(memory: Memory, clock: FakeClock) -> None:
    call(memory, clock, "a", took=1.0)
    call(memory, clock, "b", took=6.0)
    memory.decide({"c": Line(waiting=1, oldest=4.0, elsewhere=1)}, ABLE)
    assert memory.next is None
    memory.decide({"c": Line(waiting=1, oldest=5.0, elsewhere=1)}, ABLE)
    assert memory.next == "c"


def test_a_model_that_is_waited_for_stays_no_longer_than_ten_loads_take(memory: Memory, clock: FakeClock) -> None:
    call(memory, clock, "a", took=0.5)
    call(memory, clock, "b", took=1.5)
    lines = {"b": Line(waiting=1, oldest=0.0), "a": Line(waiting=9, oldest=9.0)}
    memory.begins(("b",))
    clock.advance(8.0)
    memory.decide(lines, ABLE)
    assert memory.next is None
    clock.advance(1.0)
    memory.decide(lines, ABLE)
    assert memory.next == "a"


@pytest.mark.parametrize(
    "failure",
    [
        Failure(class_=FailureClass.OVERLOADED, message="our limit", details={"unsent": True}),
        Failure(class_=FailureClass.CANCELLED, message="stopped from here"),
    ],
)
def test_a_call_that_never_went_out_brings_no_model(memory: Memory, clock: FakeClock, failure: Failure) -> None:
    call(memory, clock, "b", failure)
    assert (tuple(memory.models), stands(memory).swaps) == (("a",), ("b", "c"))


def test_the_model_that_is_asked_for_least_is_the_cheapest_to_put_out(clock: FakeClock) -> None:
    often, seldom = Memory(clock), Memory(clock)
    for memory, times in ((often, 5), (seldom, 1)):
        memory.saw(("a",), single=True)
        for _ in range(times):
            call(memory, clock, "a", took=0.0)
    assert stands(often).weight > stands(seldom).weight > 1.0
    clock.advance(3_600.0)
    assert stands(often).weight == pytest.approx(1.0)


def shared(keeper: str = "w2", *, coming: str | None = None, idle: float | None = None, **load: Any) -> Shared:
    told: dict[str, Any] = {"loads": 0, "models": (), "by": "", "age": 0.0, **load}
    return Shared(keeper=keeper, coming=coming, idle=idle, waiting=(), **told)


def test_who_follows_another_worker_loads_only_what_that_one_says(memory: Memory) -> None:
    memory.heed(shared(), worker="w1", told=())
    assert (stands(memory).loaded, stands(memory).swaps) == (("a",), ())
    memory.decide({"b": Line(waiting=9, oldest=900.0)}, ABLE)
    assert memory.next is None
    memory.heed(shared(coming="b"), worker="w1", told=())
    assert (stands(memory).loaded, stands(memory).swaps) == ((), ("b",))
    memory.heed(shared("w1", coming=None), worker="w1", told=())
    memory.decide({"c": Line(waiting=9, oldest=900.0)}, ABLE)
    assert memory.next == "c"


def test_a_load_that_another_worker_began_is_what_is_in_memory_from_then_on(memory: Memory, clock: FakeClock) -> None:
    clock.advance(100.0)
    load: dict[str, Any] = {"loads": 1, "models": ("b",), "by": "w2", "age": 20.0}
    memory.heed(shared("w1", idle=1.0, **load), worker="w1", told=())
    assert tuple(memory.models) == ("b",)
    memory.decide({"b": Line(waiting=1), "c": Line(waiting=9, oldest=9.0)}, ABLE)
    assert memory.next is None, "it has been there for 20 of 30 seconds"
    memory.begins(("c",))
    assert memory.begun == ("c",)
    memory.heed(shared("w1", **load), worker="w1", told=("c",))
    assert (tuple(memory.models), memory.begun) == (("c",), ())


def test_while_another_worker_has_a_call_there_nothing_else_is_loaded_and_no_probe_is_believed(
    memory: Memory, clock: FakeClock
) -> None:
    memory.heed(shared("w1", idle=0.0), worker="w1", told=())
    memory.saw(("b",), single=True)
    assert (tuple(memory.models), stands(memory).swaps) == (("a",), ())
    clock.advance(BESIDE)
    memory.saw(("b",), single=True)
    assert (tuple(memory.models), stands(memory).swaps) == (("b",), ("a", "c"))
