"""What a job costs this process beside a bare aiohttp client that makes the same requests: connector, dispatch, limits.

`python -m benchmarks.connector_overhead [--rounds N] [--jobs N] [--flying N] [--only NAME]`. The service runs in a
process of its own; what is counted is the processor time of this one (user and system). Every round measures each way
once, one after the other, so that what else the machine does strikes all of them alike; shown are medians of all
rounds, and of what each round has over its own bare slice, with the middle half of the rounds.
"""

import argparse
import asyncio
import gc
import itertools
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from typing import TypeVar

import aiohttp
import msgspec
from msgspec import Raw, Struct

from hostler.connectors.catalogue import build
from hostler.contracts.lease import ClaimRequest, Lease, LeaseRef, Renewal, Settled, Settlement, Succeed, Update
from hostler.contracts.needs import Lane
from hostler.contracts.queue import Demand
from hostler.contracts.service import Finished, RemoteRef, ServiceCall
from hostler.contracts.timeouts import SERVICE_TIMEOUTS, Timeouts
from hostler.dispatch.account import Account
from hostler.dispatch.limited import Limited
from hostler.kernel.settings import HttpSettings, LogSettings, WorkerSettings
from hostler.ports.connector import Connector
from hostler.ports.limiter import Limiter
from hostler.registry.limits import EngineLimiter
from hostler.telemetry.logs import configure
from hostler.testing.bench import Clients, Server
from hostler.valkeyio.library import Library
from hostler.worker.board import Board
from hostler.worker.capacity import Capacity
from hostler.worker.crew import Crew
from hostler.worker.endpoints import Stations
from hostler.worker.handlers import HandlerSet
from hostler.worker.loop import ClaimLoop
from hostler.worker.processes import ProcessPool
from hostler.worker.reports import Reporters
from hostler.worker.runs import Tools
from hostler.worker.settler import Settlers
from hostler.worker.stock import WorkerStock
from hostler.worker.system import SystemClock, SystemDice

ENGINE_TAKES = 0.001
"""Seconds after which the engine that is left out answers."""
LIMIT = "1000000/s burst 100000"
NUMBERS = itertools.count(1)
JOB = "q-{number:016d}"

T = TypeVar("T")
Way = Callable[[int], Awaitable[None]]
"""Does so many jobs, `flying` at a time."""


class Scene(Struct, frozen=True):
    """One service: how it is started, what a job is, and what a bare client asks for it."""

    name: str
    program: tuple[str, ...]
    connector: str
    kind: str
    payload: Raw
    bare: Callable[[aiohttp.ClientSession, str, str], Awaitable[None]]
    """Does one job: session, URL, job."""


async def bare_simulation(session: aiohttp.ClientSession, url: str, job: str) -> None:
    """Submit, read the events to their end, fetch the result, release: what the connector asks."""
    body = msgspec.json.encode({"id": job, "fence": 1, "kind": "sim.echo", "input": {"value": "x" * 200}})
    async with session.post(f"{url}/jobs", data=body, headers=JSON) as answer:
        await answer.read()
    async with session.get(f"{url}/jobs/{job}/events", headers={"Accept": "text/event-stream"}) as answer:
        await answer.read()
    async with session.get(f"{url}/jobs/{job}/result") as answer:
        await answer.read()
    async with session.delete(f"{url}/jobs/{job}?fence=1") as answer:
        await answer.read()


async def bare_embed(session: aiohttp.ClientSession, url: str, job: str) -> None:
    """Ask once."""
    del job
    async with session.post(f"{url}/v1/embeddings", data=bytes(EMBED), headers=JSON) as answer:
        await answer.read()


async def bare_chat(session: aiohttp.ClientSession, url: str, job: str) -> None:
    """Ask once, and read the events as they come."""
    del job
    async with session.post(f"{url}/v1/chat/completions", data=CHAT_BODY, headers=JSON) as answer:
        async for _ in answer.content.iter_any():
            pass


JSON = {"Content-Type": "application/json"}
ECHO = Raw(msgspec.json.encode({"value": "x" * 200}))
EMBED = Raw(msgspec.json.encode({"input": "x" * 200}))
CHAT = Raw(msgspec.json.encode({"messages": [{"role": "user", "content": "x" * 200}]}))
CHAT_BODY = msgspec.json.encode(
    {**msgspec.json.decode(CHAT), "stream": True, "stream_options": {"include_usage": True}}
)
SIM = ("-m", "hostler", "sim", "http", "--port", "0", "--duration", "0", "--steps", "1", "--slots", "1000")
TINY = ("-m", "benchmarks.tiny_openai")
SCENES = (
    Scene("simulation-http, 4 requests", SIM, "simulation-http", "sim.echo", ECHO, bare_simulation),
    Scene("openai-http embed, 1 request", TINY, "openai-http", "embed.create", EMBED, bare_embed),
    Scene("openai-http chat, 1 stream of 21 events", TINY, "openai-http", "chat.complete", CHAT, bare_chat),
)


