"""A fabric on a real engine: for tests and benchmarks."""

from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager

from hostler.broker.desk import EngineDesk
from hostler.broker.engine import EngineBroker
from hostler.broker.foreman import EngineForeman
from hostler.kernel.settings import EngineSettings
from hostler.ports.broker import Broker
from hostler.ports.registry import Registry
from hostler.registry.engine import EngineRegistry
from hostler.testing.bench import Server
from hostler.testing.fabric import Fabric, Ports
from hostler.valkeyio.engine import Engine
from hostler.valkeyio.library import Library
from hostler.valkeyio.library_text import PRODUCTION, Build
from hostler.worker.heartbeat import Link


@asynccontextmanager
async def ports_on(engine: Engine, *, build: Build = PRODUCTION) -> AsyncGenerator[Ports]:
    """Yield the four ports of this engine."""
    library = Library(engine, build=build)
    await library.ensure()
    async with (
        aclosing(EngineBroker(engine, library=library)) as broker,
        aclosing(EngineDesk(engine, library=library)) as desk,
    ):
        foreman, registry = EngineForeman(engine, library=library), EngineRegistry(engine, library=library)
        yield Ports(broker=broker, desk=desk, foreman=foreman, registry=registry)


@asynccontextmanager
async def fabric_on(engine: Engine, *, build: Build = PRODUCTION) -> AsyncGenerator[Fabric]:
    """Yield a fabric whose four ports are those of this engine."""
    async with ports_on(engine, build=build) as ports:
        yield Fabric(ports)


@asynccontextmanager
async def opened(settings: EngineSettings) -> AsyncGenerator[tuple[Engine, Ports]]:
    """Yield an engine of these settings, and its ports."""
    async with Engine.open(settings, role="test") as engine, ports_on(engine) as ports:
        yield engine, ports


def link_to(settings: EngineSettings) -> Link:
    """Return what a heart beats over: connections of its own."""

    @asynccontextmanager
    async def link() -> AsyncGenerator[tuple[Broker, Registry]]:
        async with opened(settings) as (_, ports):
            yield ports.broker, ports.registry

    return link


@asynccontextmanager
async def own_fabric() -> AsyncGenerator[Fabric]:
    """Yield a fabric on a server of its own, AOF `always`, that ends with it."""
    server = Server()
    server.start()
    try:
        await server.up()
        async with (
            Engine.open(EngineSettings(url=f"unix://{server.socket}"), role="bench") as engine,
            fabric_on(engine) as fabric,
        ):
            yield fabric
    finally:
        server.kill()
