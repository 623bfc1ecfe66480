"""One run of the demo: submit, watch, kill, explain, cancel, wait for every end, and judge."""

import asyncio
import contextlib
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any, Final

from hostler.broker.desk import EngineDesk
from hostler.chaos.check import Effect, Submission, Terms, check
from hostler.cli.demo.load import Group, Planned
from hostler.cli.demo.screen import Screen
from hostler.cli.demo.stage import SLOTS, Stage
from hostler.cli.demo.verdict import Kill, Promise, Verdict, judge
from hostler.client import Fleet
from hostler.contracts.event import Event
from hostler.contracts.worker import WorkerState
from hostler.kernel.errors import HostlerError, InternalError
from hostler.kernel.settings import EngineSettings
from hostler.kernel.units import Seconds
from hostler.testing.sims.effects import Effect as SimEffect
from hostler.valkeyio.engine import Engine

LIMIT: Final[Seconds] = 54.0
"""Since the demo began; what has not ended by then is judged as lost."""
BATCH: Final = 40
KILL_AT: Final = 0.3
"""Share of jobs that have ended when a worker is killed, as soon as it holds enough."""
HOLDS: Final = 3
LOOK: Final[Seconds] = 0.25
UNWORKABLE_WITHIN: Final[Seconds] = 6.0
"""A job that nobody can serve is known as such by then."""
_LIVE: Final = frozenset({WorkerState.READY, WorkerState.BUSY})


