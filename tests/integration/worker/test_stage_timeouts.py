"""A stage of a job that takes too long: work is stopped at the service, and the job is tried again by its policy."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from urllib.parse import urlsplit

import pytest

from hostler.chaos.proxy import FaultProxy, Weather
from hostler.connectors.catalogue import build
from hostler.connectors.config import ConnectorConfig
from hostler.connectors.services.simulation.simulation_http import SimulationHttpConnector
from hostler.contracts.failure import Stage
from hostler.contracts.job import Job, JobState, Progress
from hostler.contracts.service import RemoteRef, ServiceCall, Step
from hostler.contracts.timeouts import Timeouts
from hostler.testing.eventually import eventually
from hostler.testing.fabric import Fabric
from hostler.testing.sims.http import SimulationHTTPService
from hostler.testing.sims.knobs import SimKnobs

LIMIT = 0.4
STAGES = {
    Stage.LOAD: Timeouts(load=LIMIT),
    Stage.FIRST_BYTE: Timeouts(first_byte=LIMIT),
    Stage.IDLE: Timeouts(idle=LIMIT),
    Stage.RUN: Timeouts(run=LIMIT),
}


class Stalls(SimulationHttpConnector):
    """Hears nothing more from one stage on, the first time; the service works all the while."""

    def __init__(self, url: str, stage: Stage) -> None:
        super().__init__(ConnectorConfig(url=url, endpoint=url))
        self._stage: Stage | None = stage

    async def observe(self, call: ServiceCall, ref: RemoteRef) -> AsyncGenerator[Step]:
        if self._stage is Stage.LOAD:
            yield Progress(stage="loading")
        if self._stage in (Stage.LOAD, Stage.FIRST_BYTE):
            await self._stall()
        async for step in super().observe(call, ref):
            yield step
            if self._stage is Stage.IDLE:
                await self._stall()

    async def _stall(self) -> None:
        self._stage = None
        await asyncio.Event().wait()


@pytest.fixture
async def service() -> AsyncIterator[SimulationHTTPService]:
    async with SimulationHTTPService(SimKnobs(duration=60.0, steps=600)) as service:
        yield service


def effects(service: SimulationHTTPService, job: str) -> list[str]:
    return [effect.type for effect in service.effects.after(0) if effect.job == job]


@pytest.mark.row("001:335")
@pytest.mark.parametrize("stage", STAGES)
async def test_a_stage_that_takes_too_long_is_stopped_at_the_service_and_the_job_tried_again(
    fabric: Fabric, service: SimulationHTTPService, stage: Stage
) -> None:
    async with fabric.worker(connectors=[Stalls(service.url, stage)]):
        job = await fabric.submit("image.generate", {"prompt": "a lighthouse"}, timeouts=STAGES[stage])
        await eventually(lambda: effects(service, job) == ["started"], within=10)
        service.knobs = SimKnobs(duration=0.1, steps=2)
        ended = await fabric.ended(job)
    tried_again(service, ended, stage)


@pytest.mark.row("001:335")
async def test_work_that_nobody_confirmed_in_time_is_taken_over_by_the_next_attempt_instead_of_done_twice(
    fabric: Fabric, service: SimulationHTTPService
) -> None:
    service.knobs = SimKnobs(duration=1.0, steps=4)
    place = urlsplit(service.url)
    async with FaultProxy((place.hostname or "", place.port or 0)) as proxy:
        there = build("simulation-http", url=f"http://127.0.0.1:{proxy.port}")
        async with fabric.worker(connectors=[there]):
            proxy.set(down=Weather(lost=True))
            job = await fabric.submit("image.generate", {"prompt": "a lighthouse"}, timeouts=Timeouts(connect=LIMIT))
            await eventually(lambda: failed_once(fabric, job), within=10)
            proxy.heal()
            ended = await fabric.ended(job, within=30)
    assert ended.state is JobState.SUCCEEDED
    assert [attempt.error.label for attempt in ended.attempts[:1] if attempt.error] == ["timeout:connect"]
    assert ended.attempt > 1
    done = effects(service, job)
    assert (done.count("started"), done.count("adopted"), done.count("finished")) == (1, 1, 1)


async def failed_once(fabric: Fabric, job: str) -> bool:
    return len((await fabric.get(job)).attempts) > 0


def tried_again(service: SimulationHTTPService, ended: Job, stage: Stage) -> None:
    assert ended.state is JobState.SUCCEEDED
    (first,) = ended.attempts
    assert ended.attempt == 2
    assert first.error is not None
    assert (first.error.label, first.counted) == (f"timeout:{stage}", True)
    assert effects(service, ended.id) == ["started", "cancelled", "started", "finished"]
