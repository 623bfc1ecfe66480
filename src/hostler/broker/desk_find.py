"""Lists of jobs: newest first over one or all queues, a bounded look at a time, resumed by an opaque cursor."""

import base64
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, cast

import msgspec

from hostler.broker.desk_views import Kept, error_of, read_kept
from hostler.broker.records import Record, unpack_record
from hostler.contracts.api import JobFilter
from hostler.contracts.job import JobState
from hostler.kernel.errors import EngineTimeoutError, EngineUnavailableError, InvalidError
from hostler.policy.finding import of_class, within
from hostler.valkeyio.instants import instant_or_none
from hostler.valkeyio.layout import SEQ_BASE
from hostler.valkeyio.library import Library

LOOK: Final = 20_000
"""Job numbers that one call looks at, at most, in each queue."""
_SLICE: Final = 500
_PAGE: Final = 50
_FEW: Final = 5_000
"""Up to so many jobs an index is read whole; beyond, numbers are walked."""
_INDEX: Final[Mapping[JobState, str]] = {
    JobState.SCHEDULED: "delayed",
    JobState.RUNNING: "leases",
    JobState.WAITING: "waiting",
    JobState.SUCCEEDED: "done",
    JobState.CANCELLED: "done",
    JobState.EXPIRED: "done",
    JobState.DEAD: "dead",
}


class Wanted:
    """What a list is narrowed by: judged by a job's record first, which is cheap, then by the whole job."""

    def __init__(self, which: JobFilter) -> None:
        self._which = which
        self.states = frozenset(which.states)

    def record(self, record: Record) -> bool:
        """Tell whether a job's record fits, as far as it says."""
        which = self._which
        return (
            (not self.states or record.job_state in self.states)
            and (which.tenant is None or record.tenant == which.tenant)
            and (which.worker is None or record.worker == which.worker)
            and within(instant_or_none(record.finished), which)
        )

    def job(self, kept: Kept) -> bool:
        """Tell whether the whole job fits (it may have moved on since its record was seen)."""
        envelope, which = kept.envelope, self._which
        return (
            self.record(kept.record)
            and (which.kind is None or envelope.kind == which.kind)
            and which.labels.items() <= envelope.labels.items()
            and (which.error_class is None or of_class(error_of(kept.record, kept.attempts), which.error_class))
        )


