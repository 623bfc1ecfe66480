"""The real engine with a clock that is held, one queue declared."""

from collections.abc import AsyncGenerator, Generator

import pytest

from hostler.testing.bench import Server
from hostler.testing.broker import House
from hostler.testing.broker_engine import engine_harness


@pytest.fixture(scope="module")
def server() -> Generator[Server]:
    found = Server()
    found.start()
    yield found
    found.kill()


@pytest.fixture
async def house(server: Server) -> AsyncGenerator[House]:
    await server.up()
    async with engine_harness(server) as harness:
        found = House(harness)
        await found.open()
        yield found
