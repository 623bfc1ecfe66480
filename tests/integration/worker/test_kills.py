"""Real worker processes on a real engine are killed and frozen in the middle of their work: nothing is lost."""

import asyncio
import os
import random
import signal
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from hostler.broker.desk import EngineDesk
from hostler.broker.engine import EngineBroker
from hostler.broker.foreman import EngineForeman
from hostler.chaos.check import Submission, check
from hostler.contracts.api import JobFilter
from hostler.contracts.event import Event
from hostler.contracts.fence import attempt_of
from hostler.contracts.job import JobRequest, JobState
from hostler.contracts.queue import QueueSpec
from hostler.kernel.settings import EngineSettings
from hostler.registry.engine import EngineRegistry
from hostler.testing.eventually import eventually
from hostler.testing.fabric import Fabric, Ports
from hostler.valkeyio.engine import Engine
from hostler.valkeyio.library import Library

QUEUE = "kills"
MODULE = """
import asyncio, os, threading, time
import hostler
from hostler.contracts.queue import RetryPolicy

RETRY = RetryPolicy(crashes=1000)

def began(call):
    with open(os.environ["KILL_LOG"], "a") as log:
        log.write(f"{call.job_id} {call.fence} {os.getpid()}\\n")

@hostler.handler("kill.wait", queue="kills", retry=RETRY)
async def wait(call):
    began(call)
    for step in range(4):
        call.progress(fraction=step / 4)
        await asyncio.to_thread(threading.Event().wait, 0.05)
    return call.fence

@hostler.handler("kill.crunch", queue="kills", retry=RETRY, run="process")
def crunch(call):
    began(call)
    ends = time.monotonic() + 0.2
    while time.monotonic() < ends:
        pass
    return call.fence

@hostler.handler("kill.shaky", queue="kills")
async def shaky(call):
    began(call)
    if int(call.job_id.rpartition(".")[2]) % 20 == 0 and call.attempt < 3:
        raise hostler.Failed("transient", "the service hiccups")

@hostler.handler("kill.long", queue="kills", retry=RETRY)
async def long(call):
    began(call)
    if call.attempt == 1:
        await asyncio.Event().wait()
    return call.fence
"""


@pytest.fixture
async def fabric(engine: Engine) -> Fabric:
    await Library(engine).ensure()
    found = Fabric(
        Ports(
            broker=EngineBroker(engine),
            desk=EngineDesk(engine),
            foreman=EngineForeman(engine),
            registry=EngineRegistry(engine),
        )
    )
    await found.ports.foreman.declare_queue(QueueSpec(name=QUEUE, lease=1.0))
    return found


class Workers:
    """Worker processes of one test, by id."""

    def __init__(self, folder: Path, settings: EngineSettings, fabric: Fabric) -> None:
        self._folder = folder
        self._settings = settings
        self._fabric = fabric
        self._count = 0
        self.log = folder / "began.log"
        self.alive: dict[str, asyncio.subprocess.Process] = {}

    async def start(self, *, slots: int = 4) -> str:
        self._count += 1
        name = f"w{self._count}"
        self.alive[name] = await asyncio.create_subprocess_exec(
            str(Path(sys.executable).parent / "hostler"),
            *("worker", "--engine", str(self._settings.url), "--handlers", "kill_handlers"),
            *("--slots", str(slots), "--id", name, "--log-level", "error"),
            cwd=self._folder,
            env={**os.environ, "KILL_LOG": str(self.log), "HOSTLER_WORKER_GRACE": "0.3"},
            stdout=asyncio.subprocess.DEVNULL,
        )
        return name

    async def ready(self, name: str) -> None:
        async def listed() -> bool:
            if name in self.alive and self.alive[name].returncode is not None:
                raise RuntimeError(f"{name} ended with {self.alive[name].returncode} before it was ready")
            workers = await self._fabric.ports.registry.workers()
            return any(each.id == name and each.state in {"ready", "busy"} for each in workers)

        await eventually(listed, within=30, every=0.05)

    async def kill(self, name: str) -> None:
        process = self.alive.pop(name)
        process.send_signal(signal.SIGKILL)
        await process.wait()

    async def end_all(self) -> None:
        for name in list(self.alive):
            process = self.alive.pop(name)
            if process.returncode is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
            await process.wait()


@pytest.fixture
async def workers(tmp_path: Path, engine_settings: EngineSettings, fabric: Fabric) -> AsyncIterator[Workers]:
    (tmp_path / "kill_handlers.py").write_text(MODULE)
    found = Workers(tmp_path, engine_settings, fabric)
    try:
        yield found
    finally:
        await found.end_all()


async def all_events(fabric: Fabric) -> list[Event]:
    found: list[Event] = []
    while True:
        page = await fabric.ports.desk.events(QUEUE, after=found[-1].offset if found else 0)
        assert not page.gap
        if not page.events:
            return found
        found.extend(page.events)


def began(workers: Workers) -> list[str]:
    return [line.split()[0] for line in workers.log.read_text().splitlines()] if workers.log.exists() else []


