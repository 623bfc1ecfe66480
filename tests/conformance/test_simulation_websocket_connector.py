"""The connector of the simulated service over WebSockets keeps every promise of the port, against its real server."""

from collections.abc import AsyncGenerator
from typing import Any

import msgspec
import pytest

from hostler.connectors.catalogue import build
from hostler.ports.connector import Connector
from hostler.testing.connectors import ConnectorConformance, ConnectorHarness, Hook, Work
from hostler.testing.sims.knobs import SimKnobs
from hostler.testing.sims.websocket import SimulationWebsocketService

NOWHERE = "ws://127.0.0.1:9"  # discard: nothing listens there


@pytest.mark.row("000:20", "001:203", "000:47", "001:290")
class TestSimulationWebsocketConnector(ConnectorConformance):
    @pytest.fixture
    async def harness(self) -> AsyncGenerator[ConnectorHarness]:
        async with SimulationWebsocketService(SimKnobs(duration=0.2, slots=4)) as service:

            def connector() -> Connector:
                return build("simulation-websocket", url=service.url, options={"poll": 0.1})

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
                unreachable=lambda: build("simulation-websocket", url=NOWHERE, options={"poll": 0.1}),
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
