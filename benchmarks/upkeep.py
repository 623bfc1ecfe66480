"""The longest slice of upkeep, measured: many leases after a restart, many lanes of a worker that left or never came.

`python -m benchmarks.upkeep`. Times are processor time of the server's main thread (`INFO cpu`) around each call of
`tick`, so that other work on the machine does not show; a slice should take at most ten milliseconds, for that long
everybody else waits.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

from hostler.broker.engine_submit import prepare, submit_jobs
from hostler.broker.engine_tick import tick
from hostler.contracts.job import JobRequest
from hostler.contracts.needs import Needs
from hostler.contracts.offer import Offer
from hostler.contracts.queue import Limits
from hostler.testing.bench import KIND, Bench, Server
from hostler.valkeyio.keys import prefix
from hostler.valkeyio.library_text import Build

MANY = 10_000
WORKERS = 1_000
_SECOND = 1_000_000


class Upkeep:
    """A queue whose clock is held, and what each slice of its upkeep cost."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self._at = 10**15

    async def advance(self, seconds: float) -> None:
        """Move the clock forward."""
        self._at += int(seconds * _SECOND)
        await self.bench.command("SET", prefix(self.bench.queue) + "clock", self._at)

    async def fill(self, n: int, *, lanes: int) -> None:
        """Submit `n` jobs in so many lanes."""
        jobs = [prepare(JobRequest(kind=KIND.name, needs=Needs(models=(f"m{i % lanes}",))), KIND) for i in range(n)]
        for first in range(0, n, 100):
            await submit_jobs(self.bench.library, self.bench.queue, jobs[first : first + 100], self.bench.operation())

    async def slices(self) -> list[int]:
        """Do all upkeep that is due; return the microseconds of each call, in order."""
        costs: list[int] = []
        more = True
        while more:
            before = await self._busy()
            more = (await tick(self.bench.library, self.bench.queue)).more
            costs.append(round((await self._busy() - before) * _SECOND))
        return costs

    async def _busy(self) -> float:
        """Return the seconds for which the main thread has worked."""
        found = await self.bench.command("INFO", "cpu")
        return float(found["used_cpu_user_main_thread"]) + float(found["used_cpu_sys_main_thread"])


@asynccontextmanager
async def house() -> AsyncGenerator[Upkeep]:
    """Yield a queue on a server of its own, with room for many lanes."""
    server = Server()
    server.start()
    try:
        await server.up()
        bench = Bench(server, "q", Build(clock="key"))
        await bench.library.ensure()
        await bench.configure(limits=Limits(lanes=10 * MANY))
        upkeep = Upkeep(bench)
        await upkeep.advance(0)
        yield upkeep
        await bench.aclose()
    finally:
        server.kill()


async def grace(upkeep: Upkeep) -> list[int]:
    """Many leases run when upkeep comes back after a stall."""
    await upkeep.fill(MANY, lanes=1)
    await upkeep.slices()
    offers = [Offer(kinds=(KIND.name,), models=("m0",))]
    while await upkeep.bench.claim(64, offers=offers, slots=2 * MANY):
        pass
    await upkeep.advance(8)
    return await upkeep.slices()


async def class_gone(upkeep: Upkeep) -> list[int]:
    """The one worker that covers many lanes leaves."""
    await upkeep.fill(MANY, lanes=MANY)
    await upkeep.bench.claim(1, offers=[Offer(kinds=(KIND.name,), models=tuple(f"m{n}" for n in range(MANY)))])
    await upkeep.slices()
    costs: list[int] = []
    for _ in range(15):
        await upkeep.advance(1)
        costs += await upkeep.slices()
    return costs


async def unserved(upkeep: Upkeep) -> list[int]:
    """Many lanes wait that none of many live workers serves."""
    await upkeep.fill(MANY, lanes=MANY)
    for number in range(WORKERS):
        await upkeep.bench.claim(1, worker=f"w{number}", offers=[Offer(kinds=("else.where",))])
    costs: list[int] = []
    for _ in range(8):
        await upkeep.advance(1)
        costs += await upkeep.slices()
    return costs


async def marked(upkeep: Upkeep) -> list[int]:
    """Many lanes wait that all of many live workers of as many classes serve."""
    await upkeep.fill(MANY // 10, lanes=MANY // 10)
    models = tuple(f"m{n}" for n in range(MANY // 10))
    for number in range(WORKERS // 10):
        offers = [Offer(kinds=(KIND.name,), models=models, labels={"n": str(number)})]
        await upkeep.bench.claim(1, worker=f"w{number}", offers=offers)
    costs: list[int] = []
    for _ in range(8):
        await upkeep.advance(1)
        costs += await upkeep.slices()
    return costs


CASES: dict[str, Callable[[Upkeep], Awaitable[list[int]]]] = {
    f"grace after a stall, {MANY:,} leases": grace,
    f"the last worker of a class gone, {MANY:,} lanes": class_gone,
    f"{MANY:,} lanes that none of {WORKERS:,} workers serves": unserved,
    f"{MANY // 10:,} lanes that all of {WORKERS // 10} workers serve, each a class": marked,
}


async def main() -> None:
    """Print one row a case."""
    print("| upkeep | calls | longest (ms) | all (ms) |\n|---|---|---|---|")
    for name, case in CASES.items():
        async with house() as upkeep:
            costs = await case(upkeep)
        print(f"| {name} | {len(costs)} | {max(costs) / 1000:.1f} | {sum(costs) / 1000:.0f} |", flush=True)


if __name__ == "__main__":
    asyncio.run(main())
