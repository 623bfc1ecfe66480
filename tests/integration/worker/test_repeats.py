"""A service that fails everything is not buried under repeats, and all its jobs are done once it is well again."""

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime, timedelta

import pytest

from hostler.connectors.catalogue import build
from hostler.contracts.job import Job
from hostler.contracts.queue import KindSpec, RetryPolicy
from hostler.policy.budget import FLOOR, SHARE, SPAN
from hostler.testing.eventually import eventually
from hostler.testing.fabric import Fabric
from hostler.testing.sims.effects import Effect
from hostler.testing.sims.http import SimulationHTTPService
from hostler.testing.sims.knobs import SimKnobs

SICK = SimKnobs(duration=0.02, steps=2, slots=16, failures={"internal_error": 1.0})
WELL = SimKnobs(duration=0.02, steps=2, slots=16)
IMPATIENT = KindSpec(
    name="image.generate", queue="image", service="simulation", retry=RetryPolicy(attempts=5, base=0.02, cap=0.05)
)
"""Without a budget all tries are over within a fraction of a second."""
JOBS = 60


def started(services: list[SimulationHTTPService]) -> list[tuple[datetime, bool]]:
    """Return when work was begun, by the services' own logs, and whether that was a repeat."""
    effects = [effect for service in services for effect in _starts(service)]
    seen: set[str] = set()
    found: list[tuple[datetime, bool]] = []
    for effect in sorted(effects, key=lambda effect: effect.at):
        found.append((effect.at, effect.job in seen))
        seen.add(effect.job)
    return found


def over_budget(starts: list[tuple[datetime, bool]]) -> list[datetime]:
    """Return when there were more repeats than the budget has; its span is reckoned in whole seconds."""
    shorter, longer = timedelta(seconds=SPAN - 1), timedelta(seconds=SPAN + 1)
    return [
        now
        for now, _ in starts
        if sum(again for at, again in starts if now - shorter < at <= now)
        > FLOOR * SPAN + SHARE * sum(not again for at, again in starts if now - longer < at <= now)
    ]


@asynccontextmanager
async def storm(fabric: Fabric) -> AsyncGenerator[tuple[list[SimulationHTTPService], list[str]]]:
    """Let a service of three endpoints fail every job until each was put off."""
    await fabric.ports.foreman.declare_kind(IMPATIENT)
    async with AsyncExitStack() as stack:
        services = [await stack.enter_async_context(SimulationHTTPService(SICK)) for _ in range(3)]
        connectors = [build("simulation-http", url=service.url) for service in services]
        await stack.enter_async_context(fabric.worker(connectors=connectors, slots=48))
        jobs = [await fabric.submit("image.generate", {"prompt": "a lighthouse"}) for _ in range(JOBS)]

        async def put_off() -> bool:
            found = [await fabric.get(job) for job in jobs]
            return all(job.state == "scheduled" and _used_up(job) for job in found)

        await eventually(put_off, within=20.0)
        yield services, jobs


def _used_up(job: Job) -> bool:
    return job.error is not None and "the retry budget of simulation is used up: again in" in job.error.message


async def test_a_service_that_fails_everything_gets_no_more_repeats_than_its_budget_and_no_job_dies_of_that(
    fabric: Fabric,
) -> None:
    async with storm(fabric) as (services, jobs):
        starts = started(services)
        found = [await fabric.get(job) for job in jobs]
    assert FLOOR * SPAN <= sum(again for _, again in starts) <= FLOOR * SPAN + SHARE * JOBS
    assert over_budget(starts) == []
    assert {job.error.class_ for job in found if job.error is not None} == {"transient"}
    tried = {job: sum(effect.job == job for service in services for effect in _starts(service)) for job in jobs}
    assert {job.id: sum(each.counted for each in job.attempts) for job in found} == tried


@pytest.mark.long
async def test_every_job_is_done_soon_after_such_a_service_is_well_again(fabric: Fabric) -> None:
    async with storm(fabric) as (services, jobs):
        for service in services:
            service.knobs = WELL
        ended = [await fabric.ended(job, within=30.0) for job in jobs]
    assert {job.state for job in ended} == {"succeeded"}


def _starts(service: SimulationHTTPService) -> list[Effect]:
    return [effect for effect in service.effects.after(0) if effect.type == "started"]


async def test_a_few_failures_are_repeated_as_soon_as_ever(fabric: Fabric) -> None:
    await fabric.ports.foreman.declare_kind(IMPATIENT)
    async with (
        SimulationHTTPService(SICK) as sick,
        SimulationHTTPService(WELL) as well,
        fabric.worker(connectors=[build("simulation-http", url=one.url) for one in (sick, well)], slots=8),
    ):
        jobs = [await fabric.submit("image.generate", {"prompt": "a lighthouse"}) for _ in range(8)]
        ended = [await fabric.ended(job, within=5.0) for job in jobs]
    assert {job.state for job in ended} == {"succeeded"}
    assert all(each.counted for job in ended for each in job.attempts)
