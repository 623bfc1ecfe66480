"""Many calls on one connection: written together and answered in order, so that one costs little.

What is handed in while the event loop turns once leaves in one write; the engine runs it in that order, syncs its log
once, and answers all of it. A call never waits for company.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Final, cast

import hiredis
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as ForeignConnectionError
from redis.exceptions import TimeoutError as ForeignTimeoutError

from hostler.kernel.units import Seconds
from hostler.valkeyio.client import BoundedPool, Client
from hostler.valkeyio.connections import Taken, take
from hostler.valkeyio.faults import NOTHING_SENT

MOST: Final = 64
"""Calls that wait for their answers on one connection before another one is used, as long as the pool has one."""

_PIPED: Final = frozenset({"FCALL", "FCALL_RO"})
"""What answers at once and needs no translation of its reply by the client library."""
_pack = cast("Callable[[tuple[Any, ...]], bytes]", hiredis.pack_command)  # pyright: ignore[reportUnknownMemberType] - its own type


class Piped:
    """A client that sends function calls through pipes and leaves everything else to the library's own."""

    def __init__(self, client: Redis, pool: BoundedPool, *, limit: Seconds) -> None:
        self._client = client
        self._pipes = Pipes(pool, limit=limit)

    @property
    def busy(self) -> bool:
        """Whether anybody waits for an answer to a function call."""
        return self._pipes.busy

    async def execute_command(self, *words: Any) -> Any:
        """Send one command and return its reply; see `client.send`."""
        if words[0] in _PIPED:
            return await self._pipes.call(words)
        return await cast("Client", self._client).execute_command(*words)

    def pubsub(self) -> Any:
        """Return a subscription to come."""
        return cast("Client", self._client).pubsub()

    async def disconnect(self) -> None:
        """Close all connections, those in use too: who waits gets an error now. The next call opens another."""
        await self._pipes.aclose()
        await self._client.connection_pool.disconnect()

    async def aclose(self) -> None:
        """Close all connections; who waits gets an error now."""
        await self._pipes.aclose()
        await self._client.aclose()


class Pipes:
    """The pipes to one server: one as a rule, more once those that there are have much to answer.

    A call ends at most `limit` seconds after it was sent: an answer that does not come breaks the pipe, and all that
    waits on it behind that call.
    """

    def __init__(self, pool: BoundedPool, *, limit: Seconds) -> None:
        self._pool = pool
        self._limit = limit
        self._pipes: list[Pipe] = []
        self._opening: asyncio.Task[None] | None = None
        self._ends: set[asyncio.Task[None]] = set()

    @property
    def busy(self) -> bool:
        """Whether anybody waits for an answer, or for a connection."""
        opening = self._opening is not None and not self._opening.done()
        return opening or any(pipe.waiting for pipe in self._pipes)

    async def call(self, words: tuple[Any, ...]) -> Any:
        """Send one command and return its reply; errors are the library's."""
        packed = _pack(words)
        pipe, more = self._fit()
        while pipe is None:
            await self._opened()
            pipe, more = self._fit()
        if more:  # and meanwhile a full one: another may take long to open, or never do
            self._another()
        return await pipe.send(packed)

    def _another(self) -> "asyncio.Task[None]":
        """Open another pipe, unless that is under way."""
        if self._opening is None or self._opening.done():
            self._opening = asyncio.create_task(self._open(), name="open a pipe")
            self._opening.add_done_callback(_heard)
        return self._opening

    async def _opened(self) -> None:
        """Return when a pipe was opened; raises why none was."""
        opening = self._another()
        await asyncio.wait({opening})
        if opening.cancelled():  # the pipes were closed, and nobody cancelled us
            error = ForeignConnectionError("the connection was closed")
            error.add_note(NOTHING_SENT)
            raise error
        opening.result()

    async def aclose(self) -> None:
        """Break all pipes and give their connections back."""
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.wait({self._opening})
        for pipe in tuple(self._pipes):
            pipe.abort()
        if self._ends:
            await asyncio.wait(self._ends)

    def _fit(self) -> "tuple[Pipe | None, bool]":
        """Return the pipe for one more call, and whether another is to be opened.

        Those that lead elsewhere by now are given up once they are empty.
        """
        least: Pipe | None = None
        for pipe in tuple(self._pipes):
            if pipe.leads_elsewhere:
                if not pipe.waiting:
                    pipe.abort()
            elif len(pipe.waiting) < MOST:
                return pipe, False
            elif least is None or len(pipe.waiting) < len(least.waiting):
                least = pipe
        return least, least is None or bool(self._pool.can_get_connection())

    async def _open(self) -> None:
        connection = await self._pool.get_connection()
        self._pipes.append(Pipe(take(connection), limit=self._limit, ended=self._ended))

    def _ended(self, pipe: "Pipe") -> None:
        self._pipes.remove(pipe)
        end = asyncio.create_task(self._give_back(pipe), name="give a connection back")
        self._ends.add(end)
        end.add_done_callback(self._ends.discard)

    async def _give_back(self, pipe: "Pipe") -> None:
        try:
            await pipe.taken.connection.disconnect(nowait=True)
        finally:
            await self._pool.release(pipe.taken.connection)


