"""Plays one plot to its end and judges what was recorded."""

import asyncio
import contextlib
import gc
import logging
import random
from collections.abc import Callable, Coroutine, Generator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final, TypeVar, cast

import msgspec
import structlog

from hostler.broker.model import ModelBroker
from hostler.chaos.check import Submission
from hostler.contracts.job import Submitted
from hostler.contracts.queue import QueueSpec
from hostler.kernel.errors import EngineError, HostlerError
from hostler.kernel.settings import WorkerSettings
from hostler.kernel.units import Seconds
from hostler.ports.broker import Broker, Desk, Foreman
from hostler.ports.registry import Registry
from hostler.testing.clock import SeededDice
from hostler.testing.sims.knobs import SimKnobs
from hostler.testing.simulation.entrance import Entrance
from hostler.testing.simulation.judging import Record, Told, judged
from hostler.testing.simulation.loop import StalledError, VirtualLoop
from hostler.testing.simulation.network import EngineLine, Path, Server, SharedEngine, Weather
from hostler.testing.simulation.plot import BUSY, HOMES, LEASE, LONGEST, Asked, Fault, Plot
from hostler.testing.simulation.service import Service, SimulatedConnector
from hostler.worker.call import Call
from hostler.worker.handlers import HandlerSet, handler
from hostler.worker.heartbeat import Tempo
from hostler.worker.worker import Worker

T = TypeVar("T")

EPOCH: Final = datetime(2026, 1, 1, tzinfo=UTC)
WELL: Final[Seconds] = BUSY + LONGEST
"""From then on services do not fail any more: breakers that stay open for minutes would show nothing new."""
PATIENCE: Final[Seconds] = 1_200.0
"""How long everything may take to come to its end once no more faults come. What services began to do before then may
still fail or hang, so that a breaker may let one try a minute through: sixteen jobs, a quarter of a minute each."""
STANDSTILL: Final[Seconds] = 600.0
"""When nothing happens for so long, nothing will: a breaker lets somebody try each minute."""
LOOK: Final[Seconds] = 0.25
"""How often it is looked whether everything has come to its end."""
SUCCESSOR: Final[Seconds] = 2.0
"""After so long a worker that was killed or drained has a successor."""
QUEUES: Final = tuple(HOMES.values())
CUT: Final = 0.5
"""Share of answers that break off before a queue's server is away."""
TEMPO: Final = Tempo(pulse=1.0, sample=1.0)
"""A loop cannot be stuck here while the heart beats on, so nothing depends on how often that is looked at."""
LOSSY: Final = Weather(delay=0.2, lost_requests=0.2, lost_answers=0.2)
AWAY: Final = Weather(refused=True)


class VirtualClock:
    """The clocks of one process; its wall clock may be off."""

    def __init__(self, loop: VirtualLoop, skew: Seconds = 0.0) -> None:
        self._loop = loop
        self._began = EPOCH + timedelta(seconds=skew)

    def now(self) -> datetime:
        """Return the wall clock."""
        return self._began + timedelta(seconds=self._loop.time())

    def monotonic(self) -> float:
        """Return seconds that only rise."""
        return self._loop.time()


@handler("sum.up")
async def sum_up(call: Call[Any]) -> int:
    """Wait as long as the payload says, and give its value back."""
    await asyncio.sleep(call.payload["duration"])
    return call.payload["value"]


class Member:
    """One worker process: the owner that it is in the loop, and its ways out."""

    def __init__(self, name: str, slots: int) -> None:
        self.name = name
        self.slots = slots
        self.worker: Worker | None = None
        self.task: asyncio.Task[None] | None = None
        self.paths: list[Path] = []
        self.dead = False


