"""Everything that a rig runs, as processes on loopback: engine, gateways, workers, simulated services, bad networks."""

import asyncio
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final, Self

from msgspec import Struct

from hostler.chaos.clock import FakedClock
from hostler.chaos.kinds import Part
from hostler.chaos.tied import TIED
from hostler.cli.children import READY, Child, Children, ChildSpec, kill_group, signal_group
from hostler.cli.rig.engines import SENTINELS, Alone, Watched
from hostler.cli.rig.house import PRESS, write_settings
from hostler.cli.rig.secrets import Canaries
from hostler.cli.rig.ways import Ways
from hostler.kernel.units import Seconds

ENGINE: Final = "engine"
PRIMARY: Final = "primary"
"""Whichever it is when it is struck."""
READY_WITHIN: Final[Seconds] = 90.0
GRACE: Final[Seconds] = 5.0
FREE: Final = "0"
ANY: Final = "127.0.0.1:0"
"""Any free port."""

Report = Callable[[Mapping[str, Any]], None]
"""Told what happens, one event at a time."""


class Cast(Struct, frozen=True, kw_only=True):
    """How many of each, and what they are like."""

    workers: int = 3
    gateways: int = 2
    services: int = 2
    slots: int = 6
    """Of one worker."""
    service_slots: int = 8
    knobs: Mapping[str, Any] = {}
    """Of every service, all the time."""
    small_disk: bool = False
    """The engine's files lie on a disk that can be full."""
    power_cut: bool = False
    """What the engine syncs is noted."""
    watched: bool = False
    """The engine is a primary with two replicas and three sentinels."""
    faked_clock: bool = False
    """The first worker's clock can be set."""
    metered: bool = False
    """One more endpoint, whose calls are limited, and which the last worker does not serve."""
    depth: int | None = None
    """Of each queue, where it is to have a limit."""
    level: str = "info"
    """From which importance on processes log."""


def targets(cast: Cast) -> dict[Part, tuple[str, ...]]:
    """Return what can be struck, by name."""
    workers, gateways = names("worker", cast.workers), names("gateway", cast.gateways)
    services = names("studio", cast.services)
    return {
        Part.WORKER: workers,
        Part.GATEWAY: gateways,
        Part.ENGINE: () if cast.watched else (ENGINE,),
        Part.LINK: () if cast.watched else (*workers, *gateways),
        Part.PRIMARY: (PRIMARY,) if cast.watched else (),
        Part.SENTINEL: SENTINELS if cast.watched else (),
        Part.SERVICE: services,
        Part.SERVICE_LINK: services,
        Part.CLOCK: workers[:1],
        Part.MACHINE: names("machine", min(map(len, (workers, gateways, services)))),
    }


def names(what: str, count: int) -> tuple[str, ...]:
    """Return the names of so many of one sort."""
    return tuple(f"{what}-{number}" for number in range(1, count + 1))


