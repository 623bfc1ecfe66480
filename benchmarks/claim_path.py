"""The claim path, measured: throughput, cost by backlog, lanes and tenants, memory, restart; one Markdown table.

`python -m benchmarks.claim_path [--full] [--only NAME]`. Engine microseconds are the server's own
(`INFO commandstats`), calls are counted by a probe build of the library on a server of its own; AOF `always`.
"""

import argparse
import asyncio
import itertools
import random
import statistics
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import uvloop
from msgspec import Raw

from hostler.broker.engine_submit import Prepared, Submitter, prepare, submit_jobs
from hostler.contracts.job import JobRequest
from hostler.contracts.lease import Lease, Settlement, Succeed
from hostler.contracts.needs import Needs
from hostler.contracts.offer import Offer
from hostler.testing.bench import KIND, Bench, Server
from hostler.valkeyio.library_text import PRODUCTION, Build

PAYLOAD = Raw(b'"' + b"x" * 198 + b'"')
LANES_ALL = 1000
DICE = random.Random(7)


class Report:
    """Rows of one table."""

    def __init__(self) -> None:
        self._rows: list[tuple[str, str]] = []

    def add(self, what: str, measured: str) -> None:
        """Add one row, and show it at once."""
        self._rows.append((what, measured))
        print(f"| {what} | {measured} |", flush=True)


@asynccontextmanager
async def queue(build: Build = PRODUCTION) -> AsyncGenerator[Bench]:
    """Yield one queue on a server of its own."""
    server = Server()
    server.start()
    try:
        await server.up()
        bench = Bench(server, "q", build)
        await bench.library.ensure()
        yield bench
        await bench.aclose()
    finally:
        server.kill()


def job(tenant: int, lane: int, priority: int | None = None) -> Prepared:
    """Return one job of a tenant and lane."""
    level = DICE.randrange(101) if priority is None else priority
    request = JobRequest(
        kind=KIND.name, payload=PAYLOAD, tenant=f"t{tenant}", priority=level, needs=Needs(models=(f"m{lane}",))
    )
    return prepare(request, KIND)


def offer(lanes: int) -> Offer:
    """Return an offer that fits this many lanes."""
    return Offer(kinds=(KIND.name,), models=tuple(f"m{n}" for n in range(lanes)))


