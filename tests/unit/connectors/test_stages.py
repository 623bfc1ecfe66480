"""Each stage has a limit; run and deadline bound them all; the tightest is blamed."""

import asyncio
import time
from datetime import timedelta

import pytest

from hostler.connectors.faults import ServiceFaultError
from hostler.connectors.stages import Stages
from hostler.contracts.failure import FailureClass, Stage
from hostler.contracts.timeouts import Timeouts
from hostler.testing.clock import FakeClock


def stages(clock: FakeClock, *, left: float | None = None, **limits: float) -> Stages:
    deadline = None if left is None else clock.now() + timedelta(seconds=left)
    return Stages(Timeouts(**limits), deadline, monotonic=clock.monotonic, wall=clock.now)


def test_a_stage_has_its_own_limit_from_when_it_began() -> None:
    clock = FakeClock()
    found = stages(clock, idle=10.0, run=100.0)
    clock.advance(4.0)
    assert found.left(Stage.IDLE, since=0.0) == (6.0, Stage.IDLE, 10.0)
    assert found.left(Stage.IDLE) == (10.0, Stage.IDLE, 10.0)


@pytest.mark.parametrize(("left", "blame"), [(None, Stage.RUN), (3.0, Stage.DEADLINE)])
def test_run_and_deadline_bound_every_stage(left: float | None, blame: Stage) -> None:
    clock = FakeClock()
    found = stages(clock, idle=10.0, run=5.0, left=left)
    assert found.left(Stage.IDLE)[1] is blame
    clock.advance(6.0)
    with pytest.raises(ServiceFaultError) as caught:
        found.check(Stage.FIRST_BYTE, since=0.0)
    assert caught.value.failure.stage in {Stage.RUN, Stage.DEADLINE}


def test_without_a_limit_nothing_runs_out() -> None:
    clock = FakeClock()
    found = stages(clock)
    clock.advance(1e9)
    assert found.left(Stage.IDLE, since=0.0) == (None, Stage.IDLE, None)
    found.check(Stage.IDLE, since=0.0)


async def test_within_ends_what_takes_too_long_with_the_stage_that_did() -> None:
    found = Stages(Timeouts(first_byte=0.01, run=10.0))
    with pytest.raises(ServiceFaultError) as caught:
        async with found.within(Stage.FIRST_BYTE):
            await asyncio.Event().wait()
    assert (caught.value.failure.class_, caught.value.failure.stage) == (FailureClass.TIMEOUT, Stage.FIRST_BYTE)


async def test_within_leaves_the_timeouts_of_others_alone() -> None:
    found = Stages(Timeouts(run=10.0))
    with pytest.raises(TimeoutError, match="not ours"):
        async with found.within(Stage.RUN):
            raise TimeoutError("not ours")


async def test_a_clock_ends_the_loop_by_the_stage_that_began_last() -> None:
    found = Stages(Timeouts(first_byte=60.0, idle=0.01, run=60.0))

    async def listen() -> None:
        async with found.clock(Stage.FIRST_BYTE, since=time.monotonic()) as clock:
            clock.begin(Stage.IDLE)
            await asyncio.Event().wait()

    with pytest.raises(ServiceFaultError) as caught:
        await listen()
    assert (caught.value.failure.class_, caught.value.failure.stage) == (FailureClass.TIMEOUT, Stage.IDLE)
    assert "0.01 s" in caught.value.failure.message


async def test_a_stage_that_began_again_has_its_whole_time_again() -> None:
    looks = asyncio.Event()
    times = iter([0.0, 0.0, 0.009, 0.01])  # made, entered, begun again, and when the timer of the first has run out

    def monotonic() -> float:
        now = next(times, None)
        if now is None:
            looks.set()
        return 0.011 if now is None else now

    found = Stages(Timeouts(idle=0.01), monotonic=monotonic)
    async with found.clock(Stage.IDLE, since=0.0) as clock:
        clock.begin(Stage.IDLE)
        await looks.wait()  # it has looked a second time, with time left


async def test_a_clock_leaves_the_timeouts_of_others_alone() -> None:
    found = Stages(Timeouts(run=10.0))
    with pytest.raises(TimeoutError, match="not ours"):
        async with found.clock(Stage.RUN, since=time.monotonic()):
            raise TimeoutError("not ours")