class Story:
    """The world of one plot."""

    def __init__(self, plot: Plot, loop: VirtualLoop) -> None:
        self._plot = plot
        self._loop = loop
        self._dice = random.Random(f"{plot.seed} ways")  # noqa: S311 - a story, not a secret
        self._engine = SharedEngine(ModelBroker(VirtualClock(loop)), QUEUES)
        knobs = SimKnobs(
            duration=1.0,
            steps=2,
            slots=plot.service_slots,
            backlog=2,
            hang_rate=plot.hang_rate,
            failures=plot.failures,
            seed=plot.seed,
        )
        self._services = [Service(knobs, attempts=plot.attempts) for _ in range(plot.services)]
        self._entrance = Entrance(loop, self._engine, self._dice, plot.gateways)
        self._members: list[Member] = []
        self._all: list[Member] = []
        self._client = Path(loop, "client-engine", self._dice)
        self._submitted: list[Submission] = []
        self._findings: list[str] = []

    async def play(self) -> Told:
        """Let it happen, wait for the end of every job, and judge."""
        model = self._engine.model
        for queue in QUEUES:
            await model.declare_queue(QueueSpec(name=queue, lease=LEASE, cancel_grace=LEASE))
        for kind in (*self._services[0].kinds, *HandlerSet.of(sum_up).kinds()):
            await model.declare_kind(kind)
        self._members = [self._hire(slots) for slots in self._plot.slots]
        things = [
            self._later(each.at, partial(self._ask, number, each)) for number, each in enumerate(self._plot.asked)
        ]
        things += [self._later(each.at, partial(self._strike, each)) for each in self._plot.faults]
        await asyncio.gather(*things)
        await self._end_of_all()
        took = self._loop.time()
        self._findings += await self._entrance.end()
        await self._stop()
        record = Record(
            model=self._engine.model,
            plot=self._plot,
            submitted=self._submitted,
            told=self._engine.told,
            heard={reader.name: reader.heard for reader in self._entrance.readers},
            slots={member.name: member.slots for member in self._all},
            effects=[desk.effects.effects for service in self._services for desk in service.desks],
        )
        return await judged(record, took, self._findings)

    async def _later(self, seconds: Seconds, what: Callable[[], Coroutine[Any, Any, None]]) -> None:
        await asyncio.sleep(seconds)
        await what()

    # who takes part

    def _hire(self, slots: int) -> Member:
        member = Member(f"w{len(self._all) + 1}", slots)
        self._all.append(member)
        engine = self._way(member, "engine")
        connectors = [
            SimulatedConnector(f"s{number}", service, self._way(member, f"s{number}"))
            for number, service in enumerate(self._services)
        ]
        clock = VirtualClock(self._loop, skew=self._dice.uniform(-3.0, 3.0))
        member.task = self._loop.start(self._work(member, engine, connectors, clock), member.name)
        return member

    def _way(self, member: Member, to: str) -> Path:
        path = Path(self._loop, f"{member.name}-{to}", self._dice)
        member.paths.append(path)
        return path

    async def _work(
        self, member: Member, engine: Path, connectors: list[SimulatedConnector], clock: VirtualClock
    ) -> None:
        line: Any = EngineLine(self._engine, engine)
        member.worker = Worker(
            cast("Broker", line),
            cast("Foreman", line),
            cast("Registry", line),
            connectors,
            HandlerSet.of(sum_up),
            WorkerSettings(id=member.name, slots=member.slots, grace=3.0),
            clock=clock,
            dice=SeededDice(self._dice.randrange(2**32)),
            machine="here",
            tempo=TEMPO,
        )
        await member.worker.run()

    # what happens

    async def _ask(self, number: int, asked: Asked) -> None:
        desk = cast("Desk", EngineLine(self._engine, self._client))
        operation = f"submit-{number}"
        (told,) = await persisted(lambda: desk.submit((asked.request,), operation=operation))
        if isinstance(told, Exception):
            if asked.request.idempotency_key is None or not isinstance(told, HostlerError):
                self._findings.append(f"a submit was refused: {told!r}")
            return
        self._note(told, asked)
        if asked.follow is not None:
            self._entrance.read(told.id, asked.follow)
        if asked.again:
            (twice,) = await persisted(lambda: desk.submit((asked.request,), operation=operation))
            if not isinstance(twice, Submitted) or twice.id != told.id:
                self._findings.append(f"a submit that was sent again is {twice!r}, at first {told.id}")
        if asked.cancel_after is not None:
            await asyncio.sleep(asked.cancel_after)
            with contextlib.suppress(HostlerError):  # it has ended already
                await persisted(lambda: desk.cancel(told.id, operation=f"cancel-{operation}"))

    def _note(self, told: Submitted, asked: Asked) -> None:
        self._submitted.append(Submission(id=told.id, created=told.created, request=asked.request))

    async def _strike(self, fault: Fault) -> None:
        member = self._members[fault.target % len(self._members)]
        service = self._services[fault.target % len(self._services)]
        match fault.kind:
            case "freeze":
                await self._freeze(member, fault.length)
            case "kill":
                member.dead = True
                self._loop.freeze(member.name)
                await self._succeed(member)
            case "drain":
                if member.worker is not None and not member.dead:
                    member.worker.drain()
                    await self._succeed(member)
            case "engine away" | "engine restart" | "queue away":
                await self._strike_engine(fault)
            case "lossy":
                await self._weather(member.paths, LOSSY, fault)
            case "service away":
                ending = f"-s{self._services.index(service)}"
                await self._weather([path for path in self._paths() if path.name.endswith(ending)], AWAY, fault)
            case "service anew":
                await service.begin_anew()
            case _:
                await self._strike_gateway(fault)

    async def _strike_engine(self, fault: Fault) -> None:
        if fault.kind == "queue away":
            await self._fall(self._engine.servers[QUEUES[fault.target % len(QUEUES)]], fault.length)
            return
        await self._weather([path for path in self._paths() if path.name.endswith("-engine")], AWAY, fault)
        if fault.kind == "engine restart":
            self._engine.model.restart()

    async def _strike_gateway(self, fault: Fault) -> None:
        if (front := self._entrance.struck(fault.target)) is None:
            return
        match fault.kind:
            case "gateway freeze":
                await self._entrance.freeze(front, fault.length)
            case "gateway lossy":
                await self._weather([front.path], LOSSY, fault)
            case _:
                (front.die if fault.kind == "gateway kill" else front.stop)()
                await asyncio.sleep(SUCCESSOR)
                self._entrance.replace(front)

    async def _fall(self, server: Server, length: Seconds) -> None:
        """Let connections to it break for a while, then let it be away; the other queues' goes on."""
        server.cuts = CUT
        await asyncio.sleep(length / 2)
        server.cuts, server.away = 0.0, True
        await asyncio.sleep(length / 2)
        server.away = False

    async def _freeze(self, member: Member, length: Seconds) -> None:
        self._loop.freeze(member.name)
        await asyncio.sleep(length)
        if not member.dead:
            self._loop.thaw(member.name)

    async def _succeed(self, member: Member) -> None:
        await asyncio.sleep(SUCCESSOR)
        if member in self._members:
            self._members[self._members.index(member)] = self._hire(member.slots)

    async def _weather(self, paths: list[Path], weather: Weather, fault: Fault) -> None:
        for path in paths:
            path.weather = weather
        await asyncio.sleep(fault.length)
        for path in paths:
            path.weather = Weather()

    def _paths(self) -> list[Path]:
        return [self._client, *self._entrance.paths, *(path for member in self._all for path in member.paths)]

    # how it ends

    async def _end_of_all(self) -> None:
        """Wait until every job has ended."""
        ends = WELL + PATIENCE
        moves = moved = 0.0
        while left := self._engine.model.left:
            now = self._loop.time()
            if self._engine.model.moves != moves:
                moves, moved = self._engine.model.moves, now
            if now > min(ends, moved + STANDSTILL):
                self._findings.append(
                    f"L1: not ended after {now:.0f} s, nothing since {moved:.0f} s: {', '.join(left)}"
                )
                return
            await asyncio.sleep(LOOK)
            if now > WELL:
                for service in self._services:
                    service.be_well()

    async def _stop(self) -> None:
        """Drain the workers that live; each must end, and leave nothing running."""
        await asyncio.sleep(LOOK)  # who was hired last begins first
        living = [member for member in self._all if not member.dead]
        for member in living:
            if member.worker is not None:
                member.worker.drain()
        tasks = {member.task: member.name for member in living if member.task is not None}
        _, late = await asyncio.wait(tasks, timeout=60.0)
        self._findings += [f"{tasks[task]} did not stop" for task in late]
        self._findings += [f"{name} broke: {error!r}" for task, name in tasks.items() if (error := _error(task))]
        for member in living:
            left = [task.get_coro() for task in self._loop.tasks_of(member.name) if task not in late]
            self._findings += [f"{member.name} left {each!r} running" for each in left]