async def fill(bench: Bench, n: int, *, lanes: int, tenants: int, first_tenant: int = 0) -> None:
    """Submit `n` jobs in full batches, four calls at a time."""
    pool = [job(first_tenant + i % tenants, (i // tenants) % lanes) for i in range(min(n, max(tenants * 4, 4000)))]
    numbers = iter(range(0, n, 100))

    async def submitter() -> None:
        for first in numbers:
            batch = [pool[(first + i) % len(pool)] for i in range(min(100, n - first))]
            await submit_jobs(bench.library, bench.queue, batch, bench.operation())

    await asyncio.gather(*(submitter() for _ in range(4)))


async def engine_time(bench: Bench) -> tuple[int, int]:
    """Return calls and microseconds of all functions since the server's counters were reset."""
    stats = (await bench.command("INFO", "commandstats")).get("cmdstat_fcall", {})
    return int(stats.get("calls", 0)), int(stats.get("usec", 0))


async def settle_all(bench: Bench, leases: Sequence[Lease]) -> None:
    """Settle with success."""
    await bench.broker.settle(
        "w1", [Settlement(job_id=one.job_id, fence=one.fence, ending=Succeed(result=Raw(b"1"))) for one in leases]
    )


async def lives(
    bench: Bench, *, batch: int, seconds: float, tenants: int, lanes: int, tasks: int
) -> tuple[float, float]:
    """Return complete lives per second and engine microseconds per life: submit, claim and settle at full speed."""
    submitter, request = Submitter(bench.library), bench.request(batch, offers=[offer(lanes)], slots=100_000)
    pool, done = [job(n % tenants, n % lanes) for n in range(max(tenants, lanes))], 0
    numbers = itertools.count()
    ends = time.perf_counter() + seconds
    await bench.command("CONFIG", "RESETSTAT")

    async def submit() -> None:
        while time.perf_counter() < ends:
            jobs = [pool[next(numbers) % len(pool)] for _ in range(batch)]
            await submitter.submit(bench.queue, jobs, bench.operation())

    async def work() -> None:
        nonlocal done
        while time.perf_counter() < ends:
            leases = await bench.broker.claim(request, operation=bench.operation())
            if leases:
                await settle_all(bench, leases)
                done += len(leases)

    began = time.perf_counter()
    await asyncio.gather(*(submit() for _ in range(tasks)), *(work() for _ in range(tasks)))
    took = time.perf_counter() - began
    return done / took, (await engine_time(bench))[1] / max(1, done)


async def throughput(report: Report, *, full: bool) -> None:
    """Measure complete lives through one process."""
    for backlog in (0, 100_000):
        async with queue() as bench:
            await fill(bench, backlog, lanes=20, tenants=100)
            for batch, tasks in ((1, 16), (16, 3), (64, 2)):
                rate, cost = await lives(
                    bench, batch=batch, seconds=8 if full else 3, tenants=100, lanes=20, tasks=tasks
                )
                report.add(f"lives/s, batch {batch}, backlog {backlog:,}", f"{rate:,.0f}/s, {cost:.0f} engine us each")


async def enqueue(report: Report, *, full: bool) -> None:
    """Measure submits alone."""
    seconds = 5 if full else 2
    async with queue() as bench:
        submitter, pool = Submitter(bench.library), [job(n % 100, n % 20) for n in range(1000)]
        for batch, tasks in ((1, 64), (100, 4)):
            sent, ends = 0, time.perf_counter() + seconds
            await bench.command("CONFIG", "RESETSTAT")

            async def submit() -> None:
                nonlocal sent
                while time.perf_counter() < ends:  # noqa: B023 - awaited before the next turn
                    jobs = [pool[(sent + n) % 1000] for n in range(batch)]  # noqa: B023 - as above
                    sent += batch  # noqa: B023 - as above
                    await submitter.submit(bench.queue, jobs, bench.operation())

            await asyncio.gather(*(submit() for _ in range(tasks)))
            cost = (await engine_time(bench))[1] / sent
            report.add(f"enqueues/s, batch {batch}", f"{sent / seconds:,.0f}/s, {cost:.0f} engine us each")


async def cost_of(
    bench: Bench, request: Any, rounds: int, refill: Callable[[int], Awaitable[None]]
) -> tuple[str, float]:
    """Return what a claim cost, as a row says it, and the least engine microseconds of one.

    `refill` submits as many as were claimed, so that the backlog stays what the row says.
    """
    spent, waits, got = list[int](), list[float](), 0
    await bench.broker.claim(request, operation=bench.operation())
    for _ in range(rounds):
        await bench.command("CONFIG", "RESETSTAT")
        began = time.perf_counter()
        leases = await bench.broker.claim(request, operation=bench.operation())
        waits.append(time.perf_counter() - began)
        spent.append((await engine_time(bench))[1])
        got += len(leases)
        await settle_all(bench, leases)
        await refill(len(leases))
    engine = f"{min(spent):,} least, {statistics.median(spent):,.0f} median engine us"
    return f"{engine}, client p99 {quantile(waits, 0.99) * 1000:.1f} ms, {got / rounds:.1f} jobs", min(spent)


def quantile(values: Sequence[float], share: float) -> float:
    """Return the value below which this share lies."""
    return sorted(values)[int(len(values) * share)]


async def claims(report: Report, *, full: bool) -> None:
    """Measure a claim by backlog, lanes and tenants: each shape against the smallest of its kind."""
    many = 100_000 if full else 20_000
    shapes = [
        ("backlog 1k", 1_000, 20, 100, 0, ""),
        ("backlog 100k", 100_000, 20, 100, 0, "backlog 1k"),
        ("1 lane", many, 1, 100, 0, ""),
        ("20 lanes", many, 20, 100, 0, "1 lane"),
        ("200 lanes", many, 200, 100, 0, "1 lane"),
        ("1,000 lanes", many, 1000, 100, 0, "1 lane"),
        ("1 tenant", many, 20, 1, 0, ""),
        ("10,000 tenants", many, 20, 10_000, 0, "1 tenant"),
        ("10,000 unservable tenants ahead", many, 20, 100, 10_000, "20 lanes"),
    ]
    if full:
        shapes.insert(2, ("backlog 1M", 1_000_000, 20, 100, 0, "backlog 1k"))
    least: dict[tuple[str, int], float] = {}
    for name, backlog, lanes, tenants, ahead, base in shapes:
        async with queue() as bench:
            others = [prepare(JobRequest(kind="else.where", tenant=f"u{n}"), KIND) for n in range(ahead)]
            for first in range(0, ahead, 100):
                await submit_jobs(bench.library, bench.queue, others[first : first + 100], bench.operation())
            await fill(bench, backlog, lanes=lanes, tenants=tenants)

            async def refill(n: int, lanes: int = lanes, tenants: int = tenants) -> None:
                pool = [job(DICE.randrange(tenants), DICE.randrange(lanes)) for _ in range(n)]
                if pool:
                    await submit_jobs(bench.library, bench.queue, pool, bench.operation())

            for limit in (1, 16):
                request = bench.request(limit, offers=[offer(LANES_ALL)], slots=100_000)
                row, least[name, limit] = await cost_of(bench, request, 200 if full else 40, refill)
                ratio = f", x{least[name, limit] / least[base, limit]:.2f} of {base}" if base else ""
                report.add(f"claim {limit}, {name} ({backlog:,} waiting)", row + ratio)


async def open_loop(report: Report, *, full: bool) -> None:
    """Offer 1,000 jobs a second whatever comes back, claim four at a time; how long claims take then."""
    seconds, rate, waits, late = (20 if full else 5), 1000, list[float](), 0
    async with queue() as bench:
        await fill(bench, 100_000, lanes=200, tenants=100)
        submitter, request = Submitter(bench.library), bench.request(4, offers=[offer(200)], slots=100_000)

        async def turn() -> None:
            await submitter.submit(bench.queue, [job(n, n) for n in range(4)], bench.operation())
            began = time.perf_counter()
            leases = await bench.broker.claim(request, operation=bench.operation())
            waits.append(time.perf_counter() - began)
            await settle_all(bench, leases)

        began, tasks = time.perf_counter(), list[asyncio.Task[None]]()
        for n in range(seconds * rate // 4):
            ahead = began + n * 4 / rate - time.perf_counter()
            late += ahead < -0.1
            await asyncio.sleep(max(0.0, ahead))
            tasks.append(asyncio.create_task(turn()))
        await asyncio.gather(*tasks)
        took = time.perf_counter() - began
    report.add(
        f"open loop, {rate:,} jobs/s offered, 4 a claim, 200 lanes, 100,000 waiting",
        f"claim p50 {quantile(waits, 0.5) * 1000:.1f} ms, p99 {quantile(waits, 0.99) * 1000:.1f} ms; "
        f"all done after {took:.1f} of {seconds} s, {late} turns began late",
    )


async def used(bench: Bench) -> int:
    """Return the bytes that the server uses."""
    return int((await bench.command("INFO", "memory"))["used_memory"])


async def memory(report: Report, *, full: bool) -> None:
    """Measure bytes per job that ended and per waiting job, and the restart with all of them."""
    n = 500_000 if full else 50_000
    server = Server()
    server.start()
    try:
        await server.up()
        bench = Bench(server, "q")
        await bench.library.ensure()
        before, ended = await used(bench), 0
        request = bench.request(64, offers=[offer(20)], slots=100_000)
        await fill(bench, n // 10, lanes=20, tenants=100)
        while leases := await bench.broker.claim(request, operation=bench.operation()):
            await settle_all(bench, leases)
            ended += len(leases)
        after = await used(bench)
        report.add(f"bytes per job that ended, its result kept ({ended:,})", f"{(after - before) / ended:.0f} B")
        await fill(bench, n, lanes=20, tenants=100)
        waiting = (await used(bench) - after) / n
        report.add(f"bytes per waiting job, payload of 200 included ({n:,})", f"{waiting:.0f} B")
        await bench.aclose()
        server.kill()
        server.start()
        began = time.perf_counter()
        await server.up(within=300)
        report.add(f"restart with {n:,} waiting, log not rewritten", f"{time.perf_counter() - began:.1f} s")
    finally:
        server.kill()


async def calls(report: Report, *, full: bool) -> None:
    """Count engine calls per verb with a probe build."""
    del full
    async with queue(Build(probe=True)) as bench:
        for name, act in (await scenes(bench)).items():
            await bench.command("FCALL_RO", "hostler1_probe", 0, 0)
            await act()
            report.add(f"engine calls, {name}", str(await bench.command("FCALL_RO", "hostler1_probe", 0, 0)))


async def scenes(bench: Bench) -> dict[str, Callable[[], Awaitable[Any]]]:
    """Return one call of each hot verb, to be run in this order."""
    held: list[Lease] = []
    await fill(bench, 2000, lanes=4, tenants=20)
    await bench.claim(1, offers=[offer(4)])

    async def claim(limit: int) -> None:
        held.extend(await bench.claim(limit, offers=[offer(4)]))

    async def settle(n: int) -> None:
        await settle_all(bench, [held.pop() for _ in range(n)])

    return {
        "submit 1": lambda: submit_jobs(bench.library, bench.queue, [job(0, 0)], bench.operation()),
        "submit 100": lambda: submit_jobs(
            bench.library, bench.queue, [job(n % 20, n % 4) for n in range(100)], bench.operation()
        ),
        "claim 1": lambda: claim(1),
        "claim 16": lambda: claim(16),
        "settle 1": lambda: settle(1),
        "settle 16": lambda: settle(16),
        "tick": bench.tick,
    }


PARTS = {
    "throughput": throughput,
    "enqueue": enqueue,
    "claims": claims,
    "open": open_loop,
    "memory": memory,
    "calls": calls,
}


async def main() -> None:
    """Run all parts, or one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="longer, with a million waiting")
    parser.add_argument("--only", choices=sorted(PARTS))
    options = parser.parse_args()
    report = Report()
    print("| what | measured |\n|---|---|")
    for name, part in PARTS.items():
        if options.only in {None, name}:
            await part(report, full=options.full)


if __name__ == "__main__":
    uvloop.run(main())