class Walk:
    """One queue's jobs that fit, newest first, from below a number."""

    def __init__(self, library: Library, queue: str, wanted: Wanted, below: int) -> None:
        self.queue = queue
        self._below = below
        """What is looked at next lies below this number; 0 at the start, SEQ_BASE at the end."""
        self._library = library
        self._wanted = wanted
        self._candidates: list[str] = []
        """Numbers whose records fit, newest first."""
        self._found: deque[Kept] = deque()
        self._looked = 0
        self._named: list[str] | None = None
        self._began = False

    @property
    def ended(self) -> bool:
        """Tell whether nothing is left in this queue."""
        return not self._found and not self._candidates and self._below == SEQ_BASE

    async def head(self) -> Kept | None:
        """Return the next job without taking it; None when there is none, or the look of this call is used up."""
        while not self._found and not self.ended:
            if self._candidates:
                await self._load()
            elif self._looked < LOOK:
                await self._look()
            else:
                break
        return self._found[0] if self._found else None

    def take(self) -> Kept:
        """Take the head."""
        return self._found.popleft()

    def resume(self) -> int:
        """Return the number to go on below, for the cursor."""
        if self._found:
            return int(self._found[0].seq) + 1
        return int(self._candidates[0]) + 1 if self._candidates else self._below

    async def _load(self) -> None:
        some, self._candidates = self._candidates[:_PAGE], self._candidates[_PAGE:]
        rows = cast("list[list[Any]]", await self._library.call("look", self.queue, seqs=some))
        self._found.extend(kept for kept in map(read_kept, rows) if self._wanted.job(kept))

    async def _look(self) -> None:
        if not self._began:
            self._began = True
            self._named = await self._few()
        records, self._below = await (self._slice() if self._named is None else self._slice_of(self._named))
        self._candidates = [seq for seq, record in records if self._wanted.record(record)]
        self._looked += _SLICE

    async def _few(self) -> list[str] | None:
        """Return the numbers of the jobs in the wanted states, newest first, when their indexes are small."""
        if not self._wanted.states or not self._wanted.states <= _INDEX.keys():
            return None
        names = sorted({_INDEX[state] for state in self._wanted.states})
        total, *seqs = cast("list[Any]", await self._library.call("members", self.queue, most=_FEW, indexes=names))
        if total > _FEW:
            return None
        below = self._below or None
        numbers = sorted((int(seq) for seq in seqs), reverse=True)
        return [str(number) for number in numbers if below is None or number < below]

    async def _slice(self) -> tuple[list[tuple[str, Record]], int]:
        below, *words = await self._peek(last=self._below - 1 if self._below else 0, seqs=())
        return _pairs(words), int(below)

    async def _slice_of(self, named: list[str]) -> tuple[list[tuple[str, Record]], int]:
        some, self._named = named[:_SLICE], named[_SLICE:]
        if not some:
            return [], SEQ_BASE
        _, *words = await self._peek(last=0, seqs=some)
        return _pairs(words), int(some[-1]) if self._named else SEQ_BASE

    async def _peek(self, *, last: int, seqs: Sequence[str]) -> list[bytes]:
        return cast("list[bytes]", await self._library.call("peek", self.queue, last=last, most=_SLICE, seqs=seqs))


def _pairs(words: Sequence[bytes]) -> list[tuple[str, Record]]:
    return [(seq.decode(), unpack_record(packed)) for seq, packed in zip(words[::2], words[1::2], strict=True)]


async def page(walks: Sequence[Walk], limit: int) -> tuple[list[tuple[str, Kept]], str | None]:
    """Merge queues into one page by time of submit, newest first, and the cursor of the next."""
    found: list[tuple[str, Kept]] = []
    spent = False
    while len(found) < limit and not spent:
        heads: list[tuple[int, str, Walk]] = []
        for walk in walks:
            head = await _head(walk, alone=len(walks) == 1)
            if head is not None:
                heads.append((head.record.created, walk.queue, walk))
            elif not walk.ended:
                spent = True
        if not heads or spent:
            break
        best = max(heads, key=_newest)[2]
        found.append((best.queue, best.take()))
    ended = all(walk.ended for walk in walks)
    return found, None if ended else write_cursor({walk.queue: walk.resume() for walk in walks})


async def _head(walk: Walk, *, alone: bool) -> Kept | None:
    """Return a queue's next job; a list that lacks one server's queues without saying so would be taken for whole."""
    try:
        return await walk.head()
    except (EngineUnavailableError, EngineTimeoutError) as error:
        if alone or "server" not in error.facts:
            raise
        raise type(error)(
            f"jobs of the queue {walk.queue} cannot be listed now, so there is no list of all queues; those of the "
            f"others are listed queue by queue ({error.message})",
            **error.facts,
        ) from error


def _newest(head: tuple[int, str, Walk]) -> tuple[int, str]:
    return head[:2]


def write_cursor(places: dict[str, int]) -> str:
    """Return an opaque text for a place in each queue."""
    return base64.urlsafe_b64encode(msgspec.msgpack.encode(places)).decode().rstrip("=")


def read_cursor(text: str | None) -> dict[str, int]:
    """Return the places in a cursor; `InvalidError` when it is none of ours."""
    if text is None:
        return {}
    try:
        return _places(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except (ValueError, msgspec.MsgspecError) as error:
        raise InvalidError("the cursor is not one that a list gave", field="cursor") from error


_places: Callable[[bytes], dict[str, int]] = msgspec.msgpack.Decoder(dict[str, int]).decode
