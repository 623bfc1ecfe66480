"""Recounting a queue: every job's record is the truth, every index and counter must agree with it."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final, cast

from hostler.valkeyio.keys import prefix
from hostler.valkeyio.library import HasClient, Library
from hostler.valkeyio.scans import scan_keys, scan_members

_SLICE: Final = 100
_INDEXES: Final = ("delayed", "waiting", "leases", "expiry", "cancels", "done", "dead")
_SATELLITES: Final = frozenset("pagcs")
_TRIES: Final = 3


class Audit:
    """Audits queues of one engine."""

    def __init__(self, engine: HasClient, library: Library) -> None:
        self._engine = engine
        self._library = library

    async def run(self, queue: str, *, repair: bool) -> tuple[str, ...]:
        """Return each difference as a sentence; mends them when asked.

        Jobs, lines and places are compared a slice at a time, each slice in one step, so live traffic never
        shows as a difference. Counters need the queue to stand still meanwhile: the recount is tried three
        times, and if the queue never did, that is the one sentence about them.
        """
        found: list[str] = []
        seqs, leaves = await self._everything(queue)
        for first in range(0, len(seqs), _SLICE):
            found += await self._call("audit_jobs", queue, repair=repair, seqs=seqs[first : first + _SLICE])
        for first in range(0, len(leaves), _SLICE):
            found += await self._call("audit_lines", queue, repair=repair, leaves=leaves[first : first + _SLICE])
        return (*found, *await self._counters(queue, repair=repair))

    async def _everything(self, queue: str) -> tuple[list[str], list[str]]:
        """Return the number of every job that anything is kept of, and every line as `<lane>:<tenant>`."""
        start = prefix(queue)
        seqs, leaves = set[str](), set[str]()
        async for key in scan_keys(self._engine, f"{_escaped(start)}*"):
            kind, _, rest = key[len(start) :].partition(":")
            if kind == "j" or (kind in _SATELLITES and rest.isdigit()):
                seqs.add(rest)
            elif kind == "r":
                leaves.add(rest)
                seqs |= {member.rstrip("k") async for member in scan_members(self._engine, key)}
            elif kind == "tl":
                leaves |= {f"{lane}:{rest}" async for lane in scan_members(self._engine, key)}
            elif kind == "kw" or key[len(start) :] in _INDEXES:
                seqs |= {member async for member in scan_members(self._engine, key)}
        return sorted(seqs), sorted(leaves)

    async def _counters(self, queue: str, *, repair: bool) -> Sequence[str]:
        for _ in range(_TRIES):
            offset = await self._offset(queue)
            counted = await self._count(queue)
            words = [word for name, value in sorted(counted.items()) for word in (name, str(value))]
            verdict, *found = cast(
                "list[Any]",
                await self._library.call("audit_counts", queue, offset=offset, repair=repair, counted=words),
            )
            if verdict:
                return [sentence.decode() for sentence in found]
        return (f"the counters of {queue} could not be compared: it moved during each of {_TRIES} recounts",)

    async def _offset(self, queue: str) -> int:
        return int((await self._library.call("history", queue, after=0, most=1))[1])

    async def _count(self, queue: str) -> Counter[str]:
        """Recount, from the records, all that is kept as a number; names are `<hash>|<field>`."""
        start = prefix(queue)
        seqs = [key[len(start) + 2 :] async for key in scan_keys(self._engine, f"{_escaped(start)}j:*")]
        total: Counter[str] = Counter()
        for first in range(0, len(seqs), _SLICE):
            words = cast(
                "list[bytes]", await self._library.call("audit_tally", queue, seqs=seqs[first : first + _SLICE])
            )
            for name, value in zip(words[::2], words[1::2], strict=True):
                total[name.decode()] += int(value)
        return total

    async def _call(self, verb: str, queue: str, *, repair: bool, **words: Sequence[str]) -> list[str]:
        found = cast("list[bytes]", await self._library.call(verb, queue, repair=repair, **words))
        return [sentence.decode() for sentence in found]


def _escaped(start: str) -> str:
    """Return a prefix as a pattern; the braces of its tag mean themselves there."""
    return start.replace("[", "\\[")
