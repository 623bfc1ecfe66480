"""Measuring: submits, a drain and delays, on an engine and with a worker process of this run's own."""

import asyncio
import os
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

from hostler.broker.desk import EngineDesk
from hostler.broker.foreman import EngineForeman
from hostler.cli.bench import handlers
from hostler.cli.children import Children, ChildSpec
from hostler.contracts.job import JobRequest
from hostler.kernel.errors import InternalError
from hostler.kernel.settings import EngineSettings
from hostler.kernel.units import Seconds
from hostler.policy.lifecycle import Verb
from hostler.valkeyio.engine import Engine
from hostler.valkeyio.library import Library
from hostler.worker.handlers import HandlerSet

BATCH: Final = 100
"""Jobs of one submit."""
SLOTS: Final = 64
DATA: Final = 100
"""Bytes of a job's payload."""
JOBS_MOST: Final = 50_000
"""Jobs of one part at most."""
CALM: Final = 10
"""Delays are measured at this part of the rate that the worker reached."""
PACED_LEAST, PACED_MOST = 50, 2_000
_READY: Final[Seconds] = 60.0
_GRACE: Final[Seconds] = 10.0
_LOOK: Final[Seconds] = 0.02
_BEGUN: Final = 0.02
"""Part of the jobs after which the drain is timed: a worker that has just started is left out."""
_PAGE: Final = 1000

Tell = Callable[[str], None]


class Figures(Struct, frozen=True, kw_only=True):
    """What was measured; rates in jobs a second."""

    submits_singly: float
    """One awaited after the other, by one caller."""
    submits_batched: float
    """A hundred at a time, by one caller."""
    drained: float
    """Jobs that do nothing, waiting already, through one worker process: claimed, run, settled."""
    engine_us_submit: float
    """Microseconds that the engine is inside a function, for each job of a batch."""
    engine_us_drain: float
    """The same for claim and settlement; the worker's upkeep is in it."""
    start_p50_ms: float
    """From a submit to its claim, by the engine's clock, at a tenth of the rate drained."""
    start_p99_ms: float
    paced: float
    """That rate."""

    @property
    def possible(self) -> float:
        """Return the lives a second after which the engine's one thread would be full."""
        return 1e6 / (self.engine_us_submit + self.engine_us_drain)


async def measure(folder: Path, *, seconds: Seconds, tell: Tell) -> tuple[str, Figures]:
    """Measure for about so many seconds, and return the engine's version too; `folder` is for it, and empty."""
    async with _place(folder) as place:
        tell("submits, one after the other")
        singly = await place.submits(1, seconds=seconds / 5)
        tell("submits in batches")
        spent = await place.spent()
        batched = await place.submits(BATCH, seconds=seconds / 5)
        submit_us = (await place.spent() - spent) / place.last
        tell(f"a worker with {place.submitted:,} jobs waiting")
        spent = await place.spent()
        drained = await place.drain()
        drain_us = (await place.spent() - spent) / place.submitted
        paced = max(1.0, drained / CALM)
        tell(f"delays at {paced:,.0f} jobs a second")
        delays = await place.delays(paced, count=min(PACED_MOST, max(PACED_LEAST, int(paced * seconds / 5))))
        return place.engine, Figures(
            submits_singly=singly,
            submits_batched=batched,
            drained=drained,
            engine_us_submit=submit_us,
            engine_us_drain=drain_us,
            start_p50_ms=_part(delays, 0.5),
            start_p99_ms=_part(delays, 0.99),
            paced=paced,
        )


