"""After a restore nothing is counted twice: fences, job numbers and epochs go on above all that were ever given.

What happened after the copy was taken is not in it, but workers and clients may remember it: fences of
claims, numbers of jobs, offsets of events. So a restore leaves a *mark*, the second in which it was made,
and the first engine opened on it raises the counters of every queue to where no earlier life of that queue
can have been: fences by the mark itself, epochs to it, job numbers to a thousand for each second.
"""

from datetime import UTC, datetime
from typing import Final, cast

import msgspec
from msgspec import Struct

from hostler.kernel.units import Instant
from hostler.valkeyio.client import send
from hostler.valkeyio.faults import mapped
from hostler.valkeyio.keys import owner_of, registry_key
from hostler.valkeyio.layout import SEQ_BASE
from hostler.valkeyio.library import HasClient
from hostler.valkeyio.scans import scan_keys

_BEGIN: Final = int(datetime(2026, 1, 1, tzinfo=UTC).timestamp())
_JOBS_PER_SECOND: Final = 1000
"""What a queue may take in, averaged over its life, before numbers could meet; leaves room for 28 years."""


class Restored(Struct, frozen=True, kw_only=True):
    """Content of the file `RESTORED`, which is there from a restore until the first engine was opened."""

    copied_at: Instant
    """When the copy was taken."""
    at: Instant
    """When it was restored."""


def read_restored(content: bytes) -> Restored:
    """Return what a restore left for the first opener."""
    return msgspec.json.decode(content, type=Restored)


async def raise_counters(engine: HasClient, at: datetime) -> None:
    """Raise the counters of all queues above all that were given before `at`, when the restore was made.

    For before anybody else uses the engine. What was interrupted is simply done again.
    """
    key = registry_key("restored")
    with mapped():
        past = cast("bytes | None", await send(engine.client, "HGET", key, "restored"))
    mark = max(int(at.timestamp()), int(past or 0) + 1)
    floor = {"restored": mark, "epoch": mark, "seq": SEQ_BASE + max(0, mark - _BEGIN) * _JOBS_PER_SECOND}
    metas = [found async for found in scan_keys(engine, "h:{*}:meta") if _is_meta(found)]
    for place in (key, *metas):
        packed = place.encode("utf-8", "surrogateescape")
        with mapped():
            now = cast("list[bytes | None]", await send(engine.client, "HMGET", packed, *floor))
            higher = [max(least, int(value or 0)) for least, value in zip(floor.values(), now, strict=True)]
            words = [word for pair in zip(floor, higher, strict=True) for word in pair]
            await send(engine.client, "HSET", packed, *words)


def _is_meta(key: str) -> bool:
    row = owner_of(key)
    return row is not None and row.name == "meta"
