"""Child processes that are started, watched, started again when they crash, and ended together."""

import asyncio
import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self

import msgspec
from msgspec import Struct

from hostler.cli.output import USAGE
from hostler.kernel.errors import HostlerError, InternalError, SettingsError
from hostler.kernel.table import PREFIX
from hostler.kernel.units import Seconds

TETHER: Final = "--tether"
"""Hidden flag of processes that end when the one that started them is gone."""

READY: Final = "ready"
"""The event with which a child says that it has started."""
BACKOFF_FIRST: Final[Seconds] = 0.5
BACKOFF_MOST: Final[Seconds] = 8.0
STEADY: Final[Seconds] = 30.0
"""A child that lived this long starts its backoff anew."""
TETHER_GRACE: Final[Seconds] = 5.0
"""How long a process may go on after the one that started it is gone."""


class ChildSpec(Struct, frozen=True, kw_only=True):
    """What to run."""

    name: str
    arguments: tuple[str, ...]
    """Of the command `hostler`."""
    bare: bool = False
    """Without the operator's `HOSTLER_*`: its settings are in its arguments alone."""
    before: tuple[str, ...] = ()
    """Words before its command line: a program that runs it, and becomes it."""
    environment: Mapping[str, str] = {}
    """Variables that it has besides: what must not stand in its arguments."""
    log: Path | None = None
    """Where its stderr goes; this process's own unless given."""
    restart: bool = True


class Child:
    """One process, and those that take its place."""

    def __init__(self, spec: ChildSpec) -> None:
        self.spec = spec
        self.arguments = spec.arguments
        """What the next start of it gets."""
        self.process: asyncio.subprocess.Process | None = None
        self.starts = 0
        self.said: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        """JSON lines that it wrote to stdout."""
        self.was_ready = False
        """Whether it has ever said that it is ready."""

    @property
    def pid(self) -> int | None:
        """Return the id of the process that runs now."""
        return self.process.pid if self.process and self.process.returncode is None else None