def _heard(opening: "asyncio.Task[None]") -> None:
    """Take note of how it ended, though everybody who waited may have gone away."""
    if not opening.cancelled():
        opening.exception()


class Pipe(asyncio.Protocol):
    """One connection, on which answers come in the order of the calls."""

    def __init__(self, taken: Taken, *, limit: Seconds, ended: "Callable[[Pipe], None]") -> None:
        self.taken = taken
        self.waiting: deque[tuple[asyncio.Future[Any], float]] = deque()
        """Who waits for an answer, and until when."""
        self.open = True
        self._limit = limit
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._reader = taken.reader
        self._out: list[bytes] = []
        self._timer: asyncio.TimerHandle | None = None
        self._why: Exception | None = None
        taken.transport.set_protocol(self)

    @property
    def leads_elsewhere(self) -> bool:
        """Tell whether the route leads to another server by now."""
        return self.taken.connection.should_reconnect()

    async def send(self, packed: bytes) -> Any:
        """Send one packed command and return its reply."""
        answer: asyncio.Future[Any] = self._loop.create_future()
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(packed)
        self.waiting.append((answer, self._loop.time() + self._limit))
        if self._timer is None:
            self._timer = self._loop.call_later(self._limit, self._look)
        return await answer

    def abort(self) -> None:
        """Break the connection; who waits gets an error."""
        self.taken.transport.abort()
        self._lost(None)

    def data_received(self, data: bytes) -> None:
        """Answer those that waited longest."""
        self._reader.feed(data)
        try:
            while self.waiting and (reply := self._reader.gets()) is not self.taken.nothing:
                answer, _ = self.waiting.popleft()
                if answer.done():
                    continue
                if isinstance(reply, Exception):
                    answer.set_exception(reply)
                else:
                    answer.set_result(reply)
        except Exception as error:  # noqa: BLE001 - whatever the parser finds wrong, nobody may wait for ever
            self._why = error
            self.abort()
        if not self.waiting and self._reader.has_data():  # nobody asked for it: what comes next would not be an answer
            self.abort()

    def eof_received(self) -> bool:
        """Close when the server does."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell all who wait."""
        self.taken.former.connection_lost(exc)
        self._lost(exc)

    def _flush(self) -> None:
        out, self._out = self._out, []
        if self.open:
            self.taken.transport.write(out[0] if len(out) == 1 else b"".join(out))

    def _look(self) -> None:
        """Break the connection when the answer that is due next did not come in time."""
        self._timer = None
        if not self.waiting:
            return
        left = self.waiting[0][1] - self._loop.time()
        if left > 0:
            self._timer = self._loop.call_later(left, self._look)
            return
        self._why = ForeignTimeoutError(f"no answer within {self._limit:g} s")
        self.abort()

    def _lost(self, exc: Exception | None) -> None:
        if not self.open:
            return
        self.open = False
        if self._timer is not None:
            self._timer.cancel()
        words = str(self._why or exc or "the connection was closed")
        kind = ForeignTimeoutError if isinstance(self._why, ForeignTimeoutError) else ForeignConnectionError
        unsent = len(self._out)
        for place, (answer, _) in enumerate(self.waiting):
            if not answer.done():
                error = kind(words)
                if place >= len(self.waiting) - unsent:
                    error.add_note(NOTHING_SENT)
                answer.set_exception(error)
        self.waiting.clear()
        self._ended(self)
