"""One service, several protocols: the worker, the events and the result are the same whatever carries the work."""

import asyncio
from itertools import groupby
from typing import Any

import pytest

from hostler.connectors.catalogue import build
from hostler.contracts.timeouts import Timeouts
from hostler.testing.eventually import eventually
from hostler.testing.fabric import Fabric
from hostler.testing.sims.grpc import SimulationGRPCService
from hostler.testing.sims.http import SimulationHTTPService
from hostler.testing.sims.knobs import SimKnobs
from hostler.testing.sims.websocket import SimulationWebsocketService

IMAGE = {"prompt": "a lighthouse", "seed": 7, "duration": 0.3, "steps": 6}


async def story(fabric: Fabric, connector: Any) -> tuple[list[str], str, Any]:
    """Return the kinds of events of one job, its state at the end, and its result."""
    async with fabric.worker(connectors=[connector]):
        job = await fabric.submit("image.generate", IMAGE)
        result = await fabric.result(job)
        kinds = [kind for kind, _ in groupby(event.type for event in await fabric.events(job))]
        return kinds, (await fabric.get(job)).state, result


@pytest.mark.row("000:20", "001:203")
async def test_the_same_job_has_the_same_states_events_and_result_over_a_websocket_as_over_http(fabric: Fabric) -> None:
    async with SimulationHTTPService(SimKnobs()) as plain, SimulationWebsocketService(SimKnobs()) as sockets:
        over_http = await story(fabric, build("simulation-http", url=plain.url))
        over_websocket = await story(fabric, build("simulation-websocket", url=sockets.url))
    assert over_websocket == over_http
    assert "progress" in over_http[0]
    assert [(effect.type, effect.fence) for effect in sockets.effects.effects] == [
        (effect.type, effect.fence) for effect in plain.effects.effects
    ]


@pytest.mark.row("001:199")
async def test_a_socket_that_drops_mid_job_costs_no_attempt_and_the_job_succeeds_once(fabric: Fabric) -> None:
    async with SimulationWebsocketService(SimKnobs(drop_rate=1.0, slots=8)) as service:
        connector = build("simulation-websocket", url=service.url, options={"poll": 0.1})
        async with fabric.worker(connectors=[connector], slots=8):
            jobs = [await fabric.submit("image.generate", IMAGE) for _ in range(4)]
            await asyncio.gather(*(fabric.result(job, within=20) for job in jobs))
            for job in jobs:
                assert (await fabric.get(job)).attempts == ()
                assert [event.type for event in await fabric.events(job)].count("finish") == 1
        started = [effect.job for effect in service.effects.effects if effect.type == "started"]
    assert sorted(started) == sorted(jobs)
    assert service.sockets > 1


@pytest.mark.row("001:199")
async def test_the_next_worker_takes_over_what_the_service_does_over_a_socket(fabric: Fabric) -> None:
    async with SimulationWebsocketService(SimKnobs()) as service:
        async with fabric.worker(connectors=[build("simulation-websocket", url=service.url)]) as first:
            job = await fabric.submit("image.generate", {**IMAGE, "duration": 2.0, "steps": 20})
            await eventually(lambda: moves(fabric, job))
            first.drain(at_once=True)
        async with fabric.worker(connectors=[build("simulation-websocket", url=service.url)]):
            await fabric.result(job)
        kinds = [effect.type for effect in service.effects.effects]
    assert kinds.count("started") == 1
    assert "adopted" in kinds


@pytest.mark.row("000:20", "001:200", "001:203")
async def test_the_same_job_has_the_same_states_events_and_result_over_grpc_as_over_http(fabric: Fabric) -> None:
    async with SimulationHTTPService(SimKnobs()) as plain, SimulationGRPCService(SimKnobs()) as service:
        over_http = await story(fabric, build("simulation-http", url=plain.url))
        over_grpc = await story(fabric, build("simulation-grpc", url=service.url))
    assert over_grpc == over_http
    assert [effect.type for effect in service.effects.effects] == ["started", "finished"]


@pytest.mark.row("001:200", "001:290")
async def test_the_cancel_and_the_limit_of_a_job_reach_the_service_over_grpc(fabric: Fabric) -> None:
    async with SimulationGRPCService(SimKnobs(duration=60.0)) as service:

        def ends(job: str) -> list[str]:
            return [effect.type for effect in service.effects.effects if effect.job == job]

        async with fabric.worker(connectors=[build("simulation-grpc", url=service.url)]):
            job = await fabric.submit("image.generate", {"prompt": "a lighthouse"})
            await eventually(lambda: moves(fabric, job))
            await fabric.ports.desk.cancel(job, operation="c")
            assert (await fabric.ended(job)).state == "cancelled"
            await eventually(lambda: ends(job) == ["started", "cancelled"])
            limited = await fabric.submit(
                "image.generate",
                {"prompt": "a lighthouse"},
                timeouts=Timeouts(run=0.5),
            )
            await eventually(lambda: ends(limited) == ["started", "cancelled"])
        await eventually(lambda: service.watchers == 0)


async def moves(fabric: Fabric, job: str) -> bool:
    return any(event.type == "progress" for event in await fabric.events(job))