class Children:
    """Supervises any number of children; `async with` ends them all, in the reverse order of their start."""

    def __init__(self, report: Callable[[Mapping[str, Any]], None], *, grace: Seconds) -> None:
        self._report = report
        self._grace = grace
        self._watchers: dict[Child, asyncio.Task[None]] = {}
        self._stopping = False
        self.failed: asyncio.Future[HostlerError] = asyncio.get_running_loop().create_future()
        """Set when a child cannot run: its settings are wrong, or it ended before it was ready."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self, spec: ChildSpec) -> Child:
        """Start a child and watch over it."""
        child = Child(spec)
        await self._spawn(child)
        self._watchers[child] = asyncio.create_task(self._watch(child), name=f"watch-{spec.name}")
        return child

    async def ready(self, child: Child, *, within: Seconds) -> dict[str, Any]:
        """Return the line with which a child says that it is ready; an error when it does not."""
        line = asyncio.create_task(_until_ready(child))
        done, _ = await asyncio.wait({line, self.failed}, timeout=within, return_when=asyncio.FIRST_COMPLETED)
        if line in done:
            return line.result()
        line.cancel()
        if self.failed.done():
            raise self.failed.result()
        raise InternalError(f"{child.spec.name} was not ready within {within:g} s; {_where(child.spec)}")

    async def stop(self) -> None:
        """End all children: asked first, killed after the grace. Idempotent."""
        self._stopping = True
        children = list(self._watchers)
        for child in reversed(children):
            if child.process is not None and child.process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    child.process.terminate()
        running = [child.process.wait() for child in children if child.process is not None]
        if running:
            waits = [asyncio.ensure_future(wait) for wait in running]
            _, late = await asyncio.wait(waits, timeout=self._grace)
            if late:
                for child in children:
                    kill_group(child)
                await asyncio.wait(late)
        for watcher in self._watchers.values():
            watcher.cancel()
        await asyncio.gather(*self._watchers.values(), return_exceptions=True)

    async def _spawn(self, child: Child) -> None:
        spec = child.spec
        log = spec.log.open("ab") if spec.log else None
        try:
            child.process = await asyncio.create_subprocess_exec(
                *spec.before,
                *hostler_command(*child.arguments, TETHER),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env=_environment(bare=spec.bare) | dict(spec.environment),
                start_new_session=True,
            )
        finally:
            if log is not None:
                log.close()
        child.starts += 1
        self._report({"event": "started", "name": spec.name, "pid": child.process.pid, "start": child.starts})

    async def _watch(self, child: Child) -> None:
        backoff = BACKOFF_FIRST
        while True:
            process = child.process
            if process is None or process.stdout is None:
                return
            began = time.monotonic()
            async for line in process.stdout:
                with contextlib.suppress(msgspec.DecodeError):
                    said = msgspec.json.decode(line, type=dict[str, Any])
                    child.was_ready = child.was_ready or said.get("event") == READY
                    child.said.put_nowait(said)
            code = await process.wait()
            if self._stopping:
                return
            hopeless = code == USAGE or not child.was_ready
            again = child.spec.restart and not hopeless
            self._report({"event": "ended", "name": child.spec.name, "pid": process.pid, "code": code, "again": again})
            if hopeless:
                self._give_up(child, code)
            if not again:
                return
            backoff = BACKOFF_FIRST if time.monotonic() - began > STEADY else min(backoff * 2, BACKOFF_MOST)
            await asyncio.sleep(backoff)
            await self._spawn(child)

    def _give_up(self, child: Child, code: int) -> None:
        """Fail as a whole: what cannot even start once would only be started again and again."""
        kind = SettingsError if code == USAGE else InternalError
        if not self.failed.done():
            words = f"{child.spec.name} could not start, it ended with {code}; {_where(child.spec)}"
            self.failed.set_result(kind(words))


def _environment(*, bare: bool) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not (bare and name.startswith(PREFIX))}


def hostler_command(*arguments: str) -> tuple[str, ...]:
    """Return the command line of another `hostler` of this very installation."""
    return (sys.executable, "-m", "hostler", *arguments)


def kill_group(child: Child) -> None:
    """Kill a child and what it started; nothing happens when it has ended."""
    signal_group(child, signal.SIGKILL)


def signal_group(child: Child, number: signal.Signals) -> None:
    """Send a signal to a child and to what it started; nothing happens when it has ended."""
    if child.pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, number)


def tether() -> None:
    """End this process when the one that started it is gone: stdin is then at its end."""
    threading.Thread(target=_watch_stdin, name="tether", daemon=True).start()


def _watch_stdin() -> None:
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    threading.Event().wait(TETHER_GRACE)
    os.killpg(os.getpgid(0), signal.SIGKILL) if os.getpgid(0) == os.getpid() else os.kill(os.getpid(), signal.SIGKILL)


async def stop_requested() -> asyncio.Event:
    """Return an event that SIGTERM and SIGINT set; a second signal ends the process at once."""
    event = asyncio.Event()
    loop = asyncio.get_running_loop()

    def ask() -> None:
        if event.is_set():
            os._exit(130)
        event.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ask)
    return event


async def _until_ready(child: Child) -> dict[str, Any]:
    while True:
        said = await child.said.get()
        if said.get("event") == READY:
            return said


def _where(spec: ChildSpec) -> str:
    return f"its log is {spec.log}" if spec.log else "see its messages above"


def passed_on(flags: Sequence[tuple[str, Any]]) -> tuple[str, ...]:
    """Return flags as arguments for a child; those that were not given are left out."""
    arguments: list[str] = []
    for name, value in flags:
        if value is True:
            arguments.append(name)
        elif value is not None and value is not False and value != ():
            arguments += [name, str(value)]
    return tuple(arguments)
