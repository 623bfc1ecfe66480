"""Upkeep of much at once goes in slices, and nothing is done to what a slice has not come to yet."""

from collections.abc import AsyncGenerator
from typing import Final

import pytest

from hostler.broker.engine_submit import prepare, submit_jobs
from hostler.broker.engine_tick import tick
from hostler.contracts.job import JobRequest
from hostler.contracts.needs import Needs
from hostler.contracts.offer import Offer
from hostler.contracts.queue import Limits
from hostler.testing.bench import KIND, Bench, Server
from hostler.valkeyio.keys import prefix
from hostler.valkeyio.library_text import Build

MANY: Final = 1_200
SECOND: Final = 1_000_000
ALL: Final = Offer(kinds=(KIND.name,), models=tuple(f"m{n}" for n in range(MANY)))


@pytest.fixture
async def queue(server: Server) -> AsyncGenerator[Bench]:
    """A queue whose clock is held, on a server that holds nothing else."""
    await server.up()
    bench = Bench(server, "slices", Build(clock="key"))
    await bench.command("FUNCTION", "FLUSH")
    await bench.library.ensure()
    await bench.configure(limits=Limits(lanes=2 * MANY))
    await at(bench, 0)
    yield bench
    assert not await bench.leaked()
    await bench.command("FLUSHALL")
    await bench.command("FUNCTION", "FLUSH")
    await bench.aclose()


async def at(bench: Bench, seconds: float) -> None:
    await bench.command("SET", prefix(bench.queue) + "clock", 10**15 + int(seconds * SECOND))


async def fill(bench: Bench, *, lanes: int) -> None:
    jobs = [prepare(JobRequest(kind=KIND.name, needs=Needs(models=(f"m{n % lanes}",))), KIND) for n in range(MANY)]
    for first in range(0, MANY, 100):
        await submit_jobs(bench.library, bench.queue, jobs[first : first + 100], bench.operation())


async def claimed(bench: Bench) -> int:
    found = 0
    while leases := await bench.claim(64, offers=[ALL], slots=2 * MANY):
        found += len(leases)
    return found


async def count(bench: Bench, command: str, key: str) -> int:
    return int(await bench.command(command, prefix(bench.queue) + key))


async def test_no_lease_is_taken_back_before_every_one_has_got_its_grace(queue: Bench) -> None:
    await fill(queue, lanes=1)
    await queue.tick()
    assert await claimed(queue) == MANY
    await at(queue, 60)
    for left in (MANY - 500, MANY - 1000):
        assert (await tick(queue.library, queue.queue)).more
        assert await count(queue, "ZCARD", "gracing") == left
        assert (await queue.meta())["n_running"] == MANY
    await queue.tick()
    _, end = await queue.command("ZRANGE", prefix(queue.queue) + "leases", 0, 0, "WITHSCORES")
    assert int(end) == 10**15 + 70 * SECOND
    assert await count(queue, "ZCARD", "grace") == MANY
    assert (await queue.meta())["n_running"] == MANY


async def gone(bench: Bench) -> str:
    """Let the one worker that covers every lane be gone for long enough, its one lease too; return its class."""
    await fill(bench, lanes=MANY)
    assert len(await bench.claim(1, offers=[ALL], slots=2 * MANY)) == 1
    for second in (4, 8, 11):
        await at(bench, second)
        await bench.tick()
    await at(bench, 13)
    (name,) = await bench.command("HKEYS", prefix(bench.queue) + "classes")
    return name.decode()


async def test_a_worker_that_comes_back_while_its_class_is_being_dropped_covers_every_lane_again(queue: Bench) -> None:
    name = await gone(queue)
    assert (await tick(queue.library, queue.queue)).more
    left = await count(queue, "HLEN", f"cl:{name}")
    assert 0 < left < MANY
    assert await claimed(queue) == MANY
    assert await count(queue, "HLEN", f"cl:{name}") == MANY


async def test_a_class_without_workers_goes_with_all_its_lanes_and_each_is_marked(queue: Bench) -> None:
    name = await gone(queue)
    for second in range(11, 17):
        await at(queue, second)
        await queue.tick()
    assert await queue.command("HGETALL", prefix(queue.queue) + "classes") == {}
    assert await count(queue, "EXISTS", f"cl:{name}") == 0
    assert await count(queue, "HLEN", "un") == MANY
    assert not [key for key in await queue.keys() if ":cls:" in key]
