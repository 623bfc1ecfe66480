"""Recounting a queue: every job's record is the truth, every index and counter must agree with it."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Final, cast

from hostler.broker.desk_views import Kept, read_kept, request_of
from hostler.broker.foreman_stats import stats_of
from hostler.broker.records import beyond, pack, sealed, sealed_lane
from hostler.contracts.failure import FailureClass
from hostler.contracts.needs import Lane
from hostler.policy.lanes import derive, lane_key, lane_of
from hostler.valkeyio.keys import prefix
from hostler.valkeyio.library import HasClient, Library, Value
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
        times, and if the queue never did, that is the one sentence about them. It scans every key of the engine
        (in steps, so nobody waits for it): work for an operator, not for a loop.
        """
        found: list[str] = []
        seqs, lines, lists = await self._everything(queue)
        for slice_ in _slices(seqs):
            found += await self._lanes(queue, slice_, repair=repair)
            found += await self._call("audit_jobs", queue, repair=repair, seqs=slice_)
        for key, members in lists.items():
            for slice_ in _slices(members):
                found += await self._call("audit_leaf", queue, repair=repair, key=key, members=slice_)
        for slice_ in _slices(lines):
            found += await self._call("audit_lines", queue, repair=repair, leaves=slice_)
        return (*found, *await self._counters(queue, repair=repair))

    async def _lanes(self, queue: str, seqs: Sequence[str], *, repair: bool) -> list[str]:
        """Find jobs whose lane is gone; a repair gives each the lane that what it was submitted with says."""
        words = cast("list[bytes]", await self._library.call("audit_lanes", queue, seqs=seqs))
        found = [sentence.decode() for sentence in words[1::2]]
        if not words or not repair:
            return found
        rows = cast("list[list[Any]]", await self._library.call("look", queue, seqs=words[::2]))
        for kept in map(read_kept, rows):
            if beyond(kept.envelope.needs):
                found.append(
                    f"job {kept.seq} needs what this version does not know: repair with the one that submitted it"
                )
                continue
            lane = _lane_again(kept)
            given = pack([lane_key(lane), sealed(sealed_lane(lane))])
            if not await self._library.call("audit_relane", queue, seq=kept.seq, lane_given=given):
                found.append(f"job {kept.seq} has no lane: the queue has all the lanes it may have, repair again later")
        return found

    async def _everything(self, queue: str) -> tuple[list[str], list[str], dict[str, list[str]]]:
        """Return every job that anything is kept of, every line as `<lane>:<tenant>`, and the members of each list."""
        start = prefix(queue)
        seqs, lines = set[str](), set[str]()
        lists: dict[str, list[str]] = {}
        async for key in scan_keys(self._engine, start):
            name = key[len(start) :]
            kind, _, rest = name.partition(":")
            if kind == "j" or (kind in _SATELLITES and rest.isdigit()):
                seqs.add(rest)
            elif kind in {"r", "kw"}:
                lists[name] = [member async for member in scan_members(self._engine, key)]
                lines |= {rest} if kind == "r" else set()
            elif kind == "tl":
                lines |= {f"{lane}:{rest}" async for lane in scan_members(self._engine, key)}
            elif name in _INDEXES:
                seqs |= {member async for member in scan_members(self._engine, key)}
        return sorted(seqs), sorted(lines), lists

    async def _counters(self, queue: str, *, repair: bool) -> Sequence[str]:
        for _ in range(_TRIES):
            moves = await self._moves(queue)
            counted = await self._count(queue)
            words = [word for (hash_, field), value in counted.items() for word in (hash_, field, str(value))]
            verdict, *found = cast(
                "list[Any]",
                await self._library.call("audit_counts", queue, moves=moves, repair=repair, counted=words),
            )
            if verdict:
                return [sentence.decode() for sentence in found]
        return (f"the counters of {queue} could not be compared: it moved during each of {_TRIES} recounts",)

    async def _moves(self, queue: str) -> int:
        """Return a number that grows with every event, and with every job that is removed because of its age."""
        stats = await stats_of(self._library, queue)
        return stats.offset + stats.totals["purged"]

    async def _count(self, queue: str) -> Counter[tuple[str, str]]:
        """Recount, from the records, all that is kept as a number, by hash and field."""
        start = prefix(queue)
        seqs = {key[len(start) + 2 :] async for key in scan_keys(self._engine, f"{start}j:")}
        total: Counter[tuple[str, str]] = Counter()
        for slice_ in _slices(sorted(seqs)):
            words = cast("list[bytes]", await self._library.call("audit_tally", queue, seqs=slice_))
            for hash_, field, value in zip(words[::3], words[1::3], words[2::3], strict=True):
                total[hash_.decode(), field.decode()] += int(value)
        async for key in scan_keys(self._engine, f"{start}k:"):
            total[key[len(start) :], ""] = 0
        return total

    async def _call(self, verb: str, queue: str, *, repair: bool, **words: Value) -> list[str]:
        found = cast("list[bytes]", await self._library.call(verb, queue, repair=repair, **words))
        return [sentence.decode() for sentence in found]


def _lane_again(kept: Kept) -> Lane:
    """Return a job's lane from its envelope, without the workers that were found to lack what it needs."""
    lane = lane_of(request_of(kept.envelope))
    for attempt in kept.attempts:
        mismatch = attempt.error is not None and attempt.error.class_ is FailureClass.CAPABILITY_MISMATCH
        if mismatch and attempt.generation == kept.record.generation:
            lane = derive(lane, exclude=attempt.worker) or lane
    return lane


def _slices(items: Sequence[str]) -> Iterator[Sequence[str]]:
    return (items[first : first + _SLICE] for first in range(0, len(items), _SLICE))
