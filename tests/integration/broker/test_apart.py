"""Suspects on a real engine: who is woken for one that was left to others, and what many of them cost a claim."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Final

import pytest

from hostler.contracts.lease import Suspicion
from hostler.policy.suspicion import PASSED_MOST, SOON
from hostler.testing.bench import Bench, Server
from hostler.valkeyio.keys import prefix
from hostler.valkeyio.library_text import Build

SECOND: Final = 1_000_000


@pytest.fixture
async def queue(server: Server) -> AsyncGenerator[Bench]:
    """A queue whose clock is held, on a server that holds nothing else."""
    await server.up()
    bench = Bench(server, "apart", Build(clock="key"))
    await bench.command("FUNCTION", "FLUSH")
    await bench.library.ensure()
    await at(bench, 0)
    yield bench
    assert not await bench.leaked()
    await bench.command("FLUSHALL")
    await bench.command("FUNCTION", "FLUSH")
    await bench.aclose()


async def at(bench: Bench, seconds: float) -> None:
    await bench.command("SET", prefix(bench.queue) + "clock", 10**15 + int(seconds * SECOND))


async def suspects(bench: Bench, number: int) -> list[str]:
    """Submit jobs and let the worker die that holds them all; ten seconds and a half later they are back."""
    ids = await bench.submit(number)
    while await bench.claim(64, worker="gone"):
        pass
    for seconds in (0, 4, 8, 10.5):
        await at(bench, seconds)
        await bench.tick()
    return ids


async def test_who_left_a_suspect_to_others_is_woken_when_it_may_take_it(queue: Bench) -> None:
    first, second = await suspects(queue, 2)
    async with asyncio.timeout(60):
        assert await queue.broker.wait_for_work([queue.queue], "w1", timeout=30), "the subscription's own first look"
        assert (await queue.take()).job_id == first
        assert await queue.claim(suspicion=Suspicion.SUSPECT) == ()
        await at(queue, 10.5 + SOON / 2 + 0.01)
        await queue.tick()
        assert not await queue.broker.wait_for_work([queue.queue], "w1", timeout=0.2), "it may not yet"
        await at(queue, 10.5 + SOON + 0.6)
        await queue.tick()
        assert await queue.broker.wait_for_work([queue.queue], "w1", timeout=30)
    assert (await queue.take(suspicion=Suspicion.SUSPECT)).job_id == second


async def test_a_claim_passes_over_so_many_suspects_and_no_more_and_hides_nothing_behind_them(queue: Bench) -> None:
    ids = await suspects(queue, PASSED_MOST + 6)
    fresh = await queue.submit(2)
    got = await queue.claim(64, suspicion=Suspicion.SUSPECT)
    assert [lease.job_id for lease in got] == [*ids[PASSED_MOST:], *fresh]
    assert [lease.job_id for lease in await queue.claim(64, worker="w2")] == [ids[0]]
