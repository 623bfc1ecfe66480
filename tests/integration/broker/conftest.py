"""A real server per test module, with AOF always, and a queue of its own per test."""

import itertools
from collections.abc import AsyncGenerator, Generator

import pytest

from hostler.testing.bench import Bench, Server

_numbers = itertools.count()


@pytest.fixture(scope="module")
def server() -> Generator[Server]:
    found = Server()
    found.start()
    yield found
    found.kill()


@pytest.fixture
async def bench(server: Server) -> AsyncGenerator[Bench]:
    """A queue of its own on the module's server; no key may be left that no row of the key table owns."""
    await server.up()
    found = Bench(server, f"q{next(_numbers)}")
    await found.library.ensure()
    yield found
    assert not await found.leaked()
    await found.aclose()
