"""What is promised of order and spread holds whichever gateway a job came by and whichever worker asks."""

from contextlib import AsyncExitStack
from typing import Any

import msgspec
from tests.integration.gateway.conftest import House, Opening

from hostler.connectors.catalogue import build
from hostler.testing.engine_fabric import fabric_on
from hostler.testing.fabric import Fabric
from hostler.testing.sims.effects import Effect
from hostler.testing.sims.http import SimulationHTTPService
from hostler.testing.sims.knobs import SimKnobs
from hostler.valkeyio.engine import Engine

SLOW = SimKnobs(duration=0.5, steps=2, slots=1)


def started(service: SimulationHTTPService) -> list[Effect]:
    return [effect for effect in service.effects.effects if effect.type == "started"]


async def submit(house: House, value: int, priority: int) -> str:
    body: dict[str, Any] = {"kind": "sim.echo", "payload": {"value": value}, "priority": priority}
    answer = await house.ask("POST", "/v1/jobs", json=body)
    assert answer.status == 201, answer.body
    return msgspec.convert(answer.json["id"], str)


async def test_priority_and_spread_hold_across_gateways_and_workers(engine: Engine, opening: Opening) -> None:
    async with AsyncExitStack() as stack:
        gateways = [await stack.enter_async_context(opening(engine)) for _ in range(2)]
        services = [await stack.enter_async_context(SimulationHTTPService(SLOW)) for _ in range(2)]
        fabrics: list[Fabric] = []
        for service in services:
            fabrics.append(await stack.enter_async_context(fabric_on(engine)))
            connector = build("simulation-http", url=service.url, options={"poll": 0.05})
            await stack.enter_async_context(fabrics[-1].worker(connectors=[connector], slots=4))
        assert (await gateways[0].ask("POST", "/v1/queues/image/pause", json={"reason": "not yet"})).status < 300
        waiting = [await submit(gateways[number % 2], number, 10) for number in range(8)]
        urgent = [await submit(gateways[1 - number], number, 90) for number in range(2)]
        assert (await gateways[1].ask("POST", "/v1/queues/image/resume", json={})).status < 300
        for job in (*waiting, *urgent):
            await fabrics[0].result(job, within=60.0)
        begun = sorted((effect.at, effect.job) for service in services for effect in started(service))
        assert {job for _, job in begun[:2]} == set(urgent)
        assert min(len(started(service)) for service in services) > 1
