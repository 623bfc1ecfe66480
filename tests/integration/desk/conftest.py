"""A broker on a real engine, all four sides of it, with one queue and one kind."""

from collections.abc import AsyncGenerator

import pytest

from hostler.contracts.queue import KindSpec
from hostler.testing.front import Front
from hostler.valkeyio.engine import Engine


@pytest.fixture
async def front(engine: Engine) -> AsyncGenerator[Front]:
    found = Front(engine)
    await found.foreman.declare_kind(KindSpec(name="draw", queue="images"))
    yield found
    assert await found.leaked() == []
    await found.aclose()
