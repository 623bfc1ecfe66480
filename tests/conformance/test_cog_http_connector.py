"""The connector of Cog keeps every promise of the port, against real Cog servers."""

import dataclasses
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import aiohttp
import pytest

from hostler.connectors.catalogue import build
from hostler.testing.cog import CogServer, health
from hostler.testing.connectors import ConnectorConformance, ConnectorHarness, Work
from hostler.testing.eventually import eventually

NOWHERE = "http://127.0.0.1:9"  # discard: nothing listens there


@asynccontextmanager
async def harness_of(server: CogServer) -> AsyncGenerator[ConnectorHarness]:
    async with aiohttp.ClientSession() as http:

        async def free() -> bool:
            return await health(http, server.url) == "READY"

        await eventually(free)
        runs, hangs = server.folder / "runs", server.folder / "hang"
        runs.write_text("")

        async def executed() -> int:
            return len(runs.read_text())

        async def busy() -> int:
            return await health(http, server.url) == "BUSY"

        async def hang() -> None:
            hangs.touch()

        def predict(**inputs: object) -> Work:
            return Work(kind="cog.predict", payload={"input": inputs})

        yield ConnectorHarness(
            build=lambda: build("cog-http", url=server.url),
            unreachable=lambda: build("cog-http", url=NOWHERE),
            quick=predict(prompt="a lighthouse"),
            slow=predict(prompt="a lighthouse", steps=1000, pause=0.02),
            wrong=predict(prompt=7),
            remembers=False,
            executed=executed,
            busy=busy,
            hang=hang,
        )
        hangs.unlink(missing_ok=True)


@pytest.mark.row("001:290", "002:149")
class TestCogHttpConnectorOfAModelThatStreams(ConnectorConformance):
    cycles = 15

    @pytest.fixture
    async def harness(self, streaming_cog: CogServer) -> AsyncGenerator[ConnectorHarness]:
        async with harness_of(streaming_cog) as harness:
            yield harness


class TestCogHttpConnectorOfAModelThatDoesNot(ConnectorConformance):
    cycles = 5

    @pytest.fixture
    async def harness(self, silent_cog: CogServer) -> AsyncGenerator[ConnectorHarness]:
        async with harness_of(silent_cog) as harness:
            # It is silent until it is done: work that stops moving cannot be told from work that goes on.
            yield dataclasses.replace(harness, hang=None)
