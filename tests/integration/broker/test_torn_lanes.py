"""An error that leaves a job in a lane which upkeep then takes away: a repair gives the job a lane again."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from typing import Final

import pytest

from hostler.broker.desk_audit import Audit
from hostler.contracts.failure import Failure, FailureClass
from hostler.contracts.lease import Again
from hostler.contracts.queue import Limits
from hostler.kernel.errors import InternalError
from hostler.policy.lanes import derive
from hostler.testing.bench import Bench, Server
from hostler.valkeyio.keys import prefix
from hostler.valkeyio.library_text import Build

CALLS: Final = 60
SECOND: Final = 1_000_000


@pytest.fixture(scope="module")
def probed() -> Generator[Server]:
    server = Server()
    server.start()
    yield server
    server.kill()


class House:
    """A queue in a test build, its clock and its audit."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.audit = Audit(bench.engine, bench.library)

    async def at(self, seconds: float) -> None:
        await self.bench.command("SET", prefix(self.bench.queue) + "clock", 10**15 + int(seconds * SECOND))

    async def torn(self, call: int, act: Callable[[], Awaitable[object]]) -> bool:
        """Let engine call `call` fail while acting; tell whether it was reached."""
        await self.bench.command("FCALL_RO", "hostler1_probe", 0, call)
        try:
            await act()
        except InternalError:
            return True
        finally:
            await self.bench.command("FCALL_RO", "hostler1_probe", 0, 0)
        return False

    async def lanes_swept(self, *, times: int = 3) -> None:
        """Let upkeep take away every lane that looks empty."""
        for turn in range(1, times + 1):
            for step in (0, 4, 8, 12):  # after a silence every lease gets one more
                await self.at(100 * turn + step)
                await self.bench.tick()

    async def repaired(self) -> tuple[str, ...]:
        found = await self.audit.run(self.bench.queue, repair=True)
        assert await self.audit.run(self.bench.queue, repair=False) == ()
        return found

    async def jobs(self) -> list[str]:
        start = prefix(self.bench.queue) + "j:"
        keys = [key for key in await self.bench.keys() if key.startswith(start)]
        return [f"{self.bench.queue}.{key.removeprefix(start)}" for key in keys]


@pytest.fixture
async def houses(probed: Server) -> AsyncGenerator[Callable[[int], Awaitable[House]]]:
    await probed.up()
    found: list[House] = []

    async def opened(call: int) -> House:
        bench = Bench(probed, f"l{call}", Build(probe=True, clock="key"))
        await bench.library.ensure()
        found.append(House(bench))
        await found[-1].at(0)
        return found[-1]

    yield opened
    for house in found:
        await house.bench.command("FLUSHALL")
        await house.bench.aclose()


@pytest.mark.row("000:48", "001:158")
async def test_a_job_of_a_torn_submit_is_claimed_after_a_repair_though_its_lane_was_swept_away(
    houses: Callable[[int], Awaitable[House]],
) -> None:
    gone = 0
    for call in range(1, CALLS):
        house = await houses(call)
        failed = await house.torn(call, lambda bench=house.bench: bench.one(concurrency_key="k"))
        await house.lanes_swept()
        gone += any("which is gone" in sentence for sentence in await house.repaired())
        jobs = await house.jobs()
        assert [lease.job_id for lease in await house.bench.claim(5)] == jobs, f"torn at {call}"
        if not failed:
            break
    else:
        raise AssertionError(f"submit makes more than {CALLS} engine calls")
    assert gone > 0


async def test_a_retry_torn_on_its_way_to_a_derived_lane_is_claimed_after_a_repair(
    houses: Callable[[int], Awaitable[House]],
) -> None:
    gone = 0
    for call in range(1, CALLS):
        house = await houses(call)
        bench = house.bench
        job = await bench.one()
        lease = await bench.take()
        failure = Failure(class_=FailureClass.CAPABILITY_MISMATCH, message="no such model")
        ending = Again(failure=failure, counted=False, lane=derive(lease.lane, exclude="w1"))
        failed = await house.torn(call, lambda bench=bench, lease=lease, ending=ending: bench.settle(lease, ending))
        await house.lanes_swept()
        gone += any("which is gone" in sentence for sentence in await house.repaired())
        assert [one.job_id for one in await bench.claim(worker="w2")] == [job], f"torn at {call}"
        if not failed:
            break
    else:
        raise AssertionError(f"settle makes more than {CALLS} engine calls")
    assert gone > 0


async def test_a_repair_that_finds_no_room_for_a_lane_says_so_and_the_next_one_makes_it(
    houses: Callable[[int], Awaitable[House]],
) -> None:
    house = await houses(0)
    bench = house.bench
    job = await bench.one()
    await bench.command("DEL", prefix(bench.queue) + "lanes", prefix(bench.queue) + "lanekeys")
    await bench.configure(limits=Limits(lanes=1))
    found = await house.audit.run(bench.queue, repair=True)
    assert any("all the lanes it may have" in sentence for sentence in found)
    await bench.configure()
    await house.repaired()
    assert (await bench.take()).job_id == job
