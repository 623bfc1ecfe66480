"""The connector of Ollama keeps every promise of the port, against the simulator that the official client drives."""

from collections.abc import AsyncGenerator

import pytest
from msgspec import structs

from hostler.connectors.catalogue import build
from hostler.ports.connector import Connector
from hostler.testing.connectors import ConnectorConformance, ConnectorHarness, Work
from hostler.testing.sims.ollama import OllamaHTTPService
from hostler.testing.sims.ollama_knobs import OllamaKnobs, Trouble

NOWHERE = "http://127.0.0.1:9"  # discard: nothing listens there


@pytest.mark.row("002:84", "001:290", "002:149")
class TestOllamaHttpConnector(ConnectorConformance):
    @pytest.fixture
    async def harness(self) -> AsyncGenerator[ConnectorHarness]:
        knobs = OllamaKnobs(load=0.01, first_token=0.001, token=0.005, tokens=100_000, parallel=4)
        async with OllamaHTTPService(knobs) as server:

            async def executed() -> int:
                return sum(effect.type == "started" for effect in server.effects.effects)

            async def busy() -> int:
                return server.work.memory.busy

            async def meet(trouble: Trouble) -> None:
                server.knobs = structs.replace(server.knobs, failures={trouble: 1.0}, retry_after=0.5)

            async def sick() -> None:
                server.knobs = structs.replace(server.knobs, health_failure_rate=1.0)

            def connector() -> Connector:
                return build("ollama-http", url=server.url, options={"model": "sim-chat"})

            messages = [{"role": "user", "content": "Where is the lighthouse?"}]
            yield ConnectorHarness(
                build=connector,
                unreachable=lambda: build("ollama-http", url=NOWHERE, options={"model": "sim-chat"}),
                quick=Work(kind="chat.complete", payload={"messages": messages, "max_tokens": 20}),
                slow=Work(kind="chat.complete", payload={"messages": messages, "max_tokens": 50_000}),
                wrong=Work(kind="chat.complete", payload={"messages": []}),
                remembers=False,
                executed=executed,
                busy=busy,
                cut=lambda: meet("cut"),
                hang=lambda: meet("hang"),
                sick=sick,
                full=lambda: meet("server_busy"),
            )