class Stage:
    """`async with` starts everything and ends it; `folder` holds data, settings, logs and effects."""

    def __init__(self, folder: Path, cast: Cast, report: Report, *, seed: int) -> None:
        self.folder = folder
        self.cast = cast
        self.workers = names("worker", cast.workers)
        callers = (*self.workers, *names("gateway", cast.gateways))
        services = names("studio", cast.services)
        self.canaries = Canaries.drawn()
        self.engine: Alone | Watched = (
            Watched(folder, self.canaries)
            if cast.watched
            else Alone(folder, self.canaries, small_disk=cast.small_disk, power_cut=cast.power_cut)
        )
        socket = self.engine.socket if isinstance(self.engine, Alone) else None
        self.ways = Ways(socket, callers, services, metered=cast.metered, seed=seed)
        self.services: dict[str, str] = {}
        """Where each really is."""
        self.gateways: dict[str, str] = {}
        self.clock: FakedClock | None = None
        self.felled: set[int] = set()
        """Processes that were killed as planned."""
        self._report = report
        self._seed = seed
        self._stack = AsyncExitStack()
        self._children: dict[str, Child] = {}
        self._ids: dict[str, list[str]] = {}

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self.engine)
            await stack.enter_async_context(self.ways)
            if self.cast.faked_clock:
                self.clock = await FakedClock.make(self.folder)
            file, depth, level = self.folder / "hostler.toml", self.cast.depth, self.cast.level
            await asyncio.to_thread(write_settings, file, self.ways.ports(), depth=depth, level=level)
            children = await stack.enter_async_context(Children(self._report, grace=GRACE))
            stack.callback(self._kill)
            await self._start_all(children)
            await self._until_ready(stack, children)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    def child(self, name: str) -> Child:
        """Return a process by name."""
        return self._children[name]

    def members(self, machine: str) -> tuple[str, str, str]:
        """Return what stands on a machine: its worker, its gateway, its service."""
        number = machine.rpartition("-")[2]
        return f"worker-{number}", f"gateway-{number}", f"studio-{number}"

    def ids(self, worker: str) -> tuple[str, ...]:
        """Return the ids that a worker's processes have had, oldest first."""
        return tuple(self._ids.get(worker, ()))

    def calm(self) -> None:
        """Let everything that was frozen go on, and everything through that was held."""
        for child in self._children.values():
            signal_group(child, signal.SIGCONT)
        self.engine.go_on()
        self.ways.heal()

    def log(self, name: str) -> Path:
        """Return where a process logs."""
        return self.folder / f"{name}.log"

    def files(self) -> list[Path]:
        """Return all that processes have written, the engine's own files included."""
        found = (path for folder in (self.folder, *self.engine.elsewhere) for path in folder.rglob("*"))
        return sorted(path for path in found if path.is_file() and not path.is_symlink())

    def effects(self, service: str) -> Path:
        """Return the log of what a service did."""
        return self.folder / f"{service}.effects.ndjson"

    async def _start_all(self, children: Children) -> None:
        """Start everything at once: what is needed is waited for by whoever needs it."""
        for number, name in enumerate(self.ways.services):
            seed = str((self._seed + number) % 2**63)
            knobs = ("--slots", str(self.cast.service_slots), "--duration", "0.5", "--seed", seed)
            effects = ("--effects", str(self.effects(name)), "--json")
            await self._start(children, name, "sim", "http", "--port", FREE, *knobs, *effects)
        for name in names("gateway", self.cast.gateways):
            await self._start(children, name, "gateway", "--bind", ANY, *self._common())
        for number, name in enumerate(self.workers):
            metered = self.cast.metered and name != self.workers[-1]
            served = ",".join(entry for entry in self.ways.ports() if metered or entry != PRESS) or "none"
            words = ("--connectors", served, "--handlers", "hostler.cli.rig.handlers", "--slots", str(self.cast.slots))
            before = self.clock.before if self.clock is not None and number == 0 else ()
            await self._start(children, name, "worker", *words, *self._common(), before=before)

    async def _until_ready(self, stack: AsyncExitStack, children: Children) -> None:
        for name in self.ways.services:
            url = self.services[name] = (await children.ready(self._children[name], within=READY_WITHIN))["url"]
            self.ways.aim(name, url)
            _keeps(self._children[name], FREE, url.rpartition(":")[2])
        for name in names("gateway", self.cast.gateways):
            child = self._children[name]
            url = self.gateways[name] = (await children.ready(child, within=READY_WITHIN))["url"]
            _keeps(child, ANY, url.removeprefix("http://"))
        for name in self.workers:
            said = await children.ready(self._children[name], within=READY_WITHIN)
            self._ids[name] = [said["worker"]]
            task = asyncio.create_task(self._listen(name))
            stack.callback(task.cancel)

    async def _listen(self, name: str) -> None:
        """Learn the ids of the processes that come after the first."""
        child = self._children[name]
        while True:
            said = await child.said.get()
            if said.get("event") == READY:
                self._ids[name].append(said["worker"])

    def _common(self) -> tuple[str, ...]:
        """Return what a process is told of the engine besides its own way to it, which holds a password."""
        return ("--wait-engine", "60", "--config", str(self.folder / "hostler.toml"), "--json")

    def _environment(self, name: str) -> Mapping[str, str]:
        if name in self.ways.services:
            return {}
        return {**self.canaries.environment, "HOSTLER_ENGINE": self.engine.url_for(self.ways.engine.get(name))}

    async def _start(self, children: Children, name: str, *arguments: str, before: Sequence[str] = ()) -> None:
        spec = ChildSpec(
            name=name,
            arguments=arguments,
            log=self.log(name),
            bare=True,
            environment=self._environment(name),
            before=(*before, *TIED),
        )
        self._children[name] = await children.start(spec)

    def _kill(self) -> None:
        """End all children at once: everything has been read, and what they would still do is nobody's business."""
        for child in self._children.values():
            kill_group(child)


def _keeps(child: Child, asked: str, got: str) -> None:
    """Let a child that was started anywhere start again where it is now."""
    child.arguments = tuple(got if word == asked else word for word in child.arguments)
