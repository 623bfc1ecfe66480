"""How soon a burst of jobs begins: ten thousand at once, for workers that were idle and have room for all of them.

`python -m benchmarks.burst [--jobs N] [--workers N]` starts an engine with AOF `always` and worker processes, and hands
the jobs in, a hundred at a time, eight batches under way. A job notes the time of its first line, then sleeps until all
have begun: nothing ends meanwhile. A job's wait runs from the answer to its submit to that line; some begin before the
answer is there.
"""

import argparse
import asyncio
import os
import shutil
import struct
import tempfile
import time
from contextlib import aclosing
from pathlib import Path
from typing import Any

import msgspec
import uvloop

import hostler
from benchmarks.claim_path import quantile
from hostler.broker.desk import EngineDesk
from hostler.broker.foreman import EngineForeman
from hostler.cli.children import Children, ChildSpec
from hostler.contracts.job import JobRequest
from hostler.kernel.errors import InternalError
from hostler.kernel.settings import EngineSettings
from hostler.testing.eventually import eventually
from hostler.valkeyio.engine import Engine
from hostler.valkeyio.library import Library
from hostler.worker.handlers import HandlerSet

BATCH, UNDER_WAY = 100, 8
SLOTS = 1024
"""Of one worker; it takes no more."""
LINE = struct.Struct("<qq")
"""Number of a job, and when it began, in nanoseconds since 1970."""
BEGUN = "BURST_BEGUN"
"""Names the file to which each job adds its line."""
LASTS = 600.0


@hostler.handler("burst.begin", queue="burst")
async def begin(call: hostler.Call[int]) -> None:
    """Note that this job has begun, and sleep."""
    fd = os.open(os.environ[BEGUN], os.O_WRONLY | os.O_APPEND)
    os.write(fd, LINE.pack(call.payload, time.time_ns()))
    os.close(fd)
    await asyncio.sleep(LASTS)


async def measure(folder: Path, *, jobs: int, workers: int) -> None:
    """Print one row."""
    begun = folder / "begun"
    begun.touch()
    os.environ[BEGUN] = str(begun)
    async with (
        Engine.open(EngineSettings(data=str(folder / "data")), role="bench") as engine,
        Children(lambda _: None, grace=1.0) as children,
    ):
        await Library(engine).ensure()
        foreman = EngineForeman(engine)
        for kind in HandlerSet.of(begin).kinds():
            await foreman.declare_kind(kind)
        for number in range(workers):
            words = (
                "worker",
                "--data",
                str(folder / "data"),
                "--handlers",
                __spec__.name,
                "--slots",
                str(SLOTS),
                "--json",
            )
            spec = ChildSpec(
                name=f"worker-{number}", arguments=words, bare=True, log=folder / f"worker-{number}.log", restart=False
            )
            await children.ready(await children.start(spec), within=60.0)
        async with aclosing(EngineDesk(engine)) as desk:
            first = time.time_ns()
            stored = await burst(desk, jobs)

            async def all_begun() -> bool:
                return begun.stat().st_size == jobs * LINE.size

            await eventually(all_begun, within=60.0)
        starts = dict(LINE.iter_unpack(begun.read_bytes()))
        waits = [(starts[number] - stored[number]) / 1e9 for number in range(jobs)]
        last = (max(starts.values()) - first) / 1e9
        taken = (max(stored.values()) - first) / 1e9
        row = (f"{wait:.2f}" for wait in (quantile(waits, 0.5), quantile(waits, 0.99), max(waits)))
        print(f"| {workers} | {jobs:,} | {taken:.2f} | {last:.2f} | {' | '.join(row)} |", flush=True)


async def burst(desk: EngineDesk, jobs: int) -> dict[int, int]:
    """Submit all of them; return when each was stored."""
    stored: dict[int, int] = {}
    turns = iter(range(0, jobs, BATCH))

    async def submit() -> None:
        for start in turns:
            numbers = range(start, min(jobs, start + BATCH))
            requests = [JobRequest(kind="burst.begin", payload=msgspec.Raw(b"%d" % number)) for number in numbers]
            answers: Any = await desk.submit(requests, operation=f"burst/{start}")
            now = time.time_ns()
            if any(isinstance(answer, Exception) for answer in answers):
                raise InternalError(f"refused: {answers}")
            stored.update(dict.fromkeys(numbers, now))

    await asyncio.gather(*(submit() for _ in range(UNDER_WAY)))
    return stored


async def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--workers", type=int, nargs="*", default=[10])
    options = parser.parse_args()
    if options.jobs > min(options.workers) * SLOTS:
        parser.error(f"{options.jobs} jobs need {-(-options.jobs // SLOTS)} workers, which run {SLOTS} each")
    heads = "workers", "jobs", "all stored after s", "all begun after s", "wait p50 s", "p99 s", "longest s"
    print(f"| {' | '.join(heads)} |\n{'|---' * len(heads)}|")
    for workers in options.workers:
        folder = Path(tempfile.mkdtemp(prefix="hostler-burst-"))
        try:
            await measure(folder, jobs=options.jobs, workers=workers)
        finally:
            shutil.rmtree(folder)


if __name__ == "__main__":
    uvloop.run(main())
