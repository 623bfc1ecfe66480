"""Endpoints that hold one model at a time change when those who wait ask for it, not with every job."""

import asyncio
from itertools import pairwise
from typing import Any

import msgspec
import pytest

from hostler.connectors.catalogue import build
from hostler.contracts.needs import Needs
from hostler.dispatch.gauge import Gauge
from hostler.dispatch.repeats import Repeats
from hostler.policy.pressure import Line
from hostler.ports.connector import Connector
from hostler.ports.discovery import Placed
from hostler.registry.discovery import EngineDiscovery
from hostler.registry.endpoints import EngineEndpoints
from hostler.testing.engine_fabric import fabric_on
from hostler.testing.eventually import eventually
from hostler.testing.fabric import Fabric
from hostler.testing.sims.ollama import OllamaHTTPService
from hostler.testing.sims.ollama_knobs import OllamaKnobs
from hostler.valkeyio.engine import Engine
from hostler.valkeyio.keys import registry_key
from hostler.worker.station import Station
from hostler.worker.system import SystemClock, SystemDice

SMALL, LARGE = "sim-chat:latest", "sim-large:latest"
ONE_AT_A_TIME = OllamaKnobs(gpu_memory=400_000_000, load=0.15, first_token=0.01, token=0.001, tokens=5)


def connector(server: OllamaHTTPService, *, slots: int = 1) -> Connector:
    return build("ollama-http", url=server.url, slots=slots, options={"single": True})


async def chat(fabric: Fabric, model: str, *, who: str | None = None) -> str:
    payload = {"model": model, "messages": [{"role": "user", "content": "hello"}]}
    needs = Needs(models=(model,), labels={} if who is None else {"who": who})
    return await fabric.submit("chat.complete", payload, needs=needs)


def ran(server: OllamaHTTPService) -> list[str]:
    """Return the models that the server worked with, in order."""
    return [(effect.detail or "").split()[-1] for effect in server.effects.effects if effect.type == "started"]


def changes(models: list[str]) -> int:
    return sum(before != after for before, after in pairwise(models))


async def test_jobs_of_two_models_run_model_by_model_where_one_fits(fabric: Fabric) -> None:
    async with OllamaHTTPService(ONE_AT_A_TIME) as server:
        async with fabric.worker(connectors=[connector(server)], slots=1):
            jobs = [await chat(fabric, model) for _ in range(12) for model in (SMALL, LARGE)]
            for job in jobs:
                await fabric.result(job, within=60.0)
        assert len(ran(server)) >= len(jobs)
        assert changes(ran(server)) <= 3


async def test_a_model_that_is_asked_for_all_the_time_gives_way_once_its_stay_is_over(fabric: Fabric) -> None:
    async def ask_on() -> None:
        while True:
            await fabric.result(await chat(fabric, SMALL), within=60.0)

    async with OllamaHTTPService(ONE_AT_A_TIME) as server, asyncio.TaskGroup() as group:
        served = fabric.worker(connectors=[connector(server)], slots=1, dwell=0.2)
        async with served:
            askers = [group.create_task(ask_on()) for _ in range(8)]
            await eventually(lambda: len(ran(server)) >= 60, within=30.0)
            others = [await chat(fabric, LARGE) for _ in range(20)]
            await fabric.result(others[0], within=20.0)
            for asker in askers:
                asker.cancel()
            for job in others:
                await fabric.result(job, within=20.0)


async def test_two_endpoints_share_two_models_and_load_each_no_oftener_than_need_be(fabric: Fabric) -> None:
    async with OllamaHTTPService(ONE_AT_A_TIME) as one, OllamaHTTPService(ONE_AT_A_TIME) as two:
        async with fabric.worker(connectors=[connector(one), connector(two)], slots=2):
            jobs = [await chat(fabric, model) for _ in range(20) for model in (SMALL, LARGE)]
            for job in jobs:
                await fabric.result(job, within=60.0)
        assert min(len(ran(one)), len(ran(two))) > 0
        assert changes(ran(one)) + changes(ran(two)) <= 4


async def test_a_model_that_nobody_waits_for_is_no_reason_to_keep_a_job_waiting(fabric: Fabric) -> None:
    async with OllamaHTTPService(ONE_AT_A_TIME) as server:
        async with fabric.worker(connectors=[connector(server)], slots=1, dwell=3_600.0):
            for model in (SMALL, LARGE, SMALL, LARGE):
                await fabric.result(await chat(fabric, model), within=20.0)
        assert changes(ran(server)) == 3


@pytest.mark.timeout(120)
async def test_two_workers_in_front_of_one_endpoint_change_its_model_no_oftener_than_one(engine: Engine) -> None:
    discovery = EngineDiscovery(EngineEndpoints(engine), ())
    async with OllamaHTTPService(ONE_AT_A_TIME) as server, fabric_on(engine) as fabric:
        seldom: dict[str, Any] = {"slots": 1, "discovery": discovery, "probe_interval": 5.0}
        first = fabric.worker(id="w1", connectors=[connector(server)], **seldom)
        second = fabric.worker(id="w2", connectors=[connector(server)], **seldom)

        async def both_are_known() -> bool:
            packed = await engine.command("GET", registry_key(f"mem:{connector(server).endpoint}"))
            return packed is not None and len(msgspec.msgpack.decode(packed)[-1]) == len({"w1", "w2"})

        async with first, second:
            await eventually(both_are_known)
            who: set[str | None] = set()
            while who != {"w1", "w2"}:
                for job in [await chat(fabric, SMALL) for _ in range(4)]:
                    await fabric.result(job)
                    who.add((await fabric.get(job)).worker)
            jobs = [await chat(fabric, model) for _ in range(20) for model in (SMALL, LARGE)]
            for job in jobs:
                await fabric.result(job, within=60.0)
        assert changes(ran(server)) <= 4


@pytest.mark.timeout(120)
async def test_jobs_that_only_the_worker_can_take_that_does_not_decide_get_their_model_too(engine: Engine) -> None:
    discovery = EngineDiscovery(EngineEndpoints(engine), ())
    async with OllamaHTTPService(ONE_AT_A_TIME) as server, fabric_on(engine) as fabric:
        first = fabric.worker(id="w1", connectors=[connector(server)], discovery=discovery, labels={"who": "first"})
        second = fabric.worker(id="w2", connectors=[connector(server)], discovery=discovery, labels={"who": "second"})
        async with first, second:
            for model, who in ((SMALL, "first"), (LARGE, "second"), (SMALL, "first"), (LARGE, "second")):
                await fabric.result(await chat(fabric, model, who=who), within=30.0)
        assert changes(ran(server)) == 3


async def test_an_endpoint_that_is_to_change_its_model_takes_nothing_more_until_it_is_idle() -> None:
    clock = SystemClock()
    async with OllamaHTTPService(ONE_AT_A_TIME) as server, connector(server, slots=2) as endpoint:
        gauge = Gauge(clock=clock, dice=SystemDice(), first=4)
        station = Station(
            Placed(connector=endpoint, url=server.url),
            {},
            clock,
            gauge,
            Repeats("ollama", clock=clock, dice=SystemDice()),
        )
        await station.look()
        running = gauge.begin("chat.complete")
        gauge.memory.decide({LARGE: Line(waiting=1, oldest=1.0)}, station.offer.models)
        assert (gauge.memory.next, station.spared().pools["slots"].free) == (LARGE, 0.0)
        gauge.end(running, None)
        assert station.spared().pools["slots"].free == 2.0
