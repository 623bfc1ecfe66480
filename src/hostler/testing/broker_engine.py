"""The engine's broker as a harness: a real server, the test build of the function library, a clock in our hands."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Final

from hostler.broker.desk import EngineDesk
from hostler.broker.engine import EngineBroker, HasEngine
from hostler.broker.foreman import EngineForeman
from hostler.chaos.sentinel_set import SentinelSet
from hostler.kernel.settings import EngineSettings
from hostler.registry.engine import EngineRegistry
from hostler.registry.kinds import Kinds
from hostler.testing.bench import Clients, Server
from hostler.testing.broker_house import BrokerHarness
from hostler.testing.cluster_set import ClusterSet
from hostler.valkeyio.client import send
from hostler.valkeyio.engine import Engine
from hostler.valkeyio.instants import micros
from hostler.valkeyio.keys import prefix, registry_key
from hostler.valkeyio.library import HasClient, Library
from hostler.valkeyio.library_text import Build
from hostler.valkeyio.spread import server_of, servers

QUEUES: Final = ("main", "main~1", "main~2", "side", "afield", "default")
"""Queues whose clock is held; the suite uses no other."""
BUILD: Final = Build(clock="key")
_FAIL_OVER: Final = 60.0
_days = count(1)
_AGE: Final = """
for _, key in ipairs(redis.call('KEYS', 'h:{*')) do
  local left = redis.call('PTTL', key)
  if left > 0 then
    redis.call('PEXPIRE', key, math.max(0, left - tonumber(ARGV[1])))
  end
end
"""
"""Keys with a time to live grow older with the clock that we hold."""


class HeldClock:
    """The engine's clock, as the test build reads it from keys."""

    def __init__(self, clients: HasClient) -> None:
        self._clients = clients
        self._now = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=next(_days))  # caches go by when a queue began

    def now(self) -> datetime:
        """Return what the functions see."""
        return self._now

    async def advance(self, seconds: float) -> None:
        """Move it forward, and age what lives for a time."""
        self._now += timedelta(seconds=seconds)
        for server in servers(self._clients.client):
            await send(server, "EVAL", _AGE, 0, round(seconds * 1000))
        await self.write()

    async def write(self) -> None:
        """Write it where the functions look."""
        keys = [f"{prefix(queue)}clock" for queue in QUEUES] + [registry_key("clock")]
        if len(servers(self._clients.client)) == 1:
            await send(self._clients.client, "MSET", *(word for key in keys for word in (key, micros(self._now))))
            return
        for key in keys:
            await send(server_of(self._clients.client, key), "SET", key, micros(self._now))


@asynccontextmanager
async def engine_harness(
    server: Server, *, install: Callable[[Library], Awaitable[None]] = Library.ensure
) -> AsyncGenerator[BrokerHarness]:
    """Open a broker on a server that is running; all that is in the server is dropped first.

    `install` puts the functions into it: other ones than ours, for those who test a test.
    """
    clients = Clients(server.socket)

    async def restart() -> None:
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.start)
        await server.up()
        await clients.client.disconnect()
        await clients.blocking.connection_pool.disconnect()

    try:
        async with _harness(clients, restart, install) as found:
            yield found
    finally:
        await clients.aclose()


@asynccontextmanager
async def sentinel_harness(servers: SentinelSet) -> AsyncGenerator[BrokerHarness]:
    """The same on what a ready set names as its primary; a restart is a fail-over."""
    async with Engine.open(EngineSettings(url=servers.url), role="test") as engine:

        async def restart() -> None:
            killed = await servers.kill_primary()
            await servers.until_primary_is_not(killed)
            await asyncio.to_thread(killed.start)
            await servers.ready()
            await engine.until_available(_FAIL_OVER)

        async with _harness(engine, restart, Library.ensure) as found:
            yield found


@asynccontextmanager
async def cluster_harness(nodes: ClusterSet) -> AsyncGenerator[BrokerHarness]:
    """The same on a ready cluster; a restart is a fail-over of the primary that has the queue `main`."""
    async with Engine.open(EngineSettings(url=nodes.url), role="test") as engine:

        async def restart() -> None:
            killed = await nodes.kill_primary("main")
            await nodes.until_primary_is_not("main", killed)
            await asyncio.to_thread(killed.start)
            await nodes.ready()
            await engine.until_available(_FAIL_OVER)

        async with _harness(engine, restart, Library.ensure) as found:
            yield found


@asynccontextmanager
async def _harness(
    clients: HasEngine, restart: Callable[[], Awaitable[None]], install: Callable[[Library], Awaitable[None]]
) -> AsyncGenerator[BrokerHarness]:
    for server in servers(clients.client):
        await send(server, "FLUSHALL")
    library = Library(clients, build=BUILD)
    await install(library)
    clock = HeldClock(clients)
    await clock.write()
    kinds = Kinds(clients, library=library)
    async with (
        aclosing(EngineBroker(clients, library=library)) as broker,
        aclosing(EngineDesk(clients, library=library, kinds=kinds)) as desk,
    ):
        yield BrokerHarness(
            broker=broker,
            desk=desk,
            foreman=EngineForeman(clients, library=library, kinds=kinds),
            registry=EngineRegistry(clients, library=library),
            now=clock.now,
            advance=clock.advance,
            restart=restart,
        )


__all__ = ["BUILD", "HeldClock", "cluster_harness", "engine_harness", "sentinel_harness"]
