"""Results kept for equal jobs, on the engine."""

from collections import defaultdict
from typing import Any, Final, cast

import msgspec
from msgspec import UNSET

from hostler.contracts.job import INLINE_LIMIT
from hostler.contracts.result import CacheStats, CacheView, Flight, Kept, Taken
from hostler.kernel.errors import InvalidError
from hostler.kernel.units import Bytes, Seconds
from hostler.valkeyio.library import HasClient, Library

ENTRIES_MOST: Final = 100_000
"""Results that are kept at most."""
BYTES_MOST: Final[Bytes] = 268_435_456
"""Bytes that they have together at most, 256 MiB: the engine's memory is there for jobs first."""
_COUNTED: Final = frozenset({"hits", "misses", "waits", "kept"})
_MILLI: Final = 1000
_HIT, _MINE, _TAKEN = 1, 2, 3

_read = msgspec.json.Decoder(Kept).decode


class EngineResults:
    """Implements `ports.results.Results`: all of it is in the engine, so any worker is answered."""

    def __init__(
        self,
        engine: HasClient,
        *,
        library: Library | None = None,
        entries: int = ENTRIES_MOST,
        size: Bytes = BYTES_MOST,
    ) -> None:
        self._library = library or Library(engine)
        self._entries, self._size = entries, size

    async def begin(self, key: str, *, kind: str, job: str, fence: int, lasts: Seconds) -> Kept | Flight | Taken:
        """Return what is kept, or give or refuse the flight."""
        code, told = await self._ask(key, kind, job, fence, max(1, round(lasts * _MILLI)))
        if code == _HIT:
            return _read(cast("bytes", told))
        return Flight() if code == _MINE else Taken(left=cast("int", told) / _MILLI)

    async def look(self, key: str, *, kind: str) -> Kept | None:
        """Return what is kept."""
        code, told = await self._ask(key, kind, "", 0, 0)
        return _read(cast("bytes", told)) if code == _HIT else None

    async def hold(self, key: str, *, job: str, fence: int, lasts: Seconds) -> bool:
        """Renew a flight."""
        wanted = max(1, round(lasts * _MILLI))
        return bool(await self._library.call_registry("result_hold", key=key, job=job, fence=fence, lasts=wanted))

    async def put(self, key: str, kept: Kept, *, kind: str, job: str, ttl: Seconds) -> None:
        """Keep a result."""
        if (kept.result is UNSET) == (kept.ref is None):
            raise InvalidError("a result is kept inline or by reference", field="kept")
        if kept.result is not UNSET and len(bytes(kept.result)) > INLINE_LIMIT:
            raise InvalidError(f"a result over {INLINE_LIMIT} bytes is kept by reference", field="kept")
        await self._library.call_registry(
            "result_put",
            key=key,
            kind=kind,
            job=job,
            ttl=max(1, round(ttl * _MILLI)),
            most=self._entries,
            most_bytes=self._size,
            sealed=msgspec.json.encode(kept),
        )

    async def give_up(self, key: str, *, job: str, fence: int) -> bool:
        """End a flight."""
        return bool(await self._library.call_registry("result_give_up", key=key, job=job, fence=fence))

    async def clear(self, prefix: str = "") -> int:
        """Drop results, some hundred in each step."""
        cursor, dropped = b"0", 0
        while True:
            cursor, count = cast(
                "tuple[bytes, int]",
                tuple(await self._library.call_registry("result_clear", cursor=cursor, prefix=prefix)),
            )
            dropped += count
            if cursor == b"0":
                return dropped

    async def view(self) -> CacheView:
        """Return counts by kind."""
        entries, size, pairs = cast(
            "tuple[int, int, list[bytes]]", tuple(await self._library.call_registry("result_view"))
        )
        counts: dict[str, dict[str, int]] = defaultdict(dict)
        for at in range(0, len(pairs), 2):
            kind, _, what = pairs[at].decode().rpartition("|")
            if what in _COUNTED:
                counts[kind][what] = int(pairs[at + 1])
        return CacheView(
            entries=entries, bytes=size, kinds=tuple(_stats(kind, counts[kind]) for kind in sorted(counts))
        )

    async def _ask(self, key: str, kind: str, job: str, fence: int, lasts: int) -> tuple[int, bytes | int | None]:
        reply = cast(
            "list[Any]",
            await self._library.call_registry("result_begin", key=key, kind=kind, job=job, fence=fence, lasts=lasts),
        )
        return reply[0], reply[1] if len(reply) > 1 else None


def _stats(kind: str, counts: dict[str, int]) -> CacheStats:
    asked = counts.get("hits", 0) + counts.get("misses", 0)
    return CacheStats(kind=kind, hit_rate=counts.get("hits", 0) / asked if asked else 0.0, **counts)
