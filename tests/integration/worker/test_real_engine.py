"""Workers on a real engine that is killed under them, and through hundreds of starts, stops and faults."""

import asyncio
import os
import random
import signal
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import hostler
from hostler.chaos.check import Submission, check
from hostler.contracts.event import Event
from hostler.contracts.job import JobRequest
from hostler.contracts.queue import KindSpec, QueueSpec, RetryPolicy
from hostler.kernel.errors import EngineError
from hostler.kernel.settings import EngineSettings
from hostler.ports.broker import Broker
from hostler.ports.registry import Registry
from hostler.testing.engine_fabric import link_to, opened
from hostler.testing.eventually import eventually
from hostler.testing.fabric import Fabric, Ports
from hostler.testing.wire import Wire
from hostler.valkeyio.engine import Engine
from hostler.worker.heartbeat import Tempo
from hostler.worker.worker import Worker

QUEUE = "r"
PATIENT = RetryPolicy(attempts=1000, crashes=1000)
IDLE_LIMIT = 5.0


@hostler.handler("r.paced", queue=QUEUE, retry=PATIENT)
async def paced(call: hostler.Call[Any]) -> int:
    for step in range(5):
        call.progress(fraction=step / 5)
        await asyncio.sleep(0.05)  # not waiting: the work itself
    return call.fence


@hostler.handler("r.brief", queue=QUEUE, retry=PATIENT)
async def brief(call: hostler.Call[Any]) -> None:
    await asyncio.sleep(0.002)  # not waiting: the work itself


async def submitted(fabric: Fabric, kind: str, count: int, *, operation: str) -> list[Submission]:
    requests = [JobRequest(kind=kind, queue=QUEUE) for _ in range(count)]
    answers = await fabric.ports.desk.submit(requests, operation=operation)
    return [
        Submission(id=answer.id, request=request)
        for answer, request in zip(answers, requests, strict=True)
        if not isinstance(answer, Exception)
    ]


async def all_events(fabric: Fabric) -> list[Event]:
    found: list[Event] = []
    while (page := await fabric.ports.desk.events(QUEUE, after=found[-1].offset if found else 0)).events:
        assert not page.gap
        found.extend(page.events)
    return found


async def judge(fabric: Fabric, told: Sequence[Submission]) -> None:
    """Every job succeeded, each was recorded once, under the fence that it ran with, and the books are right."""
    jobs = {each.id: await fabric.ended(each.id, within=60) for each in told}
    assert {job.state.value for job in jobs.values()} == {"succeeded"}
    events = await all_events(fabric)
    finished = [event.job for event in events if event.type == "finish" and event.job is not None]
    assert sorted(finished) == sorted(jobs)
    audit = await fabric.ports.foreman.audit(QUEUE)
    stats = await fabric.ports.foreman.stats(QUEUE)
    verdict = check(events, submitted=told, final=jobs, stats=stats, audit=audit)
    assert verdict.clean, verdict


@pytest.mark.timeout(120)
@pytest.mark.row("000:62", "001:158")
async def test_jobs_survive_the_kill_of_the_engine_under_running_workers_and_none_is_recorded_twice(
    data_folder: Path,
) -> None:
    settings = EngineSettings(data=str(data_folder))
    async with opened(settings) as (engine, ports):
        fabric = Fabric(ports)
        await ports.foreman.declare_queue(QueueSpec(name=QUEUE, lease=3.0))
        await ports.foreman.declare_kind(KindSpec(name="r.paced", queue=QUEUE, retry=PATIENT))
        told = await submitted(fabric, "r.paced", 120, operation="s")
        assert len(told) == 120
        async with (
            fabric.worker(paced, slots=6, link=link_to(settings), id="one"),
            fabric.worker(paced, slots=6, link=link_to(settings), id="two"),
        ):
            for _ in range(3):
                done = (await ports.foreman.stats(QUEUE)).totals["succeeded"]
                await eventually(lambda done=done: more_done(ports, done), within=30)
                killed = (await engine.command("INFO", "server"))["process_id"]
                os.kill(killed, signal.SIGKILL)
                await eventually(lambda killed=killed: another_serves(engine, killed), within=30)
                await engine.until_available(30)
            await judge(fabric, told)
            assert sorted(each.id for each in await ports.registry.workers()) == ["one", "two"]


async def another_serves(engine: Engine, killed: int) -> bool:
    """Tell whether another process answers than the one that was killed; that it was down may go unnoticed here."""
    try:
        return (await engine.command("INFO", "server"))["process_id"] != killed
    except EngineError:
        return False


async def more_done(ports: Ports, before: int) -> bool:
    stats = await ports.foreman.stats(QUEUE)
    return stats.running > 0 and stats.totals["succeeded"] > before


