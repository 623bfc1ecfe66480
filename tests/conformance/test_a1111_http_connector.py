"""The connector of A1111 keeps every promise of the port, against a simulator that its clients take for it."""

from collections.abc import AsyncGenerator
from typing import Any

import aiohttp
import msgspec
import pytest

from hostler.connectors.catalogue import build
from hostler.ports.connector import Connector
from hostler.testing.connectors import ConnectorConformance, ConnectorHarness, Hook, Work
from hostler.testing.sims.a1111 import A1111Service
from hostler.testing.sims.a1111_work import A1111Knobs

NOWHERE = "http://127.0.0.1:9"  # discard: nothing listens there


@pytest.mark.row("001:149", "001:290", "002:149")
class TestA1111HttpConnector(ConnectorConformance):
    cycles = 30

    @pytest.fixture
    async def harness(self) -> AsyncGenerator[ConnectorHarness]:
        async with A1111Service(A1111Knobs(duration=0.3)) as service, aiohttp.ClientSession() as http:

            def connector() -> Connector:
                return build("a1111-http", url=service.url, options={"poll": 0.03})

            def turn(**change: Any) -> Hook:
                async def hook() -> None:
                    service.knobs = msgspec.structs.replace(service.knobs, **change)

                return hook

            async def full() -> None:
                """Let somebody else's work run."""
                service.knobs = msgspec.structs.replace(service.knobs, hang_rate=1.0)
                with pytest.raises(TimeoutError):
                    await http.post(f"{service.url}/sdapi/v1/txt2img", json={}, timeout=aiohttp.ClientTimeout(0.1))

            async def executed() -> int:
                return sum(effect.type == "started" for effect in service.effects.effects)

            async def busy() -> int:
                return service.work.busy

            prompt = {"prompt": "a lighthouse", "width": 64, "height": 64, "steps": 10}
            yield ConnectorHarness(
                build=connector,
                unreachable=lambda: build("a1111-http", url=NOWHERE),
                quick=Work(kind="a1111.txt2img", payload=prompt),
                slow=Work(kind="a1111.txt2img", payload={**prompt, "steps": 10_000}),
                wrong=Work(kind="a1111.txt2img", payload={"prompt": 7}),
                remembers=False,
                executed=executed,
                busy=busy,
                cut=turn(drop_rate=1.0),
                hang=turn(hang_rate=1.0),
                sick=turn(gpu_lost_rate=1.0),
                full=full,
            )
            service.work.state.interrupted = True
            service.work.state.wake.set()
