"""The registry of endpoints on the engine, and the discovery that follows it."""

from collections.abc import AsyncGenerator, Generator

import pytest

from hostler.connectors.catalogue import build
from hostler.contracts.service import Census
from hostler.kernel.errors import EngineUnavailableError
from hostler.ports.connector import Connector
from hostler.registry.discovery import EngineDiscovery, Followed, Where
from hostler.registry.endpoints import EngineEndpoints
from hostler.testing.bench import Clients, Server
from hostler.testing.broker_engine import HeldClock
from hostler.testing.endpoints import DiscoveryConformance, EndpointConformance, EndpointHarness
from hostler.valkeyio.client import send
from hostler.valkeyio.library import Library
from hostler.valkeyio.library_text import Build

CONNECTOR = "simulation-http"


@pytest.fixture(scope="module")
def server() -> Generator[Server]:
    found = Server()
    found.start()
    yield found
    found.kill()


@pytest.fixture(autouse=True)
def no_blocking_calls() -> None:
    """Let the harness start a server where the loop runs: it is no part of what is tested."""


class Cuttable(EngineEndpoints):
    """The registry on a line that can be cut."""

    cut = False

    async def census(self, *, version: str = "") -> Census:
        if self.cut:
            raise EngineUnavailableError("the line is cut")
        return await super().census(version=version)


def build_one(where: Where) -> Connector:
    return build(where.connector, url=where.url, endpoint=where.id, labels=dict(where.labels), slots=where.slots)


@pytest.fixture
async def harness(server: Server) -> AsyncGenerator[EndpointHarness]:
    await server.up()
    clients = Clients(server.socket)
    await send(clients.client, "FLUSHALL")
    library = Library(clients, build=Build(clock="key"))
    await library.ensure()
    clock = HeldClock(clients)
    await clock.write()
    registry = Cuttable(clients, library=library)
    kinds = build(CONNECTOR, url="http://127.0.0.1:1").kinds()
    followed = Followed(name="sim", connector=CONNECTOR, build=build_one, kinds=kinds, announced=True)

    async def line(*, cut: bool) -> None:
        registry.cut = cut

    yield EndpointHarness(
        registry=registry,
        advance=clock.advance,
        discovery=EngineDiscovery(registry, (followed,)),
        connector=CONNECTOR,
        cut=lambda: line(cut=True),
        mend=lambda: line(cut=False),
    )
    await clients.aclose()


class TestEngineEndpoints(EndpointConformance):
    @pytest.fixture
    async def harness(self, harness: EndpointHarness) -> EndpointHarness:
        return harness


class TestEngineDiscovery(DiscoveryConformance):
    @pytest.fixture
    async def harness(self, harness: EndpointHarness) -> EndpointHarness:
        return harness
