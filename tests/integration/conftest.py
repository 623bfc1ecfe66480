"""An engine server that a module may do with as it likes, without the durability that the shared one has."""

from collections.abc import AsyncGenerator, Generator

import pytest

from hostler.testing.bench import Clients, Server
from hostler.valkeyio.library import Library


@pytest.fixture
def server() -> Generator[Server]:
    found = Server()
    found.start("--appendfsync", "no")
    yield found
    found.kill()


@pytest.fixture
async def clients(server: Server) -> AsyncGenerator[Clients]:
    await server.up()
    found = Clients(server.socket)
    await Library(found).ensure()
    yield found
    await found.aclose()
