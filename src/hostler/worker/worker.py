"""One worker: its parts put together, and its life from start to stop."""

import asyncio
import hashlib
import itertools
import os
import secrets
import socket
from collections.abc import Coroutine, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import msgspec
import structlog

from hostler.contracts.lease import LeaseRef
from hostler.contracts.worker import Worker as WorkerRecord
from hostler.contracts.worker import WorkerState
from hostler.kernel.settings import WorkerSettings
from hostler.kernel.units import Seconds
from hostler.kernel.version import __version__
from hostler.ports.blobs import Blobs
from hostler.ports.broker import Broker, Foreman
from hostler.ports.clock import Clock, Dice
from hostler.ports.connector import Connector
from hostler.ports.discovery import Discovery, Placed
from hostler.ports.limiter import Limiter
from hostler.ports.registry import Registry
from hostler.ports.results import Results
from hostler.worker.board import Board
from hostler.worker.capacity import Capacity
from hostler.worker.crew import Crew
from hostler.worker.endpoints import Stations
from hostler.worker.fitness import Check, Fitness
from hostler.worker.handlers import HandlerSet
from hostler.worker.heartbeat import Link, News, Tempo
from hostler.worker.life import Life
from hostler.worker.loop import ClaimLoop
from hostler.worker.patience import persist
from hostler.worker.pauses import Pauses
from hostler.worker.presence import Presence
from hostler.worker.processes import ProcessPool
from hostler.worker.reports import Reporters
from hostler.worker.runs import Cause, Tools
from hostler.worker.settler import Settlers
from hostler.worker.stock import WorkerStock
from hostler.worker.swaps import Swaps
from hostler.worker.upkeep import Neighbours, Upkeep

_LOG = structlog.stdlib.get_logger("hostler.worker")

REFRESH = 5
"""Turns after which its record is written anew: a beat, which tells it, is seconds away."""
LAST_WORDS: Seconds = 8.0
"""How long giving back may take after the grace, while the engine is slow or away."""


