"""A fabric on a real engine: for tests and benchmarks."""

from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager

from hostler.broker.desk import EngineDesk
from hostler.broker.engine import EngineBroker
from hostler.broker.foreman import EngineForeman
from hostler.kernel.settings import EngineSettings
from hostler.registry.engine import EngineRegistry
from hostler.testing.bench import Server
from hostler.testing.fabric import Fabric, Ports
from hostler.valkeyio.engine import Engine
from hostler.valkeyio.library import Library


@asynccontextmanager
async def fabric_on(engine: Engine) -> AsyncGenerator[Fabric]:
    """Yield a fabric whose four ports are those of this engine."""
    await Library(engine).ensure()
    async with aclosing(EngineBroker(engine)) as broker, aclosing(EngineDesk(engine)) as desk:
        yield Fabric(Ports(broker=broker, desk=desk, foreman=EngineForeman(engine), registry=EngineRegistry(engine)))


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