@asynccontextmanager
async def started(workers: Workers, count: int) -> AsyncGenerator[list[str]]:
    async with AsyncExitStack() as stack:
        stack.push_async_callback(workers.end_all)
        names = [await workers.start() for _ in range(count)]
        for name in names:
            await workers.ready(name)
        yield names


@pytest.mark.timeout(240)
@pytest.mark.row("001:77", "001:158", "002:30", "003:344")
async def test_thirty_kills_and_freezes_lose_nothing_and_record_nothing_twice(fabric: Fabric, workers: Workers) -> None:
    dice = random.Random(7)
    submitted: list[Submission] = []
    async with started(workers, 4):
        for cycle in range(30):
            for number in range(5):
                kind = "kill.crunch" if number == 0 else "kill.wait"
                request = JobRequest(kind=kind, queue=QUEUE)
                (answer,) = await fabric.ports.desk.submit([request], operation=f"s {cycle} {number}")
                assert not isinstance(answer, Exception)
                submitted.append(Submission(id=answer.id, request=request))
            victim = await busy_worker(fabric, workers, dice)
            if cycle % 2:
                workers.alive[victim].send_signal(signal.SIGSTOP)
                await eventually(partial(nothing_held_by, fabric, victim), within=20, every=0.05)
                workers.alive[victim].send_signal(signal.SIGCONT)
            else:
                await workers.kill(victim)
                await workers.start()
        jobs = {each.id: await fabric.ended(each.id, within=60) for each in submitted}
    events = await all_events(fabric)
    executed_again = len(began(workers)) - len(jobs)
    assert {job.state.value for job in jobs.values()} == {"succeeded"}
    finishes = [event.job for event in events if event.type == "finish" and event.job is not None]
    assert sorted(finishes) == sorted(jobs)
    assert executed_again >= 1
    verdict = check(events, submitted=submitted, final=jobs, stats=await fabric.ports.foreman.stats(QUEUE))
    assert verdict.clean, verdict


async def busy_worker(fabric: Fabric, workers: Workers, dice: random.Random) -> str:
    async def holding() -> list[str]:
        jobs, _ = await fabric.ports.desk.find(JobFilter(queue=QUEUE, states=(JobState.RUNNING,)))
        return sorted(name for name in workers.alive if any(job.worker == name for job in jobs))

    return dice.choice(await eventually(holding, within=20, every=0.02))


async def nothing_held_by(fabric: Fabric, worker: str) -> bool:
    jobs, _ = await fabric.ports.desk.find(JobFilter(queue=QUEUE, worker=worker))
    return not any(job.state == "running" and job.worker == worker for job in jobs)


@pytest.mark.row("002:21")
async def test_sigterm_drains_a_worker_process_which_gives_back_and_exits_zero(
    fabric: Fabric, workers: Workers
) -> None:
    async with started(workers, 1) as (name,):
        job = await fabric.submit("kill.long", queue=QUEUE)
        await eventually(lambda: began(workers), within=20)
        process = workers.alive[name]
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 20) == 0
        found = await fabric.get(job)
        assert found.state == "ready"
        assert [(each.outcome, each.counted) for each in found.attempts] == [("retry", False)]
        gone = [each for each in await fabric.ports.registry.workers(include_gone=True) if each.id == name]
        assert [each.state.value for each in gone] == ["stopped"]


@pytest.mark.row("000:62")
async def test_a_killed_workers_job_runs_again_elsewhere_well_within_the_recovery_time(
    fabric: Fabric, workers: Workers
) -> None:
    async with started(workers, 2) as names:
        job = await fabric.submit("kill.long", queue=QUEUE)
        await eventually(lambda: began(workers), within=20)
        holder = (await fabric.get(job)).worker
        assert holder in names
        await workers.kill(holder)
        assert attempt_of(await fabric.result(job, within=15)) == 2  # it says its fence
        events = [event.type for event in await fabric.events(job)]
        assert [each for each in events if each != "progress"] == ["submit", "claim", "reap", "claim", "finish"]


@pytest.mark.long
@pytest.mark.timeout(400)
@pytest.mark.row("001:382")
async def test_of_ten_thousand_mixed_jobs_under_kills_and_transient_faults_ten_at_most_do_not_succeed(
    fabric: Fabric, workers: Workers
) -> None:
    dice = random.Random(3)
    async with started(workers, 3):
        for step in range(20):
            kinds = ("kill.shaky",) * 24 + ("kill.wait",)
            requests = [JobRequest(kind=kinds[number % 25], queue=QUEUE) for number in range(500)]
            answers = await fabric.ports.desk.submit(requests, operation=f"ten thousand {step}")
            assert not [answer for answer in answers if isinstance(answer, Exception)]
            await workers.kill(await busy_worker(fabric, workers, dice))
            await workers.ready(await workers.start(slots=64))

        async def over() -> bool:
            stats = await fabric.ports.foreman.stats(QUEUE)
            return sum(stats.totals[state] for state in ("succeeded", "dead", "cancelled", "expired")) == 10_000

        await eventually(over, within=120, every=0.2)
    totals = (await fabric.ports.foreman.stats(QUEUE)).totals
    assert totals["succeeded"] >= 9_990, totals
    assert totals["reaped"] > 20, "kills struck work"
    assert totals["retried"] > 500, "faults struck work"
