"""What an engine still holds once there is nothing to do, beside what is declared to last."""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from typing import Final

from hostler.kernel.units import Seconds
from hostler.valkeyio.engine import Engine
from hostler.valkeyio.keys import owner_of
from hostler.valkeyio.scans import scan_keys

LEAKED: Final = "leaked"
"""Instead of a lifetime: the key is of no declared family."""
LASTING: Final = frozenset({"queue", "registry", "test"})
OF_WORKERS: Final = frozenset({"class", "lane", "idle"})
"""Lifetimes of what is there as long as workers are, or for an hour after the last work."""
_LOOK: Final[Seconds] = 0.5
_NEVER: Final = -1
"""The time to live of a key that has none."""


async def left(engine: Engine, *, within: Seconds) -> tuple[Counter[str], tuple[str, ...]]:
    """Return how many keys are left by lifetime, and a sentence for each that outlives its declared life.

    Asked again for `within` seconds while there is one, for upkeep goes in slices. It scans every key.
    """
    ends = time.monotonic() + within
    while True:
        counts, late = Counter[str](), list[str]()
        async for key in scan_keys(engine, "*"):
            life, sentence = await _judged(engine, key)
            counts[life] += 1
            late += sentence
        if not late or time.monotonic() > ends:
            return counts, tuple(late)
        await asyncio.sleep(_LOOK)


async def _judged(engine: Engine, key: str) -> tuple[str, Sequence[str]]:
    row = owner_of(key)
    if row is None:
        return LEAKED, (f"{key} is of no declared family",)
    if row.lifetime == "timed":
        endless = int(await engine.command("PTTL", key)) == _NEVER
        return row.lifetime, (f"{key} has no end ({row.meaning})",) if endless else ()
    gone = row.lifetime not in LASTING | OF_WORKERS
    return row.lifetime, (f"{key} is still there ({row.meaning})",) if gone else ()
