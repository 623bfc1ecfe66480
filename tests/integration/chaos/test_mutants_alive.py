"""Defects that show only in real time and under real power: both are caught from the history, the true code is not."""

import asyncio
import shutil
import tempfile
import threading
from collections.abc import AsyncGenerator, Generator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any, Self

import pytest

import hostler
from hostler.broker.desk import EngineDesk
from hostler.broker.engine import EngineBroker
from hostler.broker.foreman import EngineForeman
from hostler.chaos.judge import Report, judge
from hostler.chaos.power import PowerCut, compiler
from hostler.chaos.reading import Record, read_history
from hostler.chaos.record import Header, Mark
from hostler.chaos.recorder import RecordedDesk, read_all
from hostler.chaos.server import EngineServer
from hostler.chaos.tape import Tape
from hostler.contracts.queue import KindSpec, QueueSpec
from hostler.kernel.settings import EngineSettings
from hostler.ports.broker import Broker, Desk, Foreman
from hostler.ports.registry import Registry
from hostler.registry.engine import EngineRegistry
from hostler.registry.kinds import Kinds
from hostler.testing.bench import Clients
from hostler.testing.broker_house import request
from hostler.testing.eventually import eventually
from hostler.testing.fabric import Fabric, Ports
from hostler.valkeyio.engine import Engine
from hostler.valkeyio.library import Library
from hostler.worker.heartbeat import Link
from hostler.worker.system import SystemClock

from .workload import found

QUEUE = "main"
LEASE = 2.0
BLOCKED = 4.0
"""Longer than a lease and the reaper's turn."""
TRIES = 5
"""A sync may come between the last answer and the cut; then nothing is lost."""


@pytest.fixture(autouse=True)
def no_blocking_calls() -> None:
    """A loop is blocked on purpose here, and the tape joins its thread where the loop runs."""


@pytest.fixture
def folder() -> Generator[Path]:
    made = Path(tempfile.mkdtemp(prefix="h", dir="/tmp"))
    (made / "data").mkdir()
    yield made
    shutil.rmtree(made, ignore_errors=True)


@asynccontextmanager
async def desk_of(socket: Path) -> AsyncGenerator[tuple[Desk, Foreman]]:
    async with aclosing(Clients(socket)) as clients:
        library = Library(clients)
        await library.ensure()
        kinds = Kinds(clients, library=library)
        async with aclosing(EngineDesk(clients, library=library, kinds=kinds)) as desk:
            yield desk, EngineForeman(clients, library=library, kinds=kinds)


async def cut(folder: Path, *options: str) -> Report:
    """Submit to an engine whose power is cut right after an answer; judge what it knows after it started again."""
    power, file, clock = await PowerCut.build(folder), folder / "history.ndjson", SystemClock()
    data = folder / "data"

    def synced() -> bool:
        files = [path for path in data.rglob("*.aof") if path.stat().st_size]
        return bool(files) and all(power._synced(one.stat().st_ino) >= one.stat().st_size for one in files)  # pyright: ignore[reportPrivateUsage] - its notes

    engine = EngineServer(data, folder / "s", log=folder / "engine.log", environment=power.environment, options=options)
    async with engine:
        with Tape.open(file, clock) as tape:
            tape.write(Header(began_at=clock.now()))
            async with desk_of(engine.socket) as (desk, foreman):
                await foreman.declare_queue(QueueSpec(name=QUEUE))
                await foreman.declare_kind(KindSpec(name="work", queue=QUEUE))
                await eventually(synced, within=20)
                client = RecordedDesk(desk, tape, "client")
                for number in range(40):
                    await client.submit([request()], operation=f"o{number}", queue=QUEUE)
                await engine.kill()
            power.cut(data)
            await engine.start()
            async with desk_of(engine.socket) as (desk, foreman):
                await read_all(tape.write, QUEUE, desk, foreman)
            tape.mark("read")
    return judge(read_history(file))


@pytest.mark.skipif(compiler() is None, reason="no C compiler")
async def test_a_power_cut_loses_nothing_when_every_write_is_synced(folder: Path) -> None:
    report = await cut(folder)
    assert found(report) == {}
    assert report.ruling("S1").verdict == "held"


@pytest.mark.skipif(compiler() is None, reason="no C compiler")
@pytest.mark.row("000:48")
async def test_an_engine_that_syncs_every_second_is_caught_by_a_power_cut(folder: Path) -> None:
    reports: list[Report] = []
    while len(reports) < TRIES and not any(one.broken() for one in reports):
        place = folder / str(len(reports))
        (place / "data").mkdir(parents=True)
        reports.append(await cut(place, "--appendfsync", "everysec"))
    report = reports[-1]
    assert "S1" in found(report)
    assert (report.lost.middle, report.lost.prefix + report.lost.postfix > 0) == (0, True)


class Neighbour:
    """Another process's upkeep, in a thread and on a loop of its own; sees when a lease is taken back."""

    def __init__(self, settings: EngineSettings) -> None:
        self._settings = settings
        self._stop = threading.Event()
        self.reaped = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._turn()), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *why: object) -> None:
        self._stop.set()
        self._thread.join(20)

    async def _turn(self) -> None:
        async with ports_of(self._settings) as ports:
            while not await asyncio.to_thread(self._stop.wait, 0.05):
                while (await ports.foreman.tick(QUEUE)).more:
                    pass
                page = await ports.desk.events(QUEUE, after=0)
                if any(event.type == "reap" for event in page.events):
                    self.reaped.set()


@asynccontextmanager
async def ports_of(settings: EngineSettings) -> AsyncGenerator[Ports]:
    async with Engine.open(settings, role="test") as engine:
        await Library(engine).ensure()
        async with aclosing(EngineBroker(engine)) as broker, aclosing(EngineDesk(engine)) as desk:
            yield Ports(broker=broker, desk=desk, foreman=EngineForeman(engine), registry=EngineRegistry(engine))


def link_to(settings: EngineSettings) -> Link:
    @asynccontextmanager
    async def link() -> AsyncGenerator[tuple[Broker, Registry]]:
        async with ports_of(settings) as ports:
            yield ports.broker, ports.registry

    return link


async def blocked(settings: EngineSettings, link: Link | None) -> Report:
    """Run one job that blocks its worker's loop for longer than a lease lasts."""
    clock = SystemClock()
    lines: list[Any] = [Mark(what="began", t_mono=clock.monotonic(), t_wall=clock.now())]
    async with ports_of(settings) as ports:
        fabric = Fabric(ports)
        await ports.foreman.declare_queue(QueueSpec(name=QUEUE, lease=LEASE))
        with Neighbour(settings) as neighbour:

            @hostler.handler("loop.block", queue=QUEUE)
            async def block(call: hostler.Call[Any]) -> None:
                neighbour.reaped.wait(BLOCKED)

            async with fabric.worker(block, slots=1, link=link):
                await fabric.ended(await fabric.submit("loop.block"), within=30)
        await read_all(lambda *more: lines.extend(more), QUEUE, ports.desk, ports.foreman)
    return judge(Record(header=Header(began_at=clock.now()), lines=tuple(lines)))


async def test_a_heart_in_a_thread_of_its_own_keeps_the_lease_of_a_blocked_loop(
    engine_settings: EngineSettings,
) -> None:
    report = await blocked(engine_settings, link_to(engine_settings))
    assert report.ruling("L4").verdict == "held"


@pytest.mark.row("000:48")
async def test_a_heart_on_the_work_loop_is_caught(engine_settings: EngineSettings) -> None:
    report = await blocked(engine_settings, None)
    assert "nothing was broken" in found(report)["L4"][0]
