"""Workers on a queue in shards, on a real engine: all of it is served, and each key by one at a time."""

import asyncio
from collections import Counter
from typing import Any

import hostler
from hostler.contracts.queue import QueueSpec
from hostler.testing.engine_fabric import fabric_on
from hostler.valkeyio.engine import Engine

SHARDED = QueueSpec(name="default", shards=3)


async def test_workers_serve_all_shards_within_their_slots_and_a_key_one_job_at_a_time(engine: Engine) -> None:
    running: Counter[str] = Counter()
    most: Counter[str] = Counter()
    order: dict[str, list[int]] = {}

    def begun(name: str) -> None:
        running[name] += 1
        most[name] = max(most[name], running[name])

    @hostler.handler("s.task")
    async def task(call: hostler.Call[Any]) -> None:
        key, number = call.payload
        names = ("all", key)
        for name in names:
            begun(name)
        order.setdefault(key, []).append(number)
        await asyncio.sleep(0.002)  # not waiting: the work itself
        for name in names:
            running[name] -= 1

    async with fabric_on(engine) as fabric:
        await fabric.ports.foreman.declare_queue(SHARDED)
        async with fabric.worker(task, slots=2), fabric.worker(task, slots=2):
            jobs = [
                await fabric.submit("s.task", [f"k{number % 8}", number], concurrency_key=f"k{number % 8}")
                for number in range(64)
            ]
            for job in jobs:
                await fabric.result(job, within=60)
        stats = await fabric.ports.foreman.stats("default")
    assert most.pop("all") <= 4
    assert set(most.values()) == {1}
    assert {key: sorted(numbers) for key, numbers in order.items()} == order
    assert [shard.totals["claimed"] for shard in stats.shards] == [shard.totals["submitted"] for shard in stats.shards]
    assert all(shard.totals["submitted"] for shard in stats.shards)


async def test_a_worker_serves_shards_that_come_while_it_lives(engine: Engine) -> None:
    @hostler.handler("s.plain")
    async def plain(call: hostler.Call[Any]) -> Any:
        return call.payload

    async with fabric_on(engine) as fabric, fabric.worker(plain) as worker:
        await fabric.result(await fabric.submit("s.plain", 0))
        await fabric.ports.foreman.declare_queue(QueueSpec(name="default", shards=4, key_shards=1))
        jobs: list[str] = []
        while {job.rpartition(".")[0] for job in jobs} != {"default", "default~1", "default~2", "default~3"}:
            jobs.append(await fabric.submit("s.plain", len(jobs)))  # whoever submits hears of it within a second
        assert [await fabric.result(job, within=30) for job in jobs] == list(range(len(jobs)))
        (record,) = await fabric.ports.registry.workers()
        assert (record.id, record.queues) == (worker.id, ("default",)), "it serves a queue, whatever shards that has"
