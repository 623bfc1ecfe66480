"""What one call of each function costs the engine, for `benchmarks.fleet`.

`python -m benchmarks.fleet_costs`: each is called alone, one at a time, and the engine's own account of its functions
is read (`INFO commandstats`: time inside them, without socket and log). Least of five rounds.
"""

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import uvloop

from benchmarks.claim_path import offer
from hostler.broker.engine_submit import prepare, submit_jobs
from hostler.broker.foreman import EngineForeman
from hostler.contracts.job import JobRequest
from hostler.contracts.lease import LeaseRef
from hostler.contracts.worker import Worker, WorkerState
from hostler.kernel.version import __version__
from hostler.registry.engine import EngineRegistry
from hostler.testing.bench import KIND, Bench, Server
from hostler.worker.system import SystemClock

CALLS, ROUNDS, HELD, ROSTER = 150, 5, 5, 1000
Call = Callable[[], Awaitable[Any]]


async def spent(bench: Bench) -> float:
    """Return the microseconds inside functions so far."""
    stats = await bench.command("INFO", "commandstats")
    return float(sum(row["usec"] for name, row in stats.items() if name.startswith("cmdstat_fcall")))


async def least(bench: Bench, call: Call, *, calls: int = CALLS) -> float:
    """Return the microseconds of one call."""
    found: list[float] = []
    for _ in range(ROUNDS):
        before = await spent(bench)
        for _ in range(calls):
            await call()
        found.append((await spent(bench) - before) / calls)
    return min(found)


def worker(number: int) -> Worker:
    """Return a worker that is ready."""
    now = SystemClock().now()
    return Worker(
        id=f"worker-{number:08x}",
        state=WorkerState.READY,
        machine="machine",
        pid=number,
        version=__version__,
        slots=8,
        running=0,
        queues=("q",),
        offers=(offer(1),),
        started_at=now,
        seen_at=now,
        expires_at=now,
        loop_age=0.0,
    )


async def lives(bench: Bench) -> dict[str, float]:
    """Measure submit, claim and settle, one job at a time, 2,000 waiting."""
    job = [prepare(JobRequest(kind=KIND.name), KIND)]
    for _ in range(20):
        await submit_jobs(bench.library, bench.queue, job * 100, bench.operation())
    leases: list[Any] = []

    async def submit() -> None:
        await submit_jobs(bench.library, bench.queue, job, bench.operation())

    async def claim() -> None:
        leases.extend(await bench.claim())

    async def settle() -> None:
        await bench.settle(leases.pop())

    return {name: await least(bench, call) for name, call in (("submit", submit), ("claim", claim), ("settle", settle))}


async def upkeep(bench: Bench, empty: Bench) -> dict[str, float]:
    """Measure what comes without any job: an empty claim, renewals, and who looks whether upkeep is due."""
    held = await bench.claim(HELD)
    refs = [LeaseRef(job_id=lease.job_id, fence=lease.fence) for lease in held]
    foreman = EngineForeman(bench.engine)
    found = {
        "renew": await least(bench, lambda: bench.broker.renew("w1", refs)) / HELD,
        "empty claim": await least(bench, empty.claim),
    }

    async def crew() -> None:
        await bench.library.call("tick", "q", roll=-1)  # so that it is not due
        await bench.library.call("crew", "q")

    both = await least(bench, crew)
    found["crew"] = both - await least(bench, lambda: bench.library.call("tick", "q", roll=-1))
    found["catalogue"] = await least(bench, foreman.registry)
    return found


async def registry(bench: Bench) -> dict[str, float]:
    """Measure what goes to the one place that knows all workers."""
    here = EngineRegistry(bench.engine, library=bench.library)
    for number in range(ROSTER):
        await here.announce(worker(number))
    mine = worker(1)
    return {
        "announce": await least(bench, lambda: here.announce(mine)),
        "commands": await least(bench, lambda: here.commands(mine.id)),
        "roster, each worker": await least(bench, here.workers, calls=5) / ROSTER,
    }


async def main() -> None:
    """Print the costs."""
    server = Server()
    server.start()
    try:
        await server.up()
        bench, empty = Bench(server, "q"), Bench(server, "empty")
        await bench.library.ensure()
        await bench.configure()
        await empty.configure()
        await EngineForeman(bench.engine).declare_kind(msgspec.structs.replace(KIND, queue="q"))
        found = {**await lives(bench), **await upkeep(bench, empty), **await registry(bench)}
        print("\n".join(f"{name}: {cost:.1f} us" for name, cost in found.items()))
        await empty.aclose()
        await bench.aclose()
    finally:
        server.kill()


if __name__ == "__main__":
    uvloop.run(main())
