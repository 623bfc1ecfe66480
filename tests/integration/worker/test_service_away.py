"""A service that is away for a while: its breaker opens, jobs wait unharmed, and all of them end well after it."""

from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import pytest

from hostler.chaos.proxy import FaultProxy
from hostler.connectors.catalogue import build
from hostler.contracts.job import JobState
from hostler.contracts.service import BreakerMode
from hostler.contracts.timeouts import Timeouts
from hostler.testing.eventually import eventually
from hostler.testing.fabric import Fabric
from hostler.testing.sims.http import SimulationHTTPService
from hostler.testing.sims.knobs import SimKnobs
from hostler.worker.system import SystemClock

RUNNING, WAITING = 6, 6


@pytest.fixture
async def service() -> AsyncIterator[SimulationHTTPService]:
    async with SimulationHTTPService(SimKnobs(duration=1.0, steps=20, slots=RUNNING)) as service:
        yield service


async def breaker(fabric: Fabric) -> BreakerMode:
    (record,) = await fabric.ports.registry.workers()
    return record.endpoints[0].traffic.breaker


@pytest.mark.row("001:336")
@pytest.mark.timeout(120)
@pytest.mark.parametrize("away", [4.0, pytest.param(20.0, marks=pytest.mark.long)])
async def test_jobs_wait_for_a_service_that_is_away_and_none_of_them_pays_for_an_open_breaker(
    fabric: Fabric, service: SimulationHTTPService, away: float
) -> None:
    place = urlsplit(service.url)
    async with FaultProxy((place.hostname or "", place.port or 0)) as proxy:
        there = build("simulation-http", url=f"http://127.0.0.1:{proxy.port}")
        async with fabric.worker(connectors=[there]):
            timeouts = Timeouts(connect=1.0, first_byte=2.0, idle=2.0)
            jobs = [await fabric.submit("image.generate", {"prompt": "p"}, timeouts=timeouts) for _ in range(RUNNING)]
            await eventually(lambda: len(service.effects.after(0)) >= RUNNING, within=10)
            clock = SystemClock()
            proxy.reset(refusing=True)
            began = clock.now()
            await eventually(lambda: opened(fabric), within=15)
            jobs += [await fabric.submit("image.generate", {"prompt": "p"}, timeouts=timeouts) for _ in range(WAITING)]
            since = clock.now()
            await eventually(lambda: (clock.now() - began).total_seconds() >= away, within=away + 10, every=0.1)
            until = clock.now()
            for job in jobs[RUNNING:]:
                assert (await fabric.get(job)).state is JobState.READY
            proxy.heal()
            for job in jobs:
                ended = await fabric.ended(job, within=60)
                assert ended.state is JobState.SUCCEEDED
                events = await fabric.events(job)
                assert not [event for event in events if event.type == "claim" and since <= event.at <= until]
            await eventually(lambda: closed(fabric), within=30)
            assert [(await fabric.get(job)).attempts for job in jobs[RUNNING:]] == [()] * WAITING


async def opened(fabric: Fabric) -> bool:
    return await breaker(fabric) is BreakerMode.OPEN


async def closed(fabric: Fabric) -> bool:
    return await breaker(fabric) is BreakerMode.CLOSED