class _Place:
    """An engine with the kind that is measured, and the worker to come."""

    def __init__(self, engine: Engine, desk: EngineDesk, children: Children, folder: Path) -> None:
        self._engine, self._desk, self._children, self._folder = engine, desk, children, folder
        self._foreman = EngineForeman(engine)
        self.engine = engine.version
        self._payload = Raw(b'"' + b"x" * DATA + b'"')
        self._number = 0
        self.submitted = 0
        self.last = 0
        """Jobs that the last part submitted."""

    async def submits(self, batch: int, *, seconds: Seconds) -> float:
        """Submit for so long, so many at once, and return jobs a second."""
        began, self.last = time.monotonic(), 0
        while (took := time.monotonic() - began) < seconds and self.last < JOBS_MOST:
            await self.submit(batch)
        return self.last / took

    async def submit(self, count: int) -> None:
        """Submit some jobs; whatever is refused is raised."""
        requests = [JobRequest(kind="bench.noop", payload=self._payload) for _ in range(count)]
        self._number += 1
        for answer in await self._desk.submit(requests, operation=f"bench/{self._number}"):
            if isinstance(answer, Exception):
                raise answer
        self.submitted += count
        self.last += count

    async def spent(self) -> float:
        """Return the microseconds that the engine was inside functions so far."""
        stats: dict[str, Any] = await self._engine.command("INFO", "commandstats")
        return float(sum(row["usec"] for name, row in stats.items() if name.startswith("cmdstat_fcall")))

    async def drain(self) -> float:
        """Start a worker, return once nothing waits, and say how many jobs a second ended meanwhile."""
        await self._worker()
        first: tuple[float, int] | None = None
        while True:
            stats, now = await self._foreman.stats(handlers.QUEUE), time.monotonic()
            done = stats.totals["succeeded"]
            if first is None and done >= _BEGUN * self.submitted:
                first = now, done
            if done >= self.submitted:
                break
            if stats.totals["dead"]:
                raise InternalError(f"{stats.totals['dead']} of the jobs failed: look at {self._folder / 'worker.log'}")
            await asyncio.sleep(_LOOK)
        began, before = first or (now, done)
        return (done - before) / (now - began) if now > began else 0.0

    async def delays(self, rate: float, *, count: int) -> list[float]:
        """Submit at a steady rate and return the milliseconds from each submit to its claim, sorted."""
        after = (await self._foreman.stats(handlers.QUEUE)).offset
        began = time.monotonic()
        for number in range(count):
            await asyncio.sleep(max(0.0, began + number / rate - time.monotonic()))
            await self.submit(1)
        submitted: dict[str, float] = {}
        found: list[float] = []
        while len(found) < count:
            page = await self._desk.events(handlers.QUEUE, after=after, limit=_PAGE, wait=_GRACE)
            if not page.events:
                raise InternalError(f"{count - len(found)} of {count} jobs were not claimed within {_GRACE:g} s")
            for event in page.events:
                if event.job is not None and event.type == Verb.SUBMIT:
                    submitted[event.job] = event.at.timestamp()
                elif event.job is not None and event.type == Verb.CLAIM and event.job in submitted:
                    found.append((event.at.timestamp() - submitted.pop(event.job)) * 1000)
            after = page.next
        return sorted(found)

    async def _worker(self) -> None:
        words = (
            "worker",
            "--data",
            str(self._folder),
            "--handlers",
            handlers.__name__,
            "--slots",
            str(SLOTS),
            "--json",
        )
        log = self._folder / "worker.log"
        spec = ChildSpec(name="worker", arguments=words, bare=True, log=log, restart=False)
        child = await self._children.start(spec)
        await self._children.ready(child, within=_READY)


@asynccontextmanager
async def _place(folder: Path) -> AsyncGenerator[_Place]:
    async with (
        Engine.open(EngineSettings(data=str(folder)), role="bench") as engine,
        Children(lambda _: None, grace=_GRACE) as children,
    ):
        await Library(engine).ensure()
        foreman = EngineForeman(engine)
        for kind in HandlerSet.of(handlers.noop).kinds():
            await foreman.declare_kind(kind)
        async with aclosing(EngineDesk(engine)) as desk:
            yield _Place(engine, desk, children, folder)


def _part(values: list[float], part: float) -> float:
    return values[min(len(values) - 1, int(len(values) * part))]


class Machine(Struct, frozen=True, kw_only=True):
    """Where it was measured."""

    cores: int
    load: float
    """Average of a minute before it began: above a half, other work was measured as well."""
    engine: str
    version: str


def busy() -> float:
    """Return the load of the last minute; 0 where the system does not say."""
    try:
        return round(os.getloadavg()[0], 2)
    except OSError:
        return 0.0


class Run(Struct, frozen=True, kw_only=True):
    """A whole run, as `--json` prints it and `--compare` reads it."""

    machine: Machine
    figures: Figures


def read(text: bytes) -> Run:
    """Return a run that was printed as JSON; `msgspec.MsgspecError` for anything else."""
    return msgspec.json.decode(text, type=Run)
