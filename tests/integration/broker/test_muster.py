"""Upkeep lets a queue know of its workers: it looks them up when one changed, not every time."""

from collections import Counter
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from hostler.broker.foreman import EngineForeman
from hostler.contracts.queue import QueueSpec
from hostler.contracts.worker import Worker, WorkerState
from hostler.kernel.units import Seconds
from hostler.registry.engine import EngineRegistry
from hostler.testing.bench import OFFER, Bench, Server
from hostler.valkeyio.instants import instant
from hostler.valkeyio.keys import prefix, registry_key
from hostler.valkeyio.library import Library
from hostler.valkeyio.library_text import Build

START = 1_800_000_000_000_000


class Counted(Library):
    """Counts the functions that are called."""

    said: Counter[str]

    async def call_registry(self, verb: str, **named: Any) -> Any:
        self.said[verb] += 1
        return await super().call_registry(verb, **named)


class Place:
    """A queue whose clock is held, its upkeep, and the registry."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.library = Counted(bench.engine, build=Build(clock="key"))
        self.library.said = Counter()
        self.foreman = EngineForeman(bench.engine, library=self.library)
        self.registry = EngineRegistry(bench.engine, library=bench.library)

    async def at(self, seconds: Seconds) -> None:
        """Set the clock."""
        for key in (prefix(self.bench.queue) + "clock", registry_key("clock")):
            await self.bench.command("SET", key, START + round(seconds * 1_000_000))

    async def announce(self, name: str, state: WorkerState, ttl: Seconds = 3600.0) -> None:
        """Let a worker say how it is."""
        now = instant(START)
        said = Worker(
            id=name,
            state=state,
            machine="m",
            pid=1,
            version="0",
            slots=4,
            running=0,
            queues=(self.bench.queue,),
            offers=(OFFER,),
            started_at=now,
            seen_at=now,
            expires_at=now,
            loop_age=0.0,
        )
        await self.registry.announce(said, ttl=ttl)

    async def rosters(self, *times: Seconds) -> int:
        """Do upkeep at these times; return how often all workers were looked up for it."""
        before = self.library.said["roster"]
        for seconds in times:
            await self.at(seconds)
            await self.foreman.tick(self.bench.queue)
        return self.library.said["roster"] - before

    async def present(self) -> set[str]:
        """Return the workers that the queue knows."""
        return {word.decode() for word in await self.bench.command("HKEYS", prefix(self.bench.queue) + "w")}


@pytest.fixture
async def place(server: Server) -> AsyncGenerator[Place]:
    await server.up()
    bench = Bench(server, "muster", Build(clock="key"))
    for word in ("FLUSHALL", "FUNCTION FLUSH"):
        await bench.command(*word.split())
    await bench.library.ensure()
    found = Place(bench)
    await found.at(0.0)
    await found.foreman.declare_queue(QueueSpec(name=bench.queue))
    yield found
    await bench.command("FUNCTION", "FLUSH")
    await bench.aclose()


async def test_all_workers_are_looked_up_when_one_changed_its_state_and_not_with_every_round(place: Place) -> None:
    await place.announce("w1", WorkerState.STARTING)
    await place.announce("w1", WorkerState.READY)
    assert await place.rosters(1.0) == 1
    await place.bench.claim(worker="w1")
    assert await place.rosters(2.0, 3.0) == 0
    await place.announce("w1", WorkerState.BUSY)
    assert await place.rosters(4.0, 5.0) == 0
    await place.announce("w2", WorkerState.STARTING)
    assert await place.rosters(6.0, 7.0) == 1


async def test_a_worker_that_lives_and_does_not_claim_is_known_to_its_queue_all_the_time(place: Place) -> None:
    await place.announce("w1", WorkerState.STARTING)
    await place.announce("w1", WorkerState.READY)
    await place.announce("w1", WorkerState.PAUSED)
    for second in range(1, 61):
        await place.rosters(float(second))
        assert await place.present() == {"w1"}, second
    assert place.library.said["roster"] < 15


async def test_a_worker_that_is_lost_or_stopped_is_gone_from_its_queue_with_the_next_round(place: Place) -> None:
    for name in ("w1", "w2"):
        await place.announce(name, WorkerState.STARTING, ttl=5.0)
        await place.announce(name, WorkerState.READY, ttl=5.0)
        await place.bench.claim(worker=name)
    await place.rosters(1.0, 2.0)
    assert await place.present() == {"w1", "w2"}
    await place.registry.withdraw("w1")
    await place.rosters(3.0)
    assert await place.present() == {"w2"}
    await place.rosters(5.5)
    assert await place.present() == set()
