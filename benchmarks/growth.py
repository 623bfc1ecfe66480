"""How rate and claim grow with what there is: backlog, lanes, tenants, workers, readers of events, history.

`python -m benchmarks.growth [--only CURVE] [--seconds S] [--most N] [--keep FILE]` measures each point of each curve
on a server of its own with AOF `always`. Four workers (or as many as the curve says) claim jobs, settle them and submit
as many again, so that what the curve is about stays as it is: first as fast as it goes, sixteen at a time (jobs a
second), then a thousand jobs a second, four at a time (how long a claim waits for its answer). `--most` cuts curves
off. `--keep` writes JSON, from which `python -m benchmarks.curves` draws.
"""

import argparse
import asyncio
import itertools
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import uvloop
from msgspec import Raw, Struct

from benchmarks.claim_path import engine_time, fill, job, offer, quantile, queue, settle_all, used
from hostler.broker.desk import EngineDesk
from hostler.broker.engine_submit import submit_jobs
from hostler.contracts.lease import Settlement, Succeed
from hostler.contracts.queue import Retention
from hostler.kernel.units import Bytes, Seconds
from hostler.testing.bench import Bench, Clients
from hostler.valkeyio.keys import prefix

BATCH = 16
DONE = Raw(b"1")
PACE, FEW = 1000, 4
"""Jobs a second, and jobs a claim, while waits are measured."""
WORKERS = 4
WAITING = 10_000
"""Jobs that wait, unless the curve is about them."""
LANES, TENANTS = 20, 100
READERS_EACH = 25
"""Readers that share the connections of one process."""


class Point(Struct, frozen=True, kw_only=True):
    """What was measured at one size."""

    size: int
    rate: float
    """Jobs that were submitted, claimed and settled in a second."""
    p50: Seconds
    p99: Seconds
    """Of the wait of a claim of four for its answer, at a thousand jobs a second."""
    engine_us: float
    """Of the engine's functions for each job."""
    memory: Bytes
    """That the engine uses."""


class Growth(Struct, frozen=True, kw_only=True):
    """All curves of one run."""

    at: datetime
    seconds: Seconds
    curves: dict[str, list[Point]]


class Load(Struct, frozen=True, kw_only=True):
    """What the workers do at one point."""

    lanes: int = LANES
    tenants: int = TENANTS
    workers: int = WORKERS


