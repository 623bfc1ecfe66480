"""The broker on the engine keeps every promise that the model keeps."""

from collections.abc import AsyncGenerator, Generator

import pytest

from hostler.testing.bench import Server
from hostler.testing.broker import BrokerConformance, BrokerHarness
from hostler.testing.broker_engine import engine_harness


@pytest.fixture(scope="module")
def server() -> Generator[Server]:
    found = Server()
    found.start()
    yield found
    found.kill()


@pytest.fixture(autouse=True)
def no_blocking_calls() -> None:
    """Let the harness start a server where the loop runs: it is no part of what is tested."""


class TestEngineBroker(BrokerConformance):
    @pytest.fixture
    async def harness(self, server: Server) -> AsyncGenerator[BrokerHarness]:
        await server.up()
        async with engine_harness(server) as found:
            yield found
