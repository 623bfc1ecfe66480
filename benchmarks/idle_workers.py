"""What idle workers cost the engine: a hundred of them beside 10,000 jobs of 30 KB that none of them can do.

`python -m benchmarks.idle_workers [--workers N] [--seconds S]`. The workers are whole ones, with heartbeat and upkeep,
in one process; the engine's processor time is its own (`INFO cpu`), and the calls are those of the function library.
"""

import argparse
import asyncio
from contextlib import AsyncExitStack, aclosing
from typing import Any

import uvloop
from msgspec import Raw

import hostler
from hostler.broker.engine import EngineBroker
from hostler.broker.engine_submit import prepare, submit_jobs
from hostler.broker.foreman import EngineForeman
from hostler.contracts.job import JobRequest
from hostler.contracts.worker import WorkerState
from hostler.kernel.settings import EngineSettings, LogSettings, WorkerSettings
from hostler.registry.engine import EngineRegistry
from hostler.telemetry.logs import configure
from hostler.testing.bench import KIND, Bench, Server
from hostler.testing.eventually import eventually
from hostler.valkeyio.engine import Engine
from hostler.worker.handlers import HandlerSet
from hostler.worker.system import SystemClock, SystemDice
from hostler.worker.worker import Worker

JOBS, SIZE = 10_000, 30_000


@hostler.handler("idle.never", queue="q")
async def never(call: hostler.Call[Any]) -> None:
    raise AssertionError(call.job_id)


async def used(bench: Bench) -> tuple[float, int]:
    """Return the engine's processor seconds and its function calls so far."""
    cpu = await bench.command("INFO", "cpu")
    stats = await bench.command("INFO", "commandstats")
    calls = sum(row["calls"] for name, row in stats.items() if name.startswith("cmdstat_fcall"))
    return float(cpu["used_cpu_user"]) + float(cpu["used_cpu_sys"]), int(calls)


async def crew(engine: Engine, count: int, stack: AsyncExitStack) -> list[Worker]:
    """Start workers that find nothing to do."""
    found: list[Worker] = []
    for _ in range(count):
        broker = await stack.enter_async_context(aclosing(EngineBroker(engine)))
        found.append(
            Worker(
                broker,
                EngineForeman(engine),
                EngineRegistry(engine),
                (),
                HandlerSet.of(never),
                WorkerSettings(),
                clock=SystemClock(),
                dice=SystemDice(),
            )
        )
    return found


async def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=20.0)
    options = parser.parse_args()
    configure(LogSettings(level="error"), role="bench")
    server = Server()
    server.start()
    print("| idle workers | waiting jobs | engine calls/s | share of one core |\n|---|---|---|---|")
    try:
        await server.up()
        async with AsyncExitStack() as stack:
            settings = EngineSettings(url=f"unix://{server.socket}")
            engine = await stack.enter_async_context(Engine.open(settings, role="bench"))
            bench = Bench(server, "q")
            await bench.library.ensure()
            workers = await crew(engine, options.workers, stack)
            tasks = [asyncio.create_task(worker.run()) for worker in workers]
            await eventually(lambda: all(worker.state is WorkerState.READY for worker in workers), within=60)
            await report(bench, options, 0)
            large = prepare(JobRequest(kind="else.where", payload=Raw(b'"' + b"x" * SIZE + b'"')), KIND)
            for _ in range(JOBS // 100):
                await submit_jobs(bench.library, "q", [large] * 100, bench.operation())
            await report(bench, options, JOBS)
            for worker in workers:
                worker.drain(at_once=True)
            await asyncio.gather(*tasks)
            await bench.aclose()
    finally:
        server.kill()


async def report(bench: Bench, options: argparse.Namespace, waiting: int) -> None:
    """Measure for a while and print one row."""
    await asyncio.sleep(5)
    cpu, calls = await used(bench)
    await asyncio.sleep(options.seconds)
    later, more = await used(bench)
    rate, share = (more - calls) / options.seconds, (later - cpu) / options.seconds
    print(f"| {options.workers} | {waiting:,} of {SIZE:,} B | {rate:,.0f} | {share:.1%} |", flush=True)


if __name__ == "__main__":
    uvloop.run(main())