async def persisted(what: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Ask until the engine answers, with the same operation each time."""
    while True:
        try:
            return await what()
        except EngineError:
            await asyncio.sleep(0.5)


def _error(task: asyncio.Task[None]) -> BaseException | None:
    return task.exception() if task.done() and not task.cancelled() else None


@contextlib.contextmanager
def _muted() -> Generator[None]:
    """Let nobody log: what a story has to say is in what it comes to."""
    before, disabled = structlog.get_config(), logging.root.manager.disable
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(disabled)
        structlog.configure(**before)


@contextlib.contextmanager
def _kept() -> Generator[None]:
    """Let nothing be collected meanwhile: a story is small, and looked through as a whole when it is over."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def tell(plot: Plot) -> Told:
    """Play a plot on a loop of its own; a story that cannot go on is a finding."""
    loop = VirtualLoop(plot.seed)
    unheard: list[str] = []
    loop.set_exception_handler(
        lambda _, said: unheard.append(f"nobody heard: {said.get('exception') or said['message']!r}")
    )
    story = Story(plot, loop)
    with _muted(), _kept():
        try:
            told = loop.run_until_complete(story.play())
        except StalledError as error:
            told = Told(
                seed=plot.seed, findings=(str(error),), jobs=0, claims=0, heard=0, seconds=loop.time(), digest=""
            )
        gc.collect(0)  # what nobody heard is known when the task is gone; all that the story made is young
        told = msgspec.structs.replace(told, findings=(*told.findings, *unheard))
        loop.end()
    return told
