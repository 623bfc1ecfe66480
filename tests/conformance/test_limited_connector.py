"""A connector with shared limits keeps every promise of the port."""

from collections.abc import AsyncGenerator, Generator
from typing import Any

import msgspec
import pytest

from hostler.connectors.catalogue import build
from hostler.dispatch.account import Account
from hostler.dispatch.limited import Limited
from hostler.ports.connector import Connector
from hostler.registry.limits import EngineLimiter
from hostler.testing.bench import Clients, Server
from hostler.testing.connectors import ConnectorConformance, ConnectorHarness, Hook, Work
from hostler.testing.sims.http import SimulationHTTPService
from hostler.testing.sims.knobs import SimKnobs
from hostler.valkeyio.library import Library

NOWHERE = "http://127.0.0.1:9"  # discard: nothing listens there


@pytest.fixture(scope="module")
def server() -> Generator[Server]:
    found = Server()
    found.start()
    yield found
    found.kill()


@pytest.fixture
async def limiter(server: Server) -> AsyncGenerator[EngineLimiter]:
    await server.up()
    clients = Clients(server.socket)
    await Library(clients).ensure()
    yield EngineLimiter(clients)
    await clients.aclose()


class TestLimitedConnector(ConnectorConformance):
    @pytest.fixture
    async def harness(self, limiter: EngineLimiter) -> AsyncGenerator[ConnectorHarness]:
        async with SimulationHTTPService(SimKnobs(duration=0.2, slots=4)) as service:

            def connector(url: str = service.url) -> Connector:
                limits = ["1000/s burst 100", "100000/h burst 1000 per tenant", "in_flight 100 per model"]
                driven = build("simulation-http", url=url, options={"poll": 0.1})
                return Limited(driven, limiter, Account(driven, limits))

            def turn(**change: Any) -> Hook:
                async def hook() -> None:
                    service.knobs = msgspec.structs.replace(service.knobs, **change)

                return hook

            async def executed() -> int:
                return sum(effect.type == "started" for effect in service.effects.effects)

            async def busy() -> int:
                return service.work.busy

            prompt = {"prompt": "a lighthouse", "width": 64, "height": 64}
            yield ConnectorHarness(
                build=connector,
                unreachable=lambda: connector(NOWHERE),
                quick=Work(kind="image.generate", payload=prompt),
                slow=Work(kind="image.generate", payload={**prompt, "duration": 20.0, "steps": 200}),
                wrong=Work(kind="image.generate", payload={"prompt": "", "colour": "blue"}),
                remembers=True,
                executed=executed,
                busy=busy,
                silence=turn(missed_rate=1.0),
                cut=turn(drop_rate=1.0),
                hang=turn(hang_rate=1.0),
                sick=turn(health_failure_rate=1.0),
                full=turn(slots=1, backlog=0, burst_rate=0.0, loading=3600.0),
            )
