"""One engine, one client process, one or two worker processes, and a socket that hears when jobs begin."""

import asyncio
import json
import os
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from redis.asyncio import Redis

from benchmarks.peers.catalogue import ROOT, SIDES, Peer
from hostler.testing.environments import environment_python
from hostler.valkeyio.embedded import server_program

WARM: Final = 30.0
"""Seconds until a worker's first job may have begun."""
_TOLD = struct.Struct("qqq")


class Beacon:
    """Hears of every job that begins: when it was submitted or due, and when it began, in ns."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 24)
        self._socket.setblocking(False)
        self.begun: list[tuple[int, int]] = []
        self.sizes: set[int] = set()
        """Of the data that arrived."""
        self._more = asyncio.Event()
        self._wanted = 0
        asyncio.get_running_loop().add_reader(self._socket, self._hear)

    def _hear(self) -> None:
        with suppress(BlockingIOError):
            while True:
                sent, at, size = _TOLD.unpack(self._socket.recv(_TOLD.size))
                self.begun.append((sent, at))
                self.sizes.add(size)
                if len(self.begun) >= self._wanted:
                    self._more.set()

    async def until(self, count: int, *, seconds: float) -> list[tuple[int, int]]:
        """Return what began once there are `count`, or after so many seconds."""
        self._wanted = count
        self._more.clear()
        if len(self.begun) < count:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._more.wait()
        return self.begun

    def close(self) -> None:
        """Hear no more."""
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()


@dataclass
class Place:
    """An engine of one peer, and how its processes are started."""

    peer: Peer
    python: str
    port: int
    folder: Path
    beacon: Beacon
    client: "ClientProcess | None" = None
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list[subprocess.Popen[bytes]])

    @property
    def environment(self) -> dict[str, str]:
        """Return what the sides are told."""
        told = {"PEER_URL": f"redis://127.0.0.1:{self.port}/0", "PEER_BEACON": str(self.folder / "beacon")}
        return {**os.environ, "PYTHONPATH": str(SIDES), "PYTHONWARNINGS": "ignore", **told}

    def start(self, *words: str, stdin: int | None = None, stdout: int | None = None) -> "subprocess.Popen[bytes]":
        """Start one side."""
        return subprocess.Popen(
            [self.python, str(SIDES / "side.py"), self.peer.side, *words],
            cwd=SIDES,
            env=self.environment,
            stderr=(self.folder / "errors").open("ab"),
            start_new_session=True,
            stdin=stdin,
            stdout=stdout,
        )

    async def work(self, work: str, *, workers: int = 1) -> None:
        """Start workers and return once a job of theirs has begun; what was heard is forgotten."""
        if self.client is None:
            raise RuntimeError("the client comes first")
        self.workers += [self.start("worker", work, stdout=subprocess.DEVNULL) for _ in range(workers)]
        await self.client.do(do="singly", work=work, count=1, size=0, seconds=WARM)
        if not await self.beacon.until(1, seconds=WARM):
            raise RuntimeError(f"{self.peer.name}: no job began; {(self.folder / 'errors').read_text()[-600:]}")
        self.beacon.begun.clear()

    async def drain(self, work: str, count: int, *, workers: int, seconds: float) -> list[tuple[int, int]]:
        """Let new workers at what waits and return what began within `seconds` after the first."""
        self.workers += [self.start("worker", work, stdout=subprocess.DEVNULL) for _ in range(workers)]
        if not await self.beacon.until(1, seconds=WARM):
            raise RuntimeError(f"{self.peer.name}: no job began; {(self.folder / 'errors').read_text()[-600:]}")
        return list(await self.beacon.until(count, seconds=seconds))


class ClientProcess:
    """The client of a peer, in a process of its own."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._process = place.start("client", stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    async def _line(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = await asyncio.get_running_loop().run_in_executor(None, self._process.stdout.readline)
        if not line:
            said = (self._place.folder / "errors").read_text()[-600:]
            raise RuntimeError(f"{self._place.peer.name}: its client ended; {said}")
        return json.loads(line)

    async def ready(self) -> None:
        """Return once it is connected."""
        await self._line()

    async def do(self, **order: Any) -> tuple[int, float]:
        """Have an order done; return how many jobs were submitted and how many seconds it took."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        self._process.stdin.flush()
        answer = await self._line()
        return answer["done"], answer["took"]

    def end(self) -> None:
        """End it."""
        end(self._process)


def end(process: "subprocess.Popen[bytes]") -> None:
    """Kill a process that was started as a session, with its children."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def free_port() -> int:
    """Return a port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@asynccontextmanager
async def place(peer: Peer, sync: str) -> AsyncGenerator[Place]:
    """Yield an empty engine that syncs `always` or `everysec`, with the peer's client connected."""
    python = sys.executable if peer.lock is None else str(environment_python(peer.lock, ROOT / ".cache"))
    with tempfile.TemporaryDirectory(prefix="peer") as name:
        folder, port = Path(name), free_port()
        safe = ("--appendonly", "yes", "--appendfsync", sync, "--save", "", "--maxmemory-policy", "noeviction")
        server = subprocess.Popen(  # noqa: ASYNC220 - nobody else waits here
            [str(server_program()), "--port", str(port), "--bind", "127.0.0.1", "--dir", name, *safe],
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        beacon = Beacon(folder / "beacon")
        there = Place(peer=peer, python=python, port=port, folder=folder, beacon=beacon)
        try:
            await _answers(port)
            there.client = ClientProcess(there)
            await there.client.ready()
            yield there
        finally:
            for process in there.workers:
                end(process)
            if there.client is not None:
                there.client.end()
            end(server)
            beacon.close()


async def _answers(port: int) -> None:
    client = Redis(port=port)
    try:
        while True:
            with suppress(ConnectionError, OSError):
                await client.ping()  # pyright: ignore[reportUnknownMemberType, reportGeneralTypeIssues] - redis-py's own type
                return
            await asyncio.sleep(0.05)
    finally:
        await client.aclose()


def rate(begun: list[tuple[int, int]]) -> float:
    """Return jobs a second between the first and the last that began."""
    times = sorted(at for _, at in begun)
    return (len(times) - 1) / ((times[-1] - times[0]) / 1e9) if len(times) > 1 else 0.0


def delays(begun: list[tuple[int, int]]) -> tuple[float, float]:
    """Return the median and the 99th percentile of the time from submit, or due time, to start, in ms."""
    late = sorted((at - sent) / 1e6 for sent, at in begun)
    return statistics.median(late), late[min(len(late) - 1, int(len(late) * 0.99))]
