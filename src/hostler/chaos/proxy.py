"""A TCP proxy that is a bad network: slow, narrow, deaf on one side, gone, or cutting what runs through it.

    async with FaultProxy(("127.0.0.1", port)) as proxy:
        proxy.set(both=Weather(latency=0.2, jitter=0.1))
        proxy.set(up=Weather(lost=True))         # one-way: nothing more arrives at the server
        proxy.reset()                            # every connection that is open ends with a reset
        proxy.heal()

`up` is from the client to the server, `down` is back. What is lost is held: as in a real partition, whose
packets are sent again by TCP, it arrives late once the way is clear, if both ends are still there.
"""

import asyncio
import contextlib
import random
import socket
import struct
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from msgspec import Struct

from hostler.kernel.units import Bytes, Seconds

CHUNK: Final = 65_536
"""Bytes that travel together."""
SLICE: Final[Seconds] = 0.05
"""A narrow way lets through what it can in this time, again and again."""
CONNECT: Final[Seconds] = 5.0
CLOSING: Final[Seconds] = 2.0
_RESET: Final = struct.pack("ii", 1, 0)
"""Of `SO_LINGER`: a close sends a reset at once."""

Target = tuple[str, int] | Path
"""Where the server is: host and port, or a Unix socket."""


class Weather(Struct, frozen=True, kw_only=True):
    """What becomes of the bytes of one direction."""

    latency: Seconds = 0.0
    jitter: Seconds = 0.0
    """Added to the latency, at most; order is kept."""
    rate: int | None = None
    """Bytes a second."""
    lost: bool = False
    """Nothing comes through."""
    cut_after: Bytes | None = None
    """Each connection is reset after so many bytes more."""


CLEAR: Final = Weather()


class FaultProxy:
    """`async with` listens on a free port of loopback; its weather may change at any time."""

    def __init__(self, target: Target, *, seed: int = 0) -> None:
        self.target = target
        self.port = 0
        self._dice = random.Random(seed)  # noqa: S311 - jitter that repeats itself, not a secret
        self._ways = {"up": _Way(self._dice), "down": _Way(self._dice)}
        self._refusing = False
        self._open: set[_Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._open)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=CHUNK)
        self.port = int(self._server.sockets[0].getsockname()[1])
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.close()
        self.reset()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def set(self, *, both: Weather | None = None, up: Weather | None = None, down: Weather | None = None) -> None:
        """Change the weather; a direction that is not named stays as it is. It holds for what runs already too."""
        for way, weather in (("up", up or both), ("down", down or both)):
            if weather is not None:
                self._ways[way].change(weather)

    def reset(self, *, refusing: bool = False) -> None:
        """End every connection with a reset; `refusing` treats new ones alike until `heal`."""
        self._refusing = refusing
        for connection in tuple(self._open):
            connection.abort()

    def heal(self) -> None:
        """Let everything through again, what was held included."""
        self._refusing = False
        self.set(both=CLEAR)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        if self._refusing:
            _abort(writer)
            return
        connection = _Connection(reader, writer)
        self._open.add(connection)
        try:
            await connection.run(self.target, self._ways)
        except (OSError, TimeoutError, ExceptionGroup, asyncio.CancelledError):
            pass  # either end went away, or all of this ends: the other learns it by the reset below
        finally:
            self._open.discard(connection)
            connection.abort()


class _Way:
    """One direction of all connections."""

    def __init__(self, dice: random.Random) -> None:
        self.weather = CLEAR
        self._changed = asyncio.Event()
        self._dice = dice

    def change(self, weather: Weather) -> None:
        self.weather = weather
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def passes(self) -> None:
        """Wait out the latency, and as long as nothing comes through."""
        delay = self.weather.latency + self.weather.jitter * self._dice.random()
        if delay > 0:
            await asyncio.sleep(delay)
        while self.weather.lost:
            await self._changed.wait()


class _Connection:
    """One client and its connection to the server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writers = [writer]
        self._cut = False

    async def run(self, target: Target, ways: dict[str, _Way]) -> None:
        await ways["up"].passes()
        async with asyncio.timeout(CONNECT):
            reader, writer = await _connect(target)
        self._writers.append(writer)
        if self._cut:
            return
        async with asyncio.TaskGroup() as both:
            both.create_task(self._pump(self._reader, writer, ways["up"]))
            both.create_task(self._pump(reader, self._writers[0], ways["down"]))
        for each in self._writers:
            each.close()
        async with asyncio.timeout(CLOSING):
            await asyncio.gather(*(each.wait_closed() for each in self._writers))

    def abort(self) -> None:
        self._cut = True
        for writer in self._writers:
            _abort(writer)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: _Way) -> None:
        weather, passed = way.weather, 0
        while chunk := await reader.read(CHUNK):
            await way.passes()
            while chunk:
                if way.weather is not weather:
                    weather, passed = way.weather, 0
                some = chunk if weather.rate is None else chunk[: max(1, int(weather.rate * SLICE))]
                left = None if weather.cut_after is None else weather.cut_after - passed
                writer.write(some[:left] if left is not None else some)
                await writer.drain()
                passed += len(some)
                if left is not None and len(some) >= left:
                    await self._end()
                    return
                chunk = chunk[len(some) :]
                if weather.rate is not None:
                    await asyncio.sleep(len(some) / weather.rate)
        await way.passes()
        if writer.can_write_eof():
            writer.write_eof()

    async def _end(self) -> None:
        """Reset both ends, after what was let through has left this process."""
        for writer in self._writers:
            with contextlib.suppress(OSError):
                await writer.drain()
        self.abort()


async def _connect(target: Target) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if isinstance(target, Path):
        return await asyncio.open_unix_connection(str(target), limit=CHUNK)
    return await asyncio.open_connection(*target, limit=CHUNK)


def _abort(writer: asyncio.StreamWriter) -> None:
    sock: socket.socket | None = writer.get_extra_info("socket")
    if sock is not None and sock.family != socket.AF_UNIX:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()