class Turner:
    """Turns jobs over: claims, settles, and submits as many again."""

    def __init__(self, bench: Bench, load: Load) -> None:
        self._bench = bench
        self._requests = [
            bench.request(BATCH, worker=f"w{number}", offers=[offer(load.lanes)], slots=100_000)
            for number in range(load.workers)
        ]
        self._pool = [job(n % load.tenants, n // load.tenants % load.lanes) for n in range(max(load.tenants, 4000))]
        self._next = itertools.count()
        self.done = 0

    async def turn(self, worker: int, limit: int) -> Seconds:
        """Turn this many over as one of the workers; return how long the claim waited for its answer."""
        bench, request = self._bench, self._requests[worker % len(self._requests)]
        asked = time.perf_counter()
        leases = await bench.broker.claim(msgspec.structs.replace(request, limit=limit), operation=bench.operation())
        waited = time.perf_counter() - asked
        settlements = [Settlement(job_id=one.job_id, fence=one.fence, ending=Succeed(result=DONE)) for one in leases]
        words = await bench.broker.settle(request.worker, settlements)
        if not all(word.accepted for word in words):
            raise AssertionError(f"an ending was refused: {words}")
        self.done += len(leases)
        if leases:
            again = [self._pool[next(self._next) % len(self._pool)] for _ in leases]
            await submit_jobs(bench.library, bench.queue, again, bench.operation())
        return waited


async def steady(bench: Bench, size: int, load: Load, *, seconds: Seconds) -> Point:
    """Let the workers turn jobs over as fast as they can, then at a pace that leaves room; upkeep goes on meanwhile."""
    turner = Turner(bench, load)
    await bench.command("CONFIG", "SET", "auto-aof-rewrite-percentage", "0")  # one that falls into a point is its noise
    async with _upkept(bench):
        await bench.command("CONFIG", "RESETSTAT")
        began = time.perf_counter()

        async def work(number: int) -> None:
            while time.perf_counter() < began + seconds:
                await turner.turn(number, BATCH)

        await asyncio.gather(*(work(number) for number in range(load.workers)))
        took, done, spent = time.perf_counter() - began, turner.done, (await engine_time(bench))[1]
        waits = await paced(turner, seconds)
    found = Point(
        size=size,
        rate=done / took,
        p50=quantile(waits, 0.5),
        p99=quantile(waits, 0.99),
        engine_us=spent / max(1, done),
        memory=await used(bench),
    )
    waited = f"{found.p50 * 1000:.1f} | {found.p99 * 1000:.1f}"
    cost = f"{found.engine_us:.0f} | {found.memory / 1e6:,.0f}"
    print(f"| {size:,} | {found.rate:,.0f} | {waited} | {cost} |", flush=True)
    return found


async def paced(turner: Turner, seconds: Seconds) -> list[Seconds]:
    """Turn `PACE` jobs a second over, some at a time, whatever comes back; return how long claims waited."""
    began, turns = time.perf_counter(), list[asyncio.Task[Seconds]]()
    for number in range(int(seconds * PACE / FEW)):
        await asyncio.sleep(max(0.0, began + number * FEW / PACE - time.perf_counter()))
        turns.append(asyncio.create_task(turner.turn(number, FEW)))
    return await asyncio.gather(*turns)


@asynccontextmanager
async def _upkept(bench: Bench) -> AsyncGenerator[None]:
    async def upkeep() -> None:
        while True:
            await bench.tick()
            await asyncio.sleep(1.0)

    task = asyncio.create_task(upkeep())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


Curve = Callable[[list[int], Seconds], Awaitable[list[Point]]]


async def backlog(sizes: list[int], seconds: Seconds) -> list[Point]:
    """Let more and more wait in one queue."""
    found: list[Point] = []
    async with queue() as bench:
        waiting = 0
        for size in sizes:
            await fill(bench, size - waiting, lanes=LANES, tenants=TENANTS)
            waiting = size
            found.append(await steady(bench, size, Load(), seconds=seconds))
    return found


async def lanes(sizes: list[int], seconds: Seconds) -> list[Point]:
    """Let jobs need more and more different things, all of which every worker has."""
    return [await _fresh(size, Load(lanes=size), seconds) for size in sizes]


async def tenants(sizes: list[int], seconds: Seconds) -> list[Point]:
    """Let the same backlog belong to more and more tenants."""
    return [await _fresh(size, Load(tenants=size), seconds) for size in sizes]


async def workers(sizes: list[int], seconds: Seconds) -> list[Point]:
    """Let more and more workers claim at the same time."""
    return [await _fresh(size, Load(workers=size), seconds) for size in sizes]


async def readers(sizes: list[int], seconds: Seconds) -> list[Point]:
    """Let more and more gateways read all events as they come."""
    found: list[Point] = []
    for size in sizes:
        async with queue() as bench:
            await fill(bench, WAITING, lanes=LANES, tenants=TENANTS)
            async with _reading(bench, size):
                found.append(await steady(bench, size, Load(), seconds=seconds))
    return found


async def history(sizes: list[int], seconds: Seconds) -> list[Point]:
    """Let more and more jobs be kept that have ended: some lived, the rest are copies of theirs."""
    found: list[Point] = []
    async with queue() as bench:
        await bench.command("CONFIG", "SET", "auto-aof-rewrite-percentage", "0")
        await bench.configure(retention=Retention(terminal_count=100_000_000))
        await fill(bench, LIVED, lanes=LANES, tenants=TENANTS)
        request = bench.request(64, offers=[offer(LANES)], slots=100_000)
        while leases := await bench.broker.claim(request, operation=bench.operation()):
            await settle_all(bench, leases)
        copied = 0
        await fill(bench, WAITING, lanes=LANES, tenants=TENANTS)
        for size in sizes:
            await _copy_ended(bench, copied, size)
            copied = size
            found.append(await steady(bench, size, Load(), seconds=seconds))
    return found


LIVED, COPIES = 1_000, 1_000
_COPY = """
local p, first, last, words, done = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), {}, {}
local lived = redis.call('ZRANGE', p .. 'done', 0, 999, 'WITHSCORES')
for number = first, last do
  local at = 2 * (number % (#lived / 2)) + 1
  for _, kind in ipairs({'j:', 'p:', 's:'}) do
    words[#words + 1] = p .. kind .. number
    words[#words + 1] = redis.call('GET', p .. kind .. lived[at])
  end
  done[#done + 1], done[#done + 2] = lived[at + 1], number
end
redis.call('MSET', unpack(words))
redis.call('ZADD', p .. 'done', unpack(done))
redis.call('HINCRBY', p .. 'meta', 'n_succeeded', last - first + 1)
"""
"""All that is kept of a job that ended, once more under numbers that the queue never gives (from 1)."""


async def _copy_ended(bench: Bench, have: int, want: int) -> None:
    place = prefix(bench.queue)
    for first in range(have + 1, want + 1, COPIES):
        last = min(want, first + COPIES - 1)
        await bench.command("EVAL", _COPY, 0, place, first, last)


async def _fresh(size: int, load: Load, seconds: Seconds) -> Point:
    async with queue() as bench:
        await fill(bench, WAITING, lanes=load.lanes, tenants=load.tenants)
        return await steady(bench, size, load, seconds=seconds)


@asynccontextmanager
async def _reading(bench: Bench, many: int) -> AsyncGenerator[None]:
    """Read the queue's events to their end, again and again, as often as `many`."""
    groups = [Clients(bench.server.socket) for _ in range(-(-many // READERS_EACH))]

    async def read(desk: EngineDesk) -> None:
        after = int((await bench.meta())["off"])
        while True:
            page = await desk.events(bench.queue, after=after, wait=10.0)
            after = page.events[-1].offset if page.events else after

    desks = [EngineDesk(groups[number // READERS_EACH]) for number in range(many)]
    tasks = [asyncio.create_task(read(desk)) for desk in desks]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for group in groups:
            await group.aclose()


CURVES: dict[str, tuple[Curve, list[int]]] = {
    "waiting jobs": (backlog, [1_000, 10_000, 100_000, 1_000_000]),
    "lanes": (lanes, [1, 10, 100, 1_000]),
    "tenants": (tenants, [1, 10, 100, 1_000, 10_000]),
    "workers": (workers, [1, 2, 4, 8, 16, 32, 64]),
    "readers of events": (readers, [1, 3, 10, 30, 100]),
    "ended jobs": (history, [10_000, 100_000, 1_000_000, 10_000_000]),
}


COLUMNS = "jobs/s | claim p50 ms | p99 ms | engine us a job | engine memory, MB"
RULES = "\n" + "|---" * 6 + "|"


async def main() -> None:
    """Measure all curves, or one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=sorted(CURVES))
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--most", type=int, default=10_000_000)
    parser.add_argument("--keep", type=Path)
    options = parser.parse_args()
    found: dict[str, list[Point]] = {}
    for name, (curve, sizes) in CURVES.items():
        if options.only in {None, name}:
            print(f"\n| {name} | {COLUMNS} |{RULES}")
            found[name] = await curve([size for size in sizes if size <= options.most], options.seconds)
    if options.keep is not None:
        kept = Growth(at=datetime.now(UTC).replace(microsecond=0), seconds=options.seconds, curves=found)
        options.keep.write_bytes(msgspec.json.format(msgspec.json.encode(kept), indent=1) + b"\n")


if __name__ == "__main__":
    uvloop.run(main())