class Run:
    """What one run has seen so far."""

    def __init__(
        self,
        stage: Stage,
        fleet: Fleet,
        screen: Screen,
        report: Callable[[Mapping[str, Any]], None],
        *,
        began: float,
    ) -> None:
        self._stage = stage
        self._fleet = fleet
        self._screen = screen
        self._report = report
        self._began = began
        self._promises: list[Promise] = []
        self._events: dict[str, list[Event]] = defaultdict(list)
        self._ended: set[str] = set()
        self._held: dict[str, set[str]] = defaultdict(set)
        self._kill: Kill | None = None
        self._findings: list[str] = []
        self._news = asyncio.Event()

    async def perform(self, load: list[Planned]) -> Verdict:
        """Do everything and return the verdict."""
        await self._workers_ready()
        settings = EngineSettings(data=str(self._stage.data))
        async with Engine.open(settings, role="demo") as engine, self._watching(EngineDesk(engine)):
            self._screen.phase(f"submitting {len(load)} jobs")
            await self._submit(load)
            self._screen.phase("working")
            async with asyncio.TaskGroup() as group:
                group.create_task(self._strike())
                group.create_task(self._turn_away())
            self._screen.phase("waiting for the last ends")
            await self._until(lambda: self._waiting() == 0)
            await self._until(lambda: self._kill is None or self._recovered())
            self._screen.phase("judging")
            return await self._judge()

    async def _submit(self, load: list[Planned]) -> None:
        for start in range(0, len(load), BATCH):
            part = load[start : start + BATCH]
            answers = await self._fleet.submit_many([(one.kind, one.payload, _options(one)) for one in part])
            for one, answer in zip(part, answers, strict=True):
                if isinstance(answer, HostlerError):
                    raise answer
                self._promises.append(
                    Promise(
                        job=answer.id,
                        created=answer.created,
                        servable=one.group is not Group.UNSERVABLE,
                        duplicate=one.group is Group.DUPLICATE,
                    )
                )

    async def _strike(self) -> None:
        """Kill a worker in the middle, while it holds jobs."""
        enough = KILL_AT * len(self._promises)
        await self._until(lambda: len(self._ended) >= enough and self._victim() is not None)
        victim = self._victim()
        if victim is not None:
            self._kill = self._stage.kill(victim)

    async def _turn_away(self) -> None:
        """Ask why nobody serves what nobody can serve, then cancel it."""
        for promise in self._promises:
            if promise.servable:
                continue
            explanation = await self._fleet.explain(promise.job)
            patience = time.monotonic() + UNWORKABLE_WITHIN
            while not explanation.unworkable and time.monotonic() < patience:
                await asyncio.sleep(LOOK)
                explanation = await self._fleet.explain(promise.job)
            lacking = [need.key for need in explanation.needs if need.lacking]
            self._report(
                {
                    "event": "explained",
                    "job": promise.job,
                    "unworkable": explanation.unworkable,
                    "lacking": lacking,
                    "reasons": explanation.reasons,
                }
            )
            if not explanation.unworkable or not lacking:
                self._findings.append(f"nobody said why {promise.job} cannot be served")
            await self._fleet.cancel(promise.job, reason="nobody can serve it")

    async def _judge(self) -> Verdict:
        logs = await self._stage.effects()
        findings = [*self._findings, *self._invariants([effect for log in logs for effect in log])]
        effects = [[Effect(job=one.job, fence=one.fence, type=one.type) for one in log] for log in logs]
        events = [event for found in self._events.values() for event in found]
        return judge(
            self._promises, events, effects, self._kill, took=time.monotonic() - self._began, findings=findings
        )

    def _invariants(self, effects: list[SimEffect]) -> list[str]:
        """Judge each queue's history by the invariants of the reliability suite."""
        done = [Effect(job=effect.job, fence=effect.fence) for effect in effects if effect.type == "finished"]
        found: list[str] = []
        for events in self._events.values():
            jobs = {event.job for event in events}
            verdict = check(
                events,
                submitted=[
                    Submission(id=promise.job, created=promise.created)
                    for promise in self._promises
                    if promise.job in jobs
                ],
                effects=[effect for effect in done if effect.job in jobs],
                terms=Terms(slots=dict.fromkeys(self._held, SLOTS)),
            )
            found.extend(str(finding) for finding in verdict.findings)
        return found

    def _victim(self) -> str | None:
        """Return the first worker that holds enough jobs to be worth killing."""
        return next((worker for worker in self._stage.workers if len(self._held[worker]) >= HOLDS), None)

    def _waiting(self) -> int:
        return len({promise.job for promise in self._promises} - self._ended)

    def _recovered(self) -> bool:
        return self._kill is not None and not self._held[self._kill.worker]

    async def _until(self, check_: Callable[[], bool]) -> None:
        """Wait for a fact, at most until the demo's limit."""
        while not check_() and time.monotonic() - self._began < LIMIT:
            self._news.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), LOOK)

    async def _workers_ready(self) -> None:
        async def ready() -> bool:
            workers = await self._fleet.workers.list()
            well = [row for row in workers if row.state in _LIVE and all(offer.healthy for offer in row.offers)]
            return len(well) == len(self._stage.workers)

        while not await ready():
            if time.monotonic() - self._began > LIMIT:
                raise InternalError("the workers were not ready in time.")
            await asyncio.sleep(LOOK)

    @contextlib.asynccontextmanager
    async def _watching(self, desk: EngineDesk) -> AsyncGenerator[None]:
        """Read every queue's events from its first offset, and look at queues and workers for the screen."""
        queues = [row.name for row in await self._fleet.queues.list()]
        tasks = [asyncio.create_task(self._tail(desk, queue)) for queue in queues]
        tasks.append(asyncio.create_task(self._look()))
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await desk.aclose()

    async def _tail(self, desk: EngineDesk, queue: str) -> None:
        after = 0
        while True:
            page = await desk.events(queue, after=after, wait=1.0)
            if page.gap:
                self._findings.append(f"events of {queue} were gone before they were read")
            after = page.next if page.events else after
            for event in page.events:
                after = max(after, event.offset)
                self._take(queue, event)

    def _take(self, queue: str, event: Event) -> None:
        self._events[queue].append(event)
        self._news.set()
        self._screen.event(event)
        if event.job is None or event.state is None:
            return
        for held in self._held.values():
            held.discard(event.job)
        if event.state == "running" and event.worker is not None:
            self._held[event.worker].add(event.job)
        if event.state.terminal:
            self._ended.add(event.job)

    async def _look(self) -> None:
        while True:
            with contextlib.suppress(HostlerError):  # a picture that comes late harms nobody
                rows = await self._fleet.queues.list()
                self._screen.facts([row.stats for row in rows], await self._fleet.workers.list())
            await asyncio.sleep(LOOK)


def _options(one: Planned) -> dict[str, Any]:
    options: dict[str, Any] = {"idempotency_key": one.key, "needs": one.needs, "priority": one.priority}
    if one.delay is not None:
        options["delay"] = one.delay
    return options