class Agreeing:
    """The engine left out: gives leases while there are jobs, takes every word, and answers after a moment."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._left = self._open = 0
        self._came, self._done = asyncio.Event(), asyncio.Event()

    async def all(self, jobs: int) -> None:
        """Return when so many jobs have been claimed and settled."""
        self._left = self._open = jobs
        self._done.clear()
        self._came.set()
        await self._done.wait()

    async def claim(self, request: ClaimRequest, *, operation: str) -> tuple[Lease, ...]:
        del operation
        await asyncio.sleep(ENGINE_TAKES)
        room = min(request.limit, self._left, *(int(pool.free or 0) for pool in request.offers[0].pools.values()))
        self._left -= room
        if not self._left:
            self._came.clear()
        return tuple(lease(self._scene, request.queue) for _ in range(room))

    async def wait_for_work(self, queues: Sequence[str], worker: str, *, timeout: float) -> bool:
        del queues, worker
        async with asyncio.timeout(timeout):
            return await self._came.wait()

    async def demand(self, queue: str) -> tuple[Demand, ...]:
        del queue
        return ()

    async def renew(self, worker: str, leases: Sequence[LeaseRef]) -> Renewal:
        del worker, leases
        return Renewal()

    async def progress(self, worker: str, updates: Sequence[Update]) -> tuple[LeaseRef, ...]:
        del worker, updates
        await asyncio.sleep(ENGINE_TAKES)
        return ()

    async def settle(self, worker: str, settlements: Sequence[Settlement]) -> tuple[Settled, ...]:
        del worker
        await asyncio.sleep(ENGINE_TAKES)
        for each in settlements:
            expect(each.ending, Succeed)
        self._open -= len(settlements)
        if not self._open:
            self._done.set()
        return tuple(Settled(job_id=each.job_id, accepted=True, state="succeeded") for each in settlements)


def expect(found: object, kind: type[T]) -> T:
    """Return what was found; a job that went wrong says nothing of what one costs."""
    if not isinstance(found, kind):
        raise TypeError(found)
    return found


def lease(scene: Scene, queue: str) -> Lease:
    """Return a lease as the engine gives it."""
    now = datetime.now(UTC)
    return Lease(
        job_id=JOB.format(number=next(NUMBERS)),
        kind=scene.kind,
        queue=queue,
        fence=1,
        generation=1,
        attempts_used=0,
        attempts_max=3,
        crashes=0,
        overloads=0,
        payload=scene.payload,
        lane=Lane(kind=scene.kind),
        offer=0,
        lease_s=30.0,
        expires_at=now + timedelta(seconds=30),
        now=now,
        deadline=None,
        timeouts=Timeouts(),
        tenant="default",
        labels={},
        remote=None,
    )


async def together(one: Callable[[], Awaitable[None]], jobs: int, flying: int) -> None:
    """Do so many jobs, `flying` at a time."""
    left = iter(range(jobs))

    async def some() -> None:
        for _ in left:
            await one()

    await asyncio.gather(*(some() for _ in range(flying)))


@asynccontextmanager
async def bare_way(scene: Scene, url: str, flying: int) -> AsyncGenerator[Way]:
    """Use aiohttp as it comes."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def one() -> None:
            await scene.bare(session, url, JOB.format(number=next(NUMBERS)))

        yield lambda jobs: together(one, jobs, flying)


def connector_of(scene: Scene, url: str, flying: int) -> Connector:
    """Build the connector with as many connections as jobs."""
    http = HttpSettings(connections=flying, connections_per_host=flying)
    return build(scene.connector, url=url, slots=flying, http=http)


@asynccontextmanager
async def connector_way(scene: Scene, url: str, flying: int) -> AsyncGenerator[Way]:
    """Use the connector alone: submit, observe, release."""
    async with connector_of(scene, url, flying) as connector:

        async def one() -> None:
            job = JOB.format(number=next(NUMBERS))
            call = ServiceCall(job_id=job, fence=1, kind=scene.kind, payload=scene.payload, timeouts=SERVICE_TIMEOUTS)
            ref = expect(await connector.submit(call), RemoteRef)
            expect([step async for step in connector.observe(call, ref)][-1], Finished)
            await connector.release(ref)

        yield lambda jobs: together(one, jobs, flying)


