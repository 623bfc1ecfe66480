"""Jobs of several models on llama.cpp servers that hold one each: Hostler beside round robin and least busy.

`python -m benchmarks.mixed_models [--jobs N] [--rate R] [--rounds N] [--models N]` (extra `demo`). Every way gets the
same jobs at the same times, from servers that begin empty. A job waits from its arrival until its model is in memory
and begins to answer, by the servers' own logs. Round robin and least busy send at once, as a load balancer does, and
the servers queue; Hostler keeps what waits and gives it out.
"""

import argparse
import asyncio
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
from msgspec import Struct

from benchmarks.llama_router import logged, routers
from hostler.connectors.catalogue import build
from hostler.contracts.needs import Needs
from hostler.kernel.settings import LogSettings
from hostler.telemetry.logs import configure
from hostler.testing.engine_fabric import own_fabric
from hostler.testing.llama import write_model

SERVERS = 4
SHARES = (("one", 36), ("two", 26), ("three", 16), ("four", 12), ("five", 6), ("six", 4))
"""Models by how often they are asked for."""
TOKENS = 48


class Asked(Struct, frozen=True):
    """One job: when it comes, for which model."""

    name: str
    at: float
    model: str


class Outcome(Struct, frozen=True, kw_only=True):
    """How one way did."""

    warm: float
    """Share of jobs whose model was in memory."""
    waits: tuple[float, ...]

    def quantile(self, share: float) -> float:
        """Return how long this share of the jobs waited at most."""
        return sorted(self.waits)[min(len(self.waits) - 1, int(share * len(self.waits)))]


def schedule(jobs: int, rate: float, seed: int, models: int) -> list[Asked]:
    """Return jobs that come at random, so many a second."""
    dice, at, found = random.Random(seed), 0.0, list[Asked]()
    names, weights = zip(*SHARES[:models], strict=True)
    for number in range(jobs):
        at += dice.expovariate(rate)
        found.append(Asked(f"job{seed}-{number}", at, dice.choices(names, weights)[0]))
    return found


def body(asked: Asked) -> dict[str, object]:
    """Return what the server is asked."""
    words = [{"role": "user", "content": f"{asked.name} " * 12}]
    return {"model": asked.model, "messages": words, "max_tokens": TOKENS, "user": asked.name, "stream": True}


async def at_time(began: float, asked: Asked) -> None:
    """Return when the job comes."""
    await asyncio.sleep(max(0.0, began + asked.at - time.time()))


async def balanced(urls: list[str], jobs: list[Asked], choose: Callable[[list[int]], int]) -> float:
    """Send each job at once to the server that is chosen by what every one has under way; return when it began."""
    flying = [0] * len(urls)
    began = time.time()
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=600)) as session:

        async def one(asked: Asked) -> None:
            await at_time(began, asked)
            index = choose(flying)
            flying[index] += 1
            async with session.post(f"{urls[index]}/v1/chat/completions", json=body(asked)) as answer:
                await answer.read()
            flying[index] -= 1

        await asyncio.gather(*(one(asked) for asked in jobs))
    return began


async def fabricated(urls: list[str], jobs: list[Asked]) -> float:
    """Submit each job when it comes to one worker with all servers; return when it began."""
    async with own_fabric() as fabric, AsyncExitStack() as stack:
        connectors = [build("openai-http", url=url, slots=1, options={"single": True}) for url in urls]
        await stack.enter_async_context(fabric.worker(connectors=connectors, slots=SERVERS))
        began = time.time()

        async def one(asked: Asked) -> None:
            await at_time(began, asked)
            job = await fabric.submit("chat.complete", body(asked), needs=Needs(models=(asked.model,)))
            await fabric.result(job, within=600.0)

        await asyncio.gather(*(one(asked) for asked in jobs))
    return began


async def measure(folder: Path, way: str, jobs: list[Asked]) -> Outcome:
    """Run all jobs one way on servers of their own."""
    async with routers(folder, SERVERS) as urls:
        if way == "Hostler":
            began = await fabricated(urls, jobs)
        elif way == "least busy":
            began = await balanced(urls, jobs, lambda flying: flying.index(min(flying)))
        else:
            turns = iter(range(len(jobs)))
            began = await balanced(urls, jobs, lambda flying: next(turns) % len(flying))
        async with aiohttp.ClientSession() as session:
            rows = {row["user"]: row for row in await logged(session, urls)}
    waits = tuple(max(0.0, rows[asked.name]["began"] - began - asked.at) for asked in jobs)
    return Outcome(warm=statistics.fmean(not rows[asked.name]["loads"] for asked in jobs), waits=waits)


async def run(jobs: int, rate: float, rounds: int, models: int) -> None:
    """Measure all ways, round by round, and print one table."""
    with tempfile.TemporaryDirectory(prefix="hostler-models-") as name:
        folder = Path(name)
        for seed, (model, _) in enumerate(SHARES):
            write_model(folder / f"{model}.gguf", seed=seed)
        print("| round | way | warm | wait p50 s | wait p95 s | wait max s |\n|---|---|---|---|---|---|", flush=True)
        for number in range(rounds):
            asked = schedule(jobs, rate, number + 1, models)
            for way in ("round robin", "least busy", "Hostler"):
                found = await measure(folder, way, asked)
                numbers = " | ".join(
                    f"{one:.2f}" for one in (found.quantile(0.5), found.quantile(0.95), max(found.waits))
                )
                print(f"| {number + 1} | {way} | {found.warm:.0%} | {numbers} |", flush=True)


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--rate", type=float, default=1.5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--models", type=int, choices=range(1, len(SHARES) + 1), default=len(SHARES))
    asked = parser.parse_args()
    configure(LogSettings(level="error"), role="bench")
    asyncio.run(run(asked.jobs, asked.rate, asked.rounds, asked.models))


if __name__ == "__main__":
    main()
