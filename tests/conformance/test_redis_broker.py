"""The broker keeps every promise on Redis 7 too, which lacks what Valkey has added since."""

from collections.abc import AsyncGenerator, Generator

import pytest

from hostler.testing.bench import Server
from hostler.testing.broker import BrokerConformance, BrokerHarness
from hostler.testing.broker_engine import engine_harness
from hostler.testing.programs import redis_program


@pytest.fixture(scope="module")
def server() -> Generator[Server]:
    program = redis_program()
    if program is None:
        pytest.skip("needs the program redis-server: apt-get install redis-tools")
    found = Server(program)
    found.start()
    yield found
    found.kill()


@pytest.fixture(autouse=True)
def no_blocking_calls() -> None:
    """Let the harness start a server where the loop runs: it is no part of what is tested."""


class TestRedisBroker(BrokerConformance):
    @pytest.fixture
    async def harness(self, server: Server) -> AsyncGenerator[BrokerHarness]:
        await server.up()
        async with engine_harness(server) as found:
            yield found