class Fleet:
    """Workers that come, go and break, each at the end of a wire of its own."""

    def __init__(self, fabric: Fabric, dice: random.Random) -> None:
        self._fabric = fabric
        self._dice = dice
        self._count = 0
        self.workers: dict[str, tuple[Worker, Wire, AsyncExitStack]] = {}

    async def start(self) -> None:
        self._count += 1
        name, wire, stack = f"w{self._count}", Wire(), AsyncExitStack()
        ports = self._fabric.ports
        broker: Broker = wire.to(ports.broker)
        registry: Registry = wire.to(ports.registry)

        @asynccontextmanager
        async def link() -> AsyncGenerator[tuple[Broker, Registry]]:
            yield broker, registry

        own = Fabric(Ports(broker=broker, desk=ports.desk, foreman=ports.foreman, registry=registry))
        worker = await stack.enter_async_context(
            own.worker(brief, id=name, slots=2, idle_poll=3.0, ttl=1.0, tempo=Tempo(beat=0.2, ttl=1.0))
        )
        self.workers[name] = (worker, wire, stack)

    async def stop(self, name: str) -> None:
        await self.workers.pop(name)[2].aclose()

    async def fault(self) -> None:
        """Do one thing that happens to a fleet."""
        name = self._dice.choice(sorted(self.workers))
        worker, wire, _ = self.workers[name]
        match self._dice.randrange(6):
            case 0:
                await self.start()
                await self.stop(name)
            case 1:
                wire.lose["claim"] = self._dice.randint(1, 3)
            case 2:
                wire.lose["settle"] = self._dice.randint(1, 3)
            case 3:
                wire.drops = self._dice.randint(1, 6)
            case 4:
                worker.pause()
                worker.resume()
            case _:
                await self._fabric.ports.registry.withdraw(name)  # as if its lease had lapsed

    def idle(self) -> bool:
        return any(worker.state == "ready" for worker, _, _ in self.workers.values())

    async def end(self) -> None:
        for name in tuple(self.workers):
            await self.stop(name)


class Watch:
    """How long a ready job and an idle worker were seen beside each other, without a break."""

    def __init__(self, fabric: Fabric, fleet: Fleet) -> None:
        self._fabric = fabric
        self._fleet = fleet
        self.longest = 0.0
        self.looks = 0

    async def run(self) -> None:
        since: float | None = None
        while True:
            stats = await self._fabric.ports.foreman.stats(QUEUE)
            both = stats.ready > 0 and self._fleet.idle()
            now = time.monotonic()
            since = (since or now) if both else None
            self.longest = max(self.longest, 0.0 if since is None else now - since)
            self.looks += 1
            await asyncio.sleep(0.01)  # not waiting: how often it looks


@pytest.mark.timeout(400)
@pytest.mark.row("000:4")
@pytest.mark.parametrize("cycles", [150, pytest.param(1000, marks=pytest.mark.long)])
async def test_a_ready_job_and_an_idle_worker_never_stand_beside_each_other_through_starts_stops_and_faults(
    engine_settings: EngineSettings, cycles: int
) -> None:
    dice = random.Random(4)
    async with opened(engine_settings) as (_, ports):
        fabric = Fabric(ports)
        await ports.foreman.declare_queue(QueueSpec(name=QUEUE, lease=1.0))
        await ports.foreman.declare_kind(KindSpec(name="r.brief", queue=QUEUE, retry=PATIENT))
        fleet = Fleet(fabric, dice)
        told: list[Submission] = []
        watch = Watch(fabric, fleet)
        watching = asyncio.create_task(watch.run())
        try:
            await fleet.start()
            await fleet.start()
            for cycle in range(cycles):
                await fleet.fault()
                told += await submitted(fabric, "r.brief", dice.randint(1, 4), operation=f"s {cycle}")
                if cycle % 3 == 0:
                    await fabric.ended(told[-1].id, within=IDLE_LIMIT + 5)
            await judge(fabric, told)
            assert not watching.done()
            assert watch.looks > cycles / 4
            assert watch.longest < IDLE_LIMIT
        finally:
            watching.cancel()
            await fleet.end()


async def test_a_worker_that_the_registry_took_for_ended_is_listed_again_and_works_on(
    engine_settings: EngineSettings,
) -> None:
    async with opened(engine_settings) as (_, ports):
        fabric = Fabric(ports)
        async with fabric.worker(brief, id="w", link=link_to(engine_settings)):
            await ports.registry.withdraw("w")  # so a restored engine, or a second process of its name, leaves it

            async def listed() -> bool:
                return [each.id for each in await ports.registry.workers()] == ["w"]

            await eventually(listed, within=5)
            await fabric.result(await fabric.submit("r.brief"))
