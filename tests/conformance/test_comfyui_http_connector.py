"""The connector of ComfyUI keeps every promise of the port, against a simulated server of each dialect."""

from collections.abc import AsyncGenerator
from typing import Any

import aiohttp
import msgspec
import pytest

from hostler.connectors.catalogue import build
from hostler.ports.connector import Connector
from hostler.testing.connectors import ConnectorConformance, ConnectorHarness, Hook, Work
from hostler.testing.sims.comfyui import ComfyuiService
from hostler.testing.sims.comfyui_knobs import ComfyuiKnobs, Dialect
from hostler.testing.sims.comfyui_workflows import text_to_image

NOWHERE = "http://127.0.0.1:9"  # discard: nothing listens there


@pytest.mark.row("001:206", "001:207")
class TestComfyuiHttpConnector(ConnectorConformance):
    cycles = 40

    @pytest.fixture(params=["new", "old"])
    async def harness(self, request: pytest.FixtureRequest) -> AsyncGenerator[ConnectorHarness]:
        dialect: Dialect = request.param
        async with ComfyuiService(ComfyuiKnobs(dialect=dialect, duration=0.1)) as service:
            options = {"poll": 0.1, "backlog": 2}

            def connector() -> Connector:
                return build("comfyui-http", url=service.url, options=options)

            def turn(**change: Any) -> Hook:
                async def hook() -> None:
                    service.knobs = msgspec.structs.replace(service.knobs, **change)

                return hook

            async def executed() -> int:
                return sum(effect.type == "started" for effect in service.effects.effects)

            async def busy() -> int:
                return service.work.remaining()

            async def full() -> None:
                async with aiohttp.ClientSession() as stranger:
                    for seed in range(4):
                        prompt = {"prompt": text_to_image(seed=seed, steps=1000)}
                        async with stranger.post(f"{service.url}/prompt", json=prompt) as answer:
                            assert answer.status == 200

            yield ConnectorHarness(
                build=connector,
                unreachable=lambda: build("comfyui-http", url=NOWHERE, options=options),
                quick=Work(kind="comfyui.workflow", payload={"workflow": text_to_image(steps=10)}),
                slow=Work(kind="comfyui.workflow", payload={"workflow": text_to_image(steps=2000)}),
                wrong=Work(kind="comfyui.workflow", payload={"workflow": {"1": {"inputs": {}}}}),
                remembers=True,
                executed=executed,
                busy=busy,
                silence=turn(missed_rate=1.0),
                cut=turn(drop_rate=1.0),
                hang=turn(hang_rate=1.0),
                sick=turn(health_failure_rate=1.0),
                full=full,
            )
