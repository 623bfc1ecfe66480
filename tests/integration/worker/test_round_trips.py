"""How often a busy worker speaks to the engine: counted by the engine itself, so no clock has a part in it."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import hostler
from hostler.contracts.job import JobRequest
from hostler.kernel.settings import EngineSettings
from hostler.testing.engine_fabric import opened
from hostler.testing.eventually import eventually
from hostler.testing.fabric import Fabric
from hostler.valkeyio.engine import Engine

QUEUE = "trips"
JOBS, FIRST, LAST = 300, 50, 250


class Counted:
    """What the engine had read and run when a worker began its 50th job, and its 250th."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._begun = 0
        self.marks: list[tuple[int, int]] = []

    async def begun(self) -> None:
        self._begun += 1
        if self._begun in {FIRST, LAST}:
            stats = await self._engine.command("INFO", "stats")
            commands = await self._engine.command("INFO", "commandstats")
            self.marks.append((int(stats["total_reads_processed"]), int(commands["cmdstat_fcall"]["calls"])))

    def for_each(self) -> tuple[float, float]:
        """Return reads and function calls for each job between the marks."""
        (reads, calls), (later, more) = self.marks
        return (later - reads) / (LAST - FIRST), (more - calls) / (LAST - FIRST)


async def counted(data_folder: Path, *, slots: int) -> tuple[float, float]:
    async with opened(EngineSettings(data=str(data_folder))) as (engine, ports):
        trips = Counted(engine)

        @hostler.handler("trips.nothing", queue=QUEUE)
        async def nothing(call: hostler.Call[Any]) -> None:
            await trips.begun()

        fabric = Fabric(ports)
        async with fabric.worker(nothing, slots=slots):
            requests = [JobRequest(kind="trips.nothing") for _ in range(100)]
            for part in range(JOBS // 100):
                await ports.desk.submit(requests, operation=f"part {part}")
            await eventually(lambda: len(trips.marks) == 2, within=60)
        return trips.for_each()


@pytest.mark.timeout(120)
async def test_a_finish_and_the_next_claim_reach_the_engine_together(data_folder: Path) -> None:
    reads, calls = await counted(data_folder, slots=1)
    assert calls <= 3  # one that ends the job and one that claims the next; upkeep and heart are beside them
    assert reads <= 2


@pytest.mark.timeout(120)
async def test_a_worker_of_many_slots_ends_and_claims_many_jobs_at_once(data_folder: Path) -> None:
    reads, calls = await counted(data_folder, slots=32)
    assert calls <= 0.35
    assert reads <= 0.35


class Listed:
    """A port of which some verbs are noted, with what they were given and what came back."""

    def __init__(self, port: Any, *verbs: str) -> None:
        self._port = port
        self._verbs = verbs
        self.noted: list[tuple[Any, Any]] = []

    def __getattr__(self, verb: str) -> Any:
        method = getattr(self._port, verb)
        if verb not in self._verbs:
            return method

        async def noted(*words: Any, **named: Any) -> Any:
            answer = await method(*words, **named)
            self.noted.append((words[0], answer))
            return answer

        return noted


async def test_jobs_that_report_at_their_end_cost_one_claim_each_and_the_worker_stays_busy_between_them(
    fabric: Fabric,
) -> None:
    broker, registry = Listed(fabric.ports.broker, "claim"), Listed(fabric.ports.registry, "announce")
    listed: Any = replace(fabric.ports, broker=broker, registry=registry)
    jobs, ended = 40, asyncio.Semaphore(0)

    @hostler.handler("trips.reports", queue=QUEUE)
    async def reports(call: hostler.Call[Any]) -> None:
        await asyncio.sleep(0)
        call.progress(fraction=1.0)
        ended.release()

    async with Fabric(listed).worker(reports, slots=1, idle_poll=5.0):
        await fabric.ports.desk.submit([JobRequest(kind="trips.reports") for _ in range(jobs)], operation="all")
        for _ in range(jobs):
            await ended.acquire()
        fruitful = [leases for _, leases in broker.noted if leases]
        busy = [record for record, _ in registry.noted if record.state == "busy"]
    assert len(fruitful) >= jobs - 1
    assert len(broker.noted) < 1.5 * jobs
    assert len(busy) < jobs / 2
