"""Several real servers on loopback, each with a folder and a port of its own: what a fail-over needs."""

import asyncio
import shutil
import signal
import socket
import subprocess
import tempfile
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

from hostler.kernel.errors import HostlerError
from hostler.kernel.settings import EngineSettings
from hostler.valkeyio.client import make_client, make_pool, send
from hostler.valkeyio.embedded import server_program
from hostler.valkeyio.faults import mapped

HOST = "127.0.0.1"
SAFE: Mapping[str, str] = {
    "bind": HOST,
    "save": '""',
    "appendonly": "yes",
    "appendfsync": "always",
    "maxmemory-policy": "noeviction",
    "repl-diskless-sync-delay": "0",
    "logfile": "log",
}


class NodeSet(ABC):
    """Several of them that belong together."""

    @abstractmethod
    def __init__(self, program: Path | None = None, settings: Mapping[str, str] | None = None) -> None:
        """Make them, of this program and with these settings besides; none runs yet."""

    @abstractmethod
    async def start(self) -> None:
        """Start all of them, and wait until they are ready."""

    @abstractmethod
    async def end(self) -> None:
        """Kill all of them and remove what they wrote."""

    @classmethod
    @asynccontextmanager
    async def started(
        cls, program: Path | None = None, settings: Mapping[str, str] | None = None
    ) -> AsyncGenerator[Self]:
        """Yield a set that is ready to fail over, and end it."""
        found = await asyncio.to_thread(cls, program, settings)
        try:
            await found.start()
            yield found
        finally:
            await found.end()


def free_ports(n: int) -> list[int]:
    """Return ports that nobody listens on now."""
    holders = [socket.socket() for _ in range(n)]
    try:
        for holder in holders:
            holder.bind((HOST, 0))
        return [holder.getsockname()[1] for holder in holders]
    finally:
        for holder in holders:
            holder.close()


class Node:
    """One server process, started with a configuration file that it may write to.

    Its files lie in `folder`, one of its own unless given; `before` are words before its command line.
    """

    def __init__(
        self,
        port: int,
        lines: Sequence[str],
        *words: str,
        program: Path | None = None,
        folder: Path | None = None,
        before: Sequence[str] = (),
    ) -> None:
        self.port = port
        self.url = f"redis://{HOST}:{port}"
        self.folder = folder or Path(tempfile.mkdtemp(prefix="h", dir="/tmp"))
        self._before = tuple(before)
        self._file = self.folder / "conf"
        self._words = words
        self._program = program or server_program()
        self._name = "redis-server" if program else str(self._program)
        self._process: subprocess.Popen[bytes] | None = None
        self._file.write_text("\n".join((f"port {port}", f"dir {self.folder}", *lines, "")))

    @property
    def pid(self) -> int | None:
        """Return the id of its process; None while it does not run."""
        return None if self._process is None else self._process.pid

    @property
    def runs(self) -> bool:
        """Whether its process was started and not killed."""
        return self._process is not None

    def start(self) -> None:
        """Start it; blocks for a moment."""
        words = [str(self._file), *self._words]
        if self._before:
            command, program = [*self._before, str(self._program), *words], None
        else:
            command, program = [self._name, *words], self._program
        self._process = subprocess.Popen(command, executable=program, stdout=subprocess.DEVNULL)  # noqa: S603 - the program that the package brings, or a test found

    def signal(self, number: signal.Signals) -> None:
        """Send its process a signal."""
        if self._process is not None:
            self._process.send_signal(number)

    def kill(self) -> None:
        """Kill it as `kill -9` does; blocks until it is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    async def command(self, *words: str | bytes | float) -> Any:
        """Send one command, on a connection of its own."""
        client = make_client(make_pool(EngineSettings(connect_timeout=1.0), self.url, name="servers", limit=1))
        try:
            with mapped():
                return await send(client, *words)
        finally:
            await client.aclose()

    async def answers(self) -> bool:
        """Tell whether it answers."""
        try:
            await self.command("PING")
        except HostlerError:
            return False
        return True

    async def end(self) -> None:
        """Kill it and remove what it wrote."""
        await asyncio.to_thread(self.kill)
        await asyncio.to_thread(shutil.rmtree, self.folder, ignore_errors=True)
