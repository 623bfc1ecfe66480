"""A worker serves its kinds wherever they were put."""

import asyncio
from typing import Any

import hostler
from hostler.contracts.queue import KindSpec, QueueSpec
from hostler.testing.fabric import Fabric
from hostler.testing.wire import Wire


@hostler.handler("q.task")
async def task(call: hostler.Call[Any]) -> Any:
    return call.payload


@hostler.handler("q.paced")
async def paced(call: hostler.Call[Any]) -> None:
    await asyncio.sleep(0.005)  # not waiting: the work itself


async def test_a_job_that_was_put_in_another_queue_than_its_kinds_own_is_run(fabric: Fabric) -> None:
    await fabric.ports.foreman.declare_queue(QueueSpec(name="elsewhere"))
    async with fabric.worker(task):
        assert await fabric.result(await fabric.submit("q.task", 1, queue="elsewhere")) == 1


async def test_a_queue_that_is_made_while_the_worker_lives_is_served_within_seconds(fabric: Fabric) -> None:
    async with fabric.worker(task):
        await fabric.ports.foreman.declare_queue(QueueSpec(name="later"))
        assert await fabric.result(await fabric.submit("q.task", 2, queue="later"), within=5) == 2
        (record,) = await fabric.ports.registry.workers()
        assert record.queues == ("default", "later")


async def test_a_worker_that_its_own_queue_keeps_busy_serves_the_others_as_well_but_seldom_asks_in_vain(
    fabric: Fabric,
) -> None:
    wire = Wire()
    await fabric.ports.foreman.declare_queue(QueueSpec(name="elsewhere"))
    await fabric.ports.foreman.declare_kind(KindSpec(name="q.paced"))
    jobs = [await fabric.submit("q.paced") for _ in range(250)]
    other = await fabric.submit("q.paced", queue="elsewhere")
    async with fabric.worker(paced, broker=wire.to(fabric.ports.broker), slots=1):
        await fabric.result(other)
        assert (await fabric.get(jobs[-1])).state == "ready"
        for job in jobs:
            await fabric.ended(job, within=30)
    asked = [args[0].queue for verb, args, _ in wire.calls if verb == "claim"]
    assert asked.count("elsewhere") < asked.count("default") / 4
