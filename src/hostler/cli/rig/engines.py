"""The engine of a rig, and how it is broken and mended: one server that stands alone, or three that sentinels watch."""

import asyncio
import signal
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final, Self

from msgspec import Struct

from hostler.chaos.disk import SmallDisk
from hostler.chaos.kinds import Kind
from hostler.chaos.nodes import Node
from hostler.chaos.power import PowerCut
from hostler.chaos.proxy import FaultProxy
from hostler.chaos.schedule import Strike
from hostler.chaos.sentinel_set import SentinelSet
from hostler.chaos.server import EngineServer
from hostler.chaos.tied import TIED
from hostler.cli.rig.secrets import Canaries
from hostler.kernel.units import Seconds

SENTINELS: Final = ("sentinel-1", "sentinel-2", "sentinel-3")
NODES: Final = ("server-1", "server-2", "server-3", *SENTINELS)
IN_FLIGHT: Final[Seconds] = 1.0
"""What a primary acknowledged so shortly before it was gone may not have reached a replica."""
LEFT_WITHIN: Final[Seconds] = 2.0
"""So long after all sentinels name another, every process has left the server that was the primary: it looks once in a
second at least, and gives a sentinel a second to answer."""


class Moments(Struct, frozen=True, kw_only=True):
    """One fault's moments by the rig's monotonic clock."""

    begin: Seconds
    """It was about to come."""
    broken: Seconds
    """It was there."""
    over: Seconds
    """It was about to be mended."""
    mended: Seconds


class Alone:
    """One server on a Unix socket; `async with` starts it and ends it."""

    def __init__(self, folder: Path, canaries: Canaries, *, small_disk: bool, power_cut: bool) -> None:
        self.socket = folder / "s"
        self.url = f"unix://{self.socket}"
        """For whoever looks on, without a bad network between."""
        self.disk: SmallDisk | None = None
        self.power: PowerCut | None = None
        self._folder = folder
        self._canaries = canaries
        self._small_disk, self._power_cut = small_disk, power_cut
        self._stack = AsyncExitStack()
        self._server: EngineServer | None = None

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            data = self._folder / "data"
            await asyncio.to_thread(data.mkdir)
            before: Sequence[str] = ()
            environment: Mapping[str, str] = {}
            if self._small_disk:
                self.disk = await stack.enter_async_context(SmallDisk(data))
                before = self.disk.joining
            if self._power_cut:
                self.power = await PowerCut.build(self._folder)
                environment = self.power.environment
            options = ("--user", *self._canaries.engine_user)
            server = EngineServer(
                data,
                self.socket,
                log=self._folder / "engine.log",
                before=before,
                environment=environment,
                options=options,
            )
            self._server = await stack.enter_async_context(server)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    def url_for(self, way: FaultProxy | None) -> str:
        """Return the URL for a process of the rig that comes this way."""
        return f"redis://{self._canaries.login}@127.0.0.1:{way.port}" if way is not None else self.url

    @property
    def server(self) -> EngineServer:
        """The server."""
        if self._server is None:
            raise RuntimeError("the engine was not started")
        return self._server

    @property
    def pid(self) -> int | None:
        """The id of its process; None while it does not run."""
        return self.server.pid

    @property
    def elsewhere(self) -> tuple[Path, ...]:
        """Where its files lie beside the folder that it was given."""
        return () if self.disk is None else (self.disk.seen,)

    async def begin(self, strike: Strike) -> str:
        """Break it; return what there is to say about it."""
        note = ""
        if strike.kind is Kind.ENGINE_STOP:
            self.server.stop()
        elif strike.kind is Kind.ENGINE_RESTART:
            await self.server.terminate()
        elif strike.kind is Kind.DISK_FULL and self.disk is not None:
            note = f"{await asyncio.to_thread(self.disk.fill)} bytes taken"
        else:
            await self.server.kill()
        if strike.kind is Kind.POWER_CUT and self.power is not None:
            where = self.disk.seen if self.disk is not None else self.server.folder
            note = f"{await asyncio.to_thread(self.power.cut, where)} bytes had not been synced"
        return note

    async def end(self, strike: Strike) -> str:
        """Mend it; return what more there is to say."""
        note = ""
        if strike.kind is Kind.DISK_FULL and self.disk is not None:
            await asyncio.to_thread(self.disk.free)
            if self.pid is not None:
                note = "; the engine wrote nothing meanwhile and lives"
        self.server.go_on()
        if self.pid is None:
            await self.server.start()
        return note

    def go_on(self) -> None:
        """Let it go on, if it was frozen."""
        self.server.go_on()

    def loses(self, _strike: Strike, _moments: Moments) -> tuple[tuple[Seconds, Seconds], ...]:
        """Return from when to when that was acknowledged which a fault may lose: nothing may be lost."""
        return ()


