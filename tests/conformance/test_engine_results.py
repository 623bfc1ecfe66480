"""The cache of results on the engine."""

from collections.abc import AsyncGenerator, Generator

import pytest

from hostler.registry.results import EngineResults
from hostler.testing.bench import Clients, Server
from hostler.testing.broker_engine import HeldClock
from hostler.testing.results import ResultsConformance, ResultsHarness
from hostler.valkeyio.client import send
from hostler.valkeyio.keys import owner_of
from hostler.valkeyio.library import Library
from hostler.valkeyio.library_text import Build


@pytest.fixture(scope="module")
def server() -> Generator[Server]:
    found = Server()
    found.start()
    yield found
    found.kill()


@pytest.fixture(autouse=True)
def no_blocking_calls() -> None:
    """Let the harness start a server where the loop runs: it is no part of what is tested."""


class TestEngineResults(ResultsConformance):
    @pytest.fixture
    async def harness(self, server: Server) -> AsyncGenerator[ResultsHarness]:
        await server.up()
        clients = Clients(server.socket)
        await send(clients.client, "FLUSHALL")
        library = Library(clients, build=Build(clock="key"))
        await library.ensure()
        clock = HeldClock(clients)
        await clock.write()
        results = EngineResults(clients, library=library)
        small = EngineResults(clients, library=library, entries=3)
        yield ResultsHarness(results=results, small=small, advance=clock.advance)
        keys: list[bytes] = await send(clients.client, "KEYS", "*")
        await clients.aclose()
        assert [key for key in keys if owner_of(key) is None] == []
