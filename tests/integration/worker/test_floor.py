"""A fleet of a size that many never reach, on one small machine."""

import asyncio
from collections import Counter
from contextlib import AsyncExitStack, aclosing
from typing import Any

import pytest
from msgspec import Raw

import hostler
from hostler.broker.desk import EngineDesk
from hostler.broker.engine import EngineBroker
from hostler.broker.foreman import EngineForeman
from hostler.contracts.job import JobRequest
from hostler.contracts.worker import WorkerState
from hostler.kernel.settings import WorkerSettings
from hostler.registry.engine import EngineRegistry
from hostler.testing.eventually import eventually
from hostler.valkeyio.engine import Engine
from hostler.valkeyio.library import Library
from hostler.worker.handlers import HandlerSet
from hostler.worker.system import SystemClock, SystemDice
from hostler.worker.worker import Worker

WORKERS, JOBS = 500, 10_000
RUNS: Counter[int] = Counter()


@hostler.handler("floor.step", queue="floor")
async def step(call: hostler.Call[int]) -> None:
    """Count this job."""
    RUNS[call.payload] += 1


@pytest.mark.timeout(300)
@pytest.mark.row("000:129")
async def test_five_hundred_workers_do_ten_thousand_waiting_jobs_once_each(engine: Engine) -> None:
    await Library(engine).ensure()
    foreman, desk = EngineForeman(engine), EngineDesk(engine)
    for kind in HandlerSet.of(step).kinds():
        await foreman.declare_kind(kind)
    for start in range(0, JOBS, 100):
        requests = [JobRequest(kind="floor.step", payload=Raw(b"%d" % number)) for number in range(start, start + 100)]
        answers: Any = await desk.submit(requests, operation=f"floor {start}")
        assert not [answer for answer in answers if isinstance(answer, Exception)]
    async with AsyncExitStack() as stack:
        workers = [await _worker(engine, foreman, number, stack) for number in range(WORKERS)]
        running = [asyncio.create_task(worker.run()) for worker in workers]

        async def over() -> bool:
            return (await foreman.stats("floor")).totals["succeeded"] == JOBS

        await eventually(over, within=120, every=0.5)
        await eventually(lambda: all(worker.state is WorkerState.READY for worker in workers), within=60)
        assert (await foreman.stats("floor")).workers == WORKERS
        for worker in workers:
            worker.drain(at_once=True)
        await asyncio.gather(*running)
    assert len(RUNS) == JOBS
    assert set(RUNS.values()) == {1}


async def _worker(engine: Engine, foreman: EngineForeman, number: int, stack: AsyncExitStack) -> Worker:
    broker = await stack.enter_async_context(aclosing(EngineBroker(engine)))
    return Worker(
        broker,
        foreman,
        EngineRegistry(engine),
        (),
        HandlerSet.of(step),
        WorkerSettings(id=f"w{number}", slots=4),
        clock=SystemClock(),
        dice=SystemDice(),
    )
