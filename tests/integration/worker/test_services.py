"""A worker drives a simulated service over real HTTP: submit, follow, reconcile, cancel, and an endpoint that fails."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from hostler.connectors.catalogue import build
from hostler.contracts.queue import QueueSpec
from hostler.contracts.timeouts import Timeouts
from hostler.testing.eventually import eventually
from hostler.testing.fabric import Fabric
from hostler.testing.sims.http import SimulationHTTPService
from hostler.testing.sims.knobs import SimKnobs
from hostler.testing.wire import Wire

IMAGE = {"prompt": "a lighthouse"}


@pytest.fixture
async def service() -> AsyncIterator[SimulationHTTPService]:
    async with SimulationHTTPService(SimKnobs(duration=0.2, steps=4)) as service:
        yield service


def connector(service: SimulationHTTPService) -> Any:
    return build("simulation-http", url=service.url)


def begun(service: SimulationHTTPService, job: str) -> int:
    return sum(1 for effect in service.effects.after(0) if effect.job == job and effect.type == "started")


@pytest.mark.row("000:15")
async def test_a_job_runs_over_http_through_worker_transport_and_connector_and_gives_the_services_result(
    fabric: Fabric, service: SimulationHTTPService
) -> None:
    async with fabric.worker(connectors=[connector(service)]):
        job = await fabric.submit("image.generate", IMAGE)
        result = await fabric.result(job)
        assert isinstance(result, dict)
        assert begun(service, job) == 1
        found = await fabric.get(job)
        assert found.service == "simulation"
        fractions = [event.data["fraction"] for event in await fabric.events(job) if "fraction" in event.data]
        assert fractions == sorted(fractions)
        assert fractions


@pytest.mark.row("001:77")
async def test_the_next_worker_picks_up_work_that_the_service_already_does_and_nothing_runs_twice(
    fabric: Fabric, service: SimulationHTTPService
) -> None:
    service.knobs = SimKnobs(duration=3.0, steps=30)
    async with fabric.worker(connectors=[connector(service)]) as first:
        job = await fabric.submit("image.generate", IMAGE)
        await eventually(lambda: begun(service, job) == 1)
        await eventually(lambda: _remote(fabric, job))
        first.drain(at_once=True)
        await eventually(lambda: first.state == "stopped")
    assert (await fabric.get(job)).state == "ready"
    async with fabric.worker(connectors=[connector(service)]):
        await fabric.result(job)
    assert begun(service, job) == 1


async def _remote(fabric: Fabric, job: str) -> bool:
    return any(event.type == "progress" for event in await fabric.events(job))


async def test_a_worker_that_lost_its_lease_leaves_the_work_to_the_one_that_has_it(
    fabric: Fabric, service: SimulationHTTPService
) -> None:
    await fabric.ports.foreman.declare_queue(QueueSpec(name="image", lease=0.4))
    service.knobs = SimKnobs(duration=4.0, steps=40)
    wire = Wire()
    async with fabric.worker(connectors=[connector(service)], broker=wire.to(fabric.ports.broker), id="first") as first:
        job = await fabric.submit("image.generate", IMAGE)
        await eventually(lambda: _remote(fabric, job))
        wire.cut = True
        async with fabric.worker(connectors=[connector(service)], id="second"):
            await eventually(lambda: _held_by(fabric, job, "second"), within=15)
            wire.cut = False
            await eventually(lambda: first.jobs == ())
            await fabric.result(job, within=20)
    assert begun(service, job) == 1
    assert [event.type for event in await fabric.events(job)].count("finish") == 1


async def _held_by(fabric: Fabric, job: str, worker: str) -> bool:
    found = await fabric.get(job)
    return found.state == "running" and found.worker == worker


async def test_a_cancel_reaches_the_service(fabric: Fabric, service: SimulationHTTPService) -> None:
    service.knobs = SimKnobs(duration=60.0)
    async with fabric.worker(connectors=[connector(service)]):
        job = await fabric.submit("image.generate", IMAGE)
        await eventually(lambda: begun(service, job) == 1)
        await fabric.ports.desk.cancel(job, operation="c")
        assert (await fabric.ended(job)).state == "cancelled"
        await eventually(lambda: any(effect.type == "cancelled" for effect in service.effects.after(0)))


async def test_work_that_hangs_ends_at_the_idle_timeout_and_is_cancelled_at_the_service(
    fabric: Fabric, service: SimulationHTTPService
) -> None:
    service.knobs = SimKnobs(duration=0.4, hang_rate=1.0)
    async with fabric.worker(connectors=[connector(service)], broker=fabric.ports.broker) as worker:
        job = await fabric.submit("image.generate", IMAGE, timeouts=Timeouts(idle=0.5))
        await eventually(lambda: _failed_once(fabric, job), within=15)
        failed = (await fabric.get(job)).attempts[0]
        assert failed.error is not None
        assert failed.error.label == "timeout:idle"
        await eventually(lambda: any(effect.type == "cancelled" for effect in service.effects.after(0)))
        await fabric.ports.desk.cancel(job, operation="c")
        await eventually(lambda: worker.jobs == (), within=15)


async def _failed_once(fabric: Fabric, job: str) -> bool:
    return len((await fabric.get(job)).attempts) > 0


@pytest.mark.row("000:62")
async def test_nothing_is_claimed_for_an_endpoint_that_is_down_while_others_are_served(
    fabric: Fabric, service: SimulationHTTPService
) -> None:
    async with SimulationHTTPService(SimKnobs(duration=0.1, steps=2)) as other:
        down = build("simulation-http", url=other.url)
    async with fabric.worker(connectors=[down, connector(service)]) as worker:
        (record,) = await fabric.ports.registry.workers()
        assert [offer.healthy for offer in record.offers] == [False, True]
        jobs = [await fabric.submit("image.generate", IMAGE) for _ in range(5)]
        for job in jobs:
            await fabric.result(job)
            assert begun(service, job) == 1
        service.knobs = SimKnobs(duration=0.1, health_failure_rate=1.0)
        await eventually(lambda: _healthy(fabric, 0))
        waiting = await fabric.submit("image.generate", IMAGE)
        service.knobs = SimKnobs(duration=0.1)
        await fabric.result(waiting)
        assert worker.state in {"ready", "busy"}


async def _healthy(fabric: Fabric, count: int) -> bool:
    (record,) = await fabric.ports.registry.workers()
    return sum(offer.healthy for offer in record.offers) == count


async def test_a_worker_whose_only_endpoint_is_down_is_ready_and_its_job_waits_visibly(fabric: Fabric) -> None:
    async with SimulationHTTPService() as gone:
        down = build("simulation-http", url=gone.url)
    async with fabric.worker(connectors=[down]) as worker:
        assert worker.state == "ready"
        job = await fabric.submit("image.generate", IMAGE)
        explanation = await fabric.ports.desk.explain(job)
        assert [need.key for need in explanation.needs] == ["healthy"]


@pytest.mark.row("002:189")
async def test_an_endpoint_never_gets_more_than_its_slots(fabric: Fabric) -> None:
    async with (
        SimulationHTTPService(SimKnobs(duration=0.1, steps=2, slots=2)) as small,
        fabric.worker(connectors=[connector(small)], slots=8),
    ):
        jobs = [await fabric.submit("image.generate", IMAGE) for _ in range(8)]
        for job in jobs:
            found = await fabric.ended(job)
            assert found.state == "succeeded"
            assert found.attempts == ()
