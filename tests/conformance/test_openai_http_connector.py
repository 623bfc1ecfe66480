"""The connector of OpenAI-compatible servers keeps every promise of the port, against a real llama.cpp."""

from collections.abc import AsyncGenerator

import aiohttp
import pytest

from hostler.connectors.catalogue import build
from hostler.kernel.errors import MissingExtraError
from hostler.ports.connector import Connector
from hostler.testing.connectors import ConnectorConformance, ConnectorHarness, Work
from hostler.testing.llama import LlamaServer, require_extra

NOWHERE = "http://127.0.0.1:9"  # discard: nothing listens there


@pytest.mark.row("001:209", "001:290", "002:149")
class TestOpenaiHttpConnector(ConnectorConformance):
    cycles = 30

    @pytest.fixture
    async def harness(self) -> AsyncGenerator[ConnectorHarness]:
        try:
            require_extra()
        except MissingExtraError as error:
            pytest.skip(error.message)
        async with LlamaServer(slots=2, context=16_384) as server, aiohttp.ClientSession() as http:

            async def busy() -> int:
                async with http.get(f"{server.url}/slots") as answer:
                    return sum(slot["is_processing"] for slot in await answer.json())

            def connector() -> Connector:
                return build("openai-http", url=server.url)

            messages = [{"role": "user", "content": "Where is the lighthouse?"}]
            yield ConnectorHarness(
                build=connector,
                unreachable=lambda: build("openai-http", url=NOWHERE),
                quick=Work(kind="chat.complete", payload={"messages": messages, "max_tokens": 24}),
                slow=Work(kind="chat.complete", payload={"messages": messages, "max_tokens": 15_000}),
                wrong=Work(kind="chat.complete", payload={"messages": []}),
                remembers=False,
                busy=busy,
            )
