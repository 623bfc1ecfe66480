"""Waiting for new entries of streams: one blocking reader per stream and process, however many wait."""

import asyncio
from typing import Any, Final, cast

import structlog
from msgspec import Struct

from hostler.kernel.errors import HostlerError
from hostler.kernel.units import Seconds
from hostler.valkeyio.client import send
from hostler.valkeyio.faults import mapped
from hostler.valkeyio.wakes import HasBlocking

_BLOCK: Final[Seconds] = 2.0
_RETRY: Final[Seconds] = 0.5
_MOST: Final = 1000

_log = structlog.get_logger(__name__)


class _Tail(Struct):
    """One stream that somebody waits for."""

    latest: int
    """First offset of the latest entry seen; that of an entry that was there is no news."""
    news: asyncio.Event
    """Set, and replaced, when an entry came."""
    waiting: int = 0
    task: asyncio.Task[None] | None = None


class Tails:
    """Follows streams whose entry ids are offsets (`<offset>-0`), while somebody waits. One event loop only."""

    def __init__(self, engine: HasBlocking) -> None:
        self._engine = engine
        self._tails: dict[str, _Tail] = {}

    async def wait(self, stream: str, *, after: int, timeout: Seconds) -> bool:
        """Return True once the stream has an entry that begins above `after`, False after `timeout` seconds.

        A hint: while the engine cannot be reached it only ever times out.
        """
        tail = self._tails.get(stream)
        if tail is None:
            tail = self._tails[stream] = _Tail(latest=after, news=asyncio.Event())
            tail.task = asyncio.create_task(self._follow(stream, tail), name=f"hostler-tail-{stream}")
        tail.waiting += 1
        try:
            async with asyncio.timeout(timeout):
                while tail.latest <= after:
                    await tail.news.wait()
        except TimeoutError:
            return False
        finally:
            tail.waiting -= 1
        return True

    async def aclose(self) -> None:
        """End all readers; waits run into their timeouts."""
        tasks = [tail.task for tail in self._tails.values() if tail.task]
        self._tails.clear()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _follow(self, stream: str, tail: _Tail) -> None:
        """Read while somebody waits; one idle round longer, so that a reader that pages on finds it running."""
        idle = False
        while tail.waiting or not idle:
            idle = not tail.waiting
            try:
                found = await self._read(stream, tail.latest)
            except HostlerError as error:
                _log.debug("tail interrupted", stream=stream, reason=error.message)
                await asyncio.sleep(_RETRY)
                continue
            if found > tail.latest:
                tail.latest = found
                news, tail.news = tail.news, asyncio.Event()
                news.set()
        if self._tails.get(stream) is tail:
            del self._tails[stream]

    async def _read(self, stream: str, latest: int) -> int:
        with mapped():
            reply = await send(
                self._engine.blocking,
                "XREAD",
                "COUNT",
                _MOST,
                "BLOCK",
                round(_BLOCK * 1000),
                "STREAMS",
                stream,
                f"{latest}-0",
            )
        return max([latest, *(int(entry.partition(b"-")[0]) for entry in _ids(reply))])


def _ids(reply: Any) -> list[bytes]:
    """Return the entries' ids of `[[stream, [(id, fields), ...]], ...]`."""
    streams = cast("list[tuple[bytes, list[tuple[bytes, Any]]]]", reply or [])
    return [entry for _, entries in streams for entry, _ in entries]