class Watched:
    """A primary, two replicas and three sentinels; `async with` starts them and ends them."""

    def __init__(self, folder: Path, canaries: Canaries) -> None:
        self._folder = folder
        self._canaries = canaries
        self._stack = AsyncExitStack()
        self._set: SentinelSet | None = None
        self._struck: dict[Strike, tuple[Node, tuple[Node, ...]]] = {}
        """The primary of a fault, and who replicated it then."""
        self._deposed: set[Strike] = set()
        """Faults whose primary came back, and could be written to, though another was or would be named."""

    async def __aenter__(self) -> Self:
        folders = [self._folder / name for name in NODES]
        settings = {"user": " ".join(self._canaries.engine_user)}
        self._set = await asyncio.to_thread(_made, folders, settings)
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._set.end)
            await self._set.start()
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    @property
    def url(self) -> str:
        """Where its sentinels are."""
        return self._nodes.url

    def url_for(self, _way: FaultProxy | None) -> str:
        """Return the URL for a process of the rig: it finds its own ways."""
        return self.url.replace("://", f"://{self._canaries.login}@", 1)

    @property
    def pid(self) -> int | None:
        """No one process is the engine."""
        return None

    @property
    def elsewhere(self) -> tuple[Path, ...]:
        """All its files lie in the folder that it was given."""
        return ()

    async def begin(self, strike: Strike) -> str:
        """Break it; return what there is to say about it."""
        if strike.kind is Kind.SENTINEL_KILL:
            await asyncio.to_thread(self._sentinel(strike).kill)
            return ""
        primary = await self._nodes.primary()
        replicas = tuple(node for node in self._nodes.servers if node is not primary)
        self._struck[strike] = primary, replicas
        if strike.kind is Kind.PRIMARY_KILL:
            await asyncio.to_thread(primary.kill)
        elif strike.kind is Kind.PRIMARY_STOP:
            primary.signal(signal.SIGSTOP)
        else:
            for node in replicas:
                node.signal(signal.SIGSTOP)
            if strike.kind is Kind.PRIMARY_PARTED:
                await primary.command("CLIENT", "KILL", "TYPE", "replica")
        return f"the primary was the server on port {primary.port}"

    async def end(self, strike: Strike) -> str:
        """Mend it; return what more there is to say."""
        if strike.kind is Kind.SENTINEL_KILL:
            await asyncio.to_thread(self._sentinel(strike).start)
            return ""
        primary, replicas = self._struck.pop(strike)
        named = await self._nodes.primary() is not primary
        if strike.kind is Kind.PRIMARY_LOST:
            for node in (primary, *replicas):  # what stands in a replica's buffers goes with its process
                await asyncio.to_thread(node.kill)
            for node in replicas:
                await asyncio.to_thread(node.start)
            await self._nodes.until_primary_is_not(primary)
        self.go_on()
        if not primary.runs:
            await asyncio.to_thread(primary.start)
        await self._nodes.agreed()
        now = await self._nodes.primary()
        comes_back = strike.kind is Kind.PRIMARY_STOP or (strike.kind is Kind.PRIMARY_KILL and not named)
        if comes_back and now is not primary:
            self._deposed.add(strike)
        return f"; now it is {'the same' if now is primary else f'the one on port {now.port}'}"

    def go_on(self) -> None:
        """Let all servers that were frozen go on."""
        for node in self._nodes.servers:
            node.signal(signal.SIGCONT)

    def loses(self, strike: Strike, moments: Moments) -> tuple[tuple[Seconds, Seconds], ...]:
        """Return from when to when that was acknowledged which a fault may lose.

        A primary that comes back to find that another was named answers those that have not left it yet; what it
        takes from them is thrown away when it becomes a replica.
        """
        if strike.kind in (Kind.SENTINEL_KILL, Kind.PRIMARY_PARTED):
            return ()
        gone = moments.over if strike.kind is Kind.PRIMARY_LOST else moments.broken
        first = (moments.begin - IN_FLIGHT, gone + IN_FLIGHT)
        return (first, (moments.over, moments.mended + LEFT_WITHIN)) if strike in self._deposed else (first,)

    @property
    def _nodes(self) -> SentinelSet:
        if self._set is None:
            raise RuntimeError("the servers were not started")
        return self._set

    def _sentinel(self, strike: Strike) -> Node:
        return self._nodes.sentinels[SENTINELS.index(strike.target)]


def _made(folders: Sequence[Path], settings: Mapping[str, str]) -> SentinelSet:
    for folder in folders:
        folder.mkdir()
    return SentinelSet(settings=settings, folders=folders, before=TIED)