class Worker:
    """Claims jobs and runs them on its connectors and handlers; made on the loop that runs it.

    `run` ends when the worker has stopped; `drain`, `pause` and `resume` may be called from that loop at any
    time, and come through `Registry.command` too. `heartbeat_link` opens broker and registry once more for the
    heartbeat's own thread and loop; without it the heart beats on the work loop, through the objects given.
    It stays `starting`, with the reason, until all `checks` have passed once, and is `paused` while one fails later.
    """

    def __init__(  # noqa: PLR0917 - three ports, what runs jobs, and settings: the order is part of the interface
        self,
        broker: Broker,
        foreman: Foreman,
        registry: Registry,
        connectors: Sequence[Connector | Placed],
        handlers: HandlerSet,
        settings: WorkerSettings,
        *,
        clock: Clock,
        dice: Dice,
        machine: str | None = None,
        blobs: Blobs | None = None,
        discovery: Discovery | None = None,
        results: Results | None = None,
        limiter: Limiter | None = None,
        heartbeat_link: Link | None = None,
        tempo: Tempo | None = None,
        checks: Sequence[tuple[str, Check]] = (),
    ) -> None:
        run, self._drain, self._at_once = secrets.token_hex(4), asyncio.Event(), asyncio.Event()
        self.id = settings.id or f"worker-{run}"
        self._settings, self._foreman, self._clock, self._dice = settings, foreman, clock, dice
        self._machine, self._started_at = machine or socket.gethostname(), clock.now()
        self._stations = Stations(connectors, settings, self.id, (clock, dice), discovery=discovery, limiter=limiter)
        self._swaps = Swaps(broker, self._stations, self.id, dice, discovery=discovery)
        self._stock = WorkerStock(self.id, self._stations, handlers, settings.labels)
        self._capacity, self._life = Capacity(self.id, slots=settings.slots), Life(self.id, self._show)
        self._board, self._fitness = Board(self.id, now=clock.monotonic()), Fitness(checks)
        self._tools = Tools(
            worker=self.id,
            reporters=Reporters(
                broker, self.id, interval=settings.progress_interval, clock=clock, dice=dice, stale=self._lost
            ),
            settlers=Settlers(broker, self.id, dice=dice),
            processes=ProcessPool(),
            blobs=blobs,
            clock=clock,
            dice=dice,
            others_fit=Neighbours(registry, self.id, clock).fit,
            results=results,
        )
        self._crew = Crew(self._tools, self._capacity, self._board, self._count)
        self._tempo = tempo or Tempo(beat=settings.heartbeat, ttl=settings.ttl)
        self._presence = Presence(
            self._board, (broker, registry), heartbeat_link, self._tempo, clock=clock, dice=dice, hear=self._hear
        )
        self._claims = ClaimLoop(
            broker,
            self._stock,
            self._capacity,
            self._crew,
            name=(self.id, run),
            idle_poll=settings.idle_poll,
            clock=clock,
            dice=dice,
            idle=lambda: self._life.running(len(self._crew.jobs)),
        )
        self._upkeep = Upkeep(foreman, lambda rows: self._stock.adopt(rows) and self._offers_changed(), dice)
        self._pauses = Pauses(self._life, self._claims, lambda: len(self._crew.jobs))

    @property
    def state(self) -> WorkerState:
        """Return the worker's state now."""
        return self._life.state

    @property
    def jobs(self) -> tuple[str, ...]:
        """Return the ids of the jobs that it runs now."""
        return self._crew.jobs

    @property
    def blocked(self) -> tuple[str, ...]:
        """Return the stack of the work loop when it was last found blocked; empty when it never was."""
        return self._presence.blocked

    def drain(self, *, at_once: bool = False) -> None:
        """Claim no more, let running jobs go on for the grace time, give the rest back, and stop.

        `at_once`, also later, gives everything back now. No attempt is used up by it.
        """
        self._drain.set()
        if at_once:
            self._at_once.set()

    def pause(self) -> None:
        """Claim no more until `resume`; running jobs go on. While it starts: as soon as it is ready."""
        self._pauses.operator(pause=True)

    def resume(self) -> None:
        """Claim again after `pause`, if it is fit to."""
        self._pauses.operator(pause=False)

    async def run(self) -> None:
        """Start, work until drained, stop; raises what kept it from starting or broke it, after saying so."""
        parts = AsyncExitStack()
        ended = "stopped"
        try:
            try:
                await parts.enter_async_context(self._tools.processes)
                await parts.enter_async_context(self._stations)
                declared = await self._unless_drained(self._declare())
                self._life.note(await self._fitness.wrong())
            except Exception as error:  # raised again, once the registry knows why
                ended = "failed"
                self._life.move(WorkerState.FAILED, reason=f"{type(error).__name__}: {error}")
                self._presence.start()
                raise
            self._show()
            self._presence.start()
            await self._work(ready=declared)
        finally:
            await parts.aclose()
            await self._presence.end(ended)
        self._life.move(WorkerState.STOPPED, reason=self._life.reason)

    async def _work(self, *, ready: bool) -> None:
        """Work until drained; a part that breaks drains the worker, and is raised when that is done."""
        parts = [
            asyncio.create_task(part, name=name)
            for name, part in (
                ("pulse", self._pulse()),
                ("reports", self._tools.reporters.run()),
                ("claims", self._claims.run()),
                ("endpoints", self._stations.watch(self._offers_changed)),
                ("fitness", self._fitness.watch(self._pauses.unfit, self._dice, every=self._settings.probe_interval)),
                ("swaps", self._swaps.run(self._stock.shards, self._capacity.changed.set)),
                ("upkeep", self._upkeep.run()),
            )
        ]
        stop = asyncio.create_task(self._drain.wait(), name="drain")
        try:
            if (
                ready
                and await self._unless_drained(self._fitness.passed(self._life, every=self._settings.probe_interval))
                and await self._unless_drained(self._presence.announced())
            ):
                self._life.move(WorkerState.READY)
                if await self._unless_drained(self._presence.announced()):
                    self._pauses.ready()
                await asyncio.wait({stop, *parts}, return_when=asyncio.FIRST_COMPLETED)
            broken = [error for part in parts if part.done() and (error := part.exception()) is not None]
            await self._wind_down(broken[0] if broken else None)
            if broken:
                raise broken[0]
        finally:
            for task in (*parts, stop):  # first: a claim that is under way may still start attempts
                task.cancel()
            await asyncio.wait({*parts, stop})
            await self._crew.close()
            await self._tools.settlers.close()

    async def _wind_down(self, error: BaseException | None) -> None:
        """Drain: wait for what runs as long as the grace allows, give the rest back, be stopping."""
        self._claims.close()
        reason = None if error is None else f"{type(error).__name__}: {error}"
        if self._life.state is not WorkerState.STARTING:
            self._life.move(WorkerState.DRAINING, reason=reason)
            over = asyncio.create_task(self._finish_all())
            hurry = asyncio.create_task(self._at_once.wait())
            grace = 0.0 if error is not None else self._settings.grace
            await asyncio.wait({over, hurry}, timeout=grace, return_when=asyncio.FIRST_COMPLETED)
            hurry.cancel()
            self._crew.give_back()
            await asyncio.wait({over}, timeout=LAST_WORDS)
            if not over.done():
                _LOG.error("work is left behind, its leases will lapse", jobs=self._crew.jobs)
                over.cancel()
        self._life.move(WorkerState.STOPPING, reason=reason)

    async def _finish_all(self) -> None:
        await self._claims.settled()
        await self._crew.over()

    async def _unless_drained(self, what: Coroutine[Any, Any, None]) -> bool:
        """Await something and return True; give it up and return False when the worker is to stop before."""
        task = asyncio.create_task(what)
        stop = asyncio.create_task(self._drain.wait())
        try:
            await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                return False
            task.result()
            return True
        finally:
            task.cancel()
            stop.cancel()

    async def _declare(self) -> None:
        rows = await persist(self._foreman.registry, dice=self._dice, what="read the kinds")
        self._stock.adopt(rows)
        for spec in self._stock.kinds():
            await persist(
                partial(self._foreman.declare_kind, spec), dice=self._dice, what=f"declare the kind {spec.name}"
            )

    async def _pulse(self) -> None:
        for turn_ in itertools.count():
            self._board.turn(self._clock.monotonic())
            if turn_ % REFRESH == 0:
                self._presence.refresh(self._record())
            await asyncio.sleep(self._tempo.pulse)

    def _hear(self, news: News) -> None:
        if news.catalogue is not None:
            self._upkeep.changed()
        if news.renewal is not None:
            for ref in news.renewal.lost:
                self._lost(ref)
            for ref in news.renewal.cancelled:
                self._crew.tell(ref, Cause.CANCEL)
        verbs = {"pause": self.pause, "resume": self.resume, "drain": self.drain}
        for command in news.commands:
            if command in verbs:
                verbs[command]()
            else:
                _LOG.warning("unknown command", command=command)

    def _lost(self, ref: LeaseRef) -> None:
        self._crew.tell(ref, Cause.LOST)

    def _count(self) -> None:
        """Be busy with the first lease; ready again is said once a claim found nothing (`ClaimLoop`)."""
        if running := self._capacity.running:
            self._life.running(running)

    def _offers_changed(self) -> None:
        self._show()
        self._capacity.changed.set()

    def _show(self) -> None:
        self._presence.show(self._record())

    def _record(self) -> WorkerRecord:
        now = self._clock.now()
        settings = msgspec.json.encode(msgspec.structs.replace(self._settings, id=None), order="sorted")
        jobs = self._crew.jobs
        return WorkerRecord(
            id=self.id,
            state=self._life.state,
            machine=self._machine,
            pid=os.getpid(),
            version=__version__,
            slots=self._settings.slots,
            running=len(jobs),
            queues=self._stock.queues(),
            offers=self._stock.all_offers(),
            endpoints=self._stock.endpoints(),
            started_at=self._started_at,
            seen_at=now,
            expires_at=now,
            loop_age=0.0,
            settings=hashlib.sha256(settings).hexdigest()[:12],
            reason=self._life.reason,
            jobs=jobs,
        )