@asynccontextmanager
async def dispatch_way(scene: Scene, url: str, flying: int, limiter: Limiter | None = None) -> AsyncGenerator[Way]:
    """Use all that a worker has for it: claims, choice, gauge, attempts, reports and settlements."""
    clock, dice, worker = SystemClock(), SystemDice(), "worker-0"
    broker = Agreeing(scene)
    connector = connector_of(scene, url, flying)
    if limiter is not None:
        connector = Limited(connector, limiter, Account(connector, (LIMIT,)))
    async with AsyncExitStack() as stack:
        stations = await stack.enter_async_context(
            Stations([connector], WorkerSettings(slots=flying), worker, (clock, dice))
        )
        stock = WorkerStock(worker, stations, HandlerSet(), {})
        capacity = Capacity(worker, slots=flying)
        reporters = Reporters(broker, worker, interval=0.2, clock=clock, dice=dice, stale=lambda _: None)
        tools = Tools(
            worker=worker,
            reporters=reporters,
            settlers=Settlers(broker, worker, dice=dice),
            processes=ProcessPool(),
            blobs=None,
            clock=clock,
            dice=dice,
            others_fit=_nobody,
        )
        crew = Crew(tools, capacity, Board(worker, now=clock.monotonic()), lambda: None)
        claims = ClaimLoop(
            broker,
            stock,
            capacity,
            crew,
            name=(worker, "0"),
            idle_poll=3600.0,
            clock=clock,
            dice=dice,
            idle=lambda: None,
        )
        tasks = [asyncio.create_task(reporters.run()), asyncio.create_task(claims.run())]
        claims.open()
        try:
            yield broker.all
        finally:
            await crew.over()
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)


async def _nobody(_: Lane) -> bool:
    return False


@contextmanager
def service(program: tuple[str, ...]) -> Generator[str]:
    """Run a service in a process of its own and give its URL."""
    process = subprocess.Popen([sys.executable, *program], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().removeprefix("ready: ").strip()
    finally:
        process.terminate()
        process.wait()


@asynccontextmanager
async def engine_limiter() -> AsyncGenerator[Limiter]:
    """Keep limits in an engine of its own."""
    server = Server()
    server.start("--appendfsync", "no")
    try:
        await server.up()
        clients = Clients(server.socket)
        await Library(clients).ensure()
        yield EngineLimiter(clients)
        await clients.aclose()
    finally:
        server.kill()


async def cost(way: Way, jobs: int) -> float:
    """Return the microseconds of processor time for each of so many jobs."""
    gc.collect()
    before = time.process_time()
    await way(jobs)
    return (time.process_time() - before) / jobs * 1e6


async def measure(scene: Scene, options: argparse.Namespace, limiter: Limiter) -> None:
    """Print the rows of one service."""
    flying, jobs = options.flying, options.jobs
    async with AsyncExitStack() as stack:
        url = stack.enter_context(service(scene.program))
        ways = {
            "bare aiohttp": await stack.enter_async_context(bare_way(scene, url, flying)),
            "connector": await stack.enter_async_context(connector_way(scene, url, flying)),
            "dispatch + connector": await stack.enter_async_context(dispatch_way(scene, url, flying)),
            "with a shared limit": await stack.enter_async_context(dispatch_way(scene, url, flying, limiter)),
        }
        for way in ways.values():
            await cost(way, jobs)
        found: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(options.rounds):
            for name, way in ways.items():
                found[name].append(await cost(way, jobs))
    bare = next(iter(found.values()))
    for name, costs in found.items():
        over = sorted(mine - theirs for mine, theirs in zip(costs, bare, strict=True))
        middle = over[len(over) // 4], over[-len(over) // 4 - 1]
        more = "" if costs is bare else f"{statistics.median(over):.0f} ({middle[0]:.0f} to {middle[1]:.0f})"
        print(f"| {scene.name} | {name} | {statistics.median(costs):.0f} | {more} |", flush=True)


async def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--jobs", type=int, default=512, help="of one slice")
    parser.add_argument("--flying", type=int, default=64, help="at a time")
    parser.add_argument("--only", default="", help="services whose name has this in it")
    options = parser.parse_args()
    configure(LogSettings(level="info"), role="bench")
    print("| service | way | us of processor time per job | over bare |\n|---|---|---|---|")
    async with engine_limiter() as limiter:
        for scene in SCENES:
            if options.only in scene.name:
                await measure(scene, options, limiter)


if __name__ == "__main__":
    asyncio.run(main())  # the loop that `hostler worker` runs on
