"""Readers of live streams: each follows a job through gateways that die and connections that are cut, or left."""

import asyncio
import itertools
import random
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Final, Literal, Self
from urllib.parse import urlsplit

import msgspec

from hostler.chaos.proxy import FaultProxy, Weather
from hostler.chaos.record import Heard, Push
from hostler.chaos.tape import Tape
from hostler.client.follow import Frame, frames
from hostler.client.wire import Wire
from hostler.contracts.job import JobState
from hostler.kernel.errors import HostlerError, NotFoundError
from hostler.kernel.units import Bytes, Seconds

EACH: Final = 3
"""One of so many jobs is followed."""
MOST: Final = 24
"""Followed at a time: who looks on should not be what a gateway has most to do with."""
CUTS: Final[tuple[Bytes, ...]] = (1100, 1900)
"""After so many bytes a connection to each gateway in turn is reset: some events, and the beginning of one."""
STAY: Final = 3
"""A reader leaves after so many events at most, and comes back to the next gateway."""
PAUSE: Final[Seconds] = 0.5
"""At most, before it does: so what comes next was told before it, or comes while it listens."""
FRUITLESS: Final = 2
"""So many connections that gave nothing, and the next one is neither cut nor left."""
_RESET: Final = "reset"
_GAP: Final = "gap"
_PROBLEM: Final = "problem"


class _Job(msgspec.Struct, frozen=True):
    queue: str
    state: JobState


class _Told(msgspec.Struct, frozen=True):
    offset: int
    type: str
    job: str | None = None
    state: JobState | None = None


class _Reset(msgspec.Struct, frozen=True):
    after: int


class Listeners:
    """`async with` opens ways to the gateways that cut what runs through them; `follow` begins, `finish` ends."""

    def __init__(self, tape: Tape, urls: Sequence[str], *, seed: int) -> None:
        self._tape = tape
        self._urls = urls
        self._seed = seed
        self._stack = AsyncExitStack()
        self._cut: list[Wire] = []
        self._whole: list[Wire] = []
        self._seen = itertools.count()
        self._tasks: set[asyncio.Task[None]] = set()
        self._broken: list[BaseException] = []
        self.readers = 0
        self.connections = 0
        self.gone = 0
        """Readers that were told that there is no such job."""

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            for number, url in enumerate(self._urls):
                place = urlsplit(url)
                proxy = FaultProxy((place.hostname or "", place.port or 0), seed=self._seed + number)
                await stack.enter_async_context(proxy)
                proxy.set(down=Weather(cut_after=CUTS[number % len(CUTS)]))
                cut = f"http://127.0.0.1:{proxy.port}"
                self._cut.append(await stack.enter_async_context(Wire.open(cut, None, tries=1)))
                self._whole.append(await stack.enter_async_context(Wire.open(url, None, tries=1)))
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._cancel()
        await self._stack.aclose()

    def follow(self, job: str) -> None:
        """Follow a job that was just taken, if it is its turn, and there are not too many already."""
        if next(self._seen) % EACH or len(self._tasks) >= MOST:
            return
        self.readers += 1
        dice = random.Random(f"{self._seed} {self.readers}")  # noqa: S311 - who leaves when, not a secret
        listener = _Listener(self, f"reader-{self.readers}", job, dice)
        task = asyncio.create_task(listener.run(), name=listener.name)
        self._tasks.add(task)
        task.add_done_callback(self._left)

    async def finish(self, *, within: Seconds) -> int:
        """Wait until each was told its job's end; return how many were not, in that time.

        Whatever ended a reader that is not provided for is raised.
        """
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=within)
        missed = len(self._tasks)
        await self._cancel()
        if self._broken:
            raise self._broken[0]
        return missed

    def way(self, turn: int, *, cut: bool) -> Wire:
        """Return the way to the gateway whose turn it is."""
        self.connections += 1
        ways = self._cut if cut else self._whole
        return ways[turn % len(ways)]

    def write(self, line: Heard) -> None:
        """Record what was heard."""
        self.gone += line.end == "gone"
        self._tape.write(line)

    def _left(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._broken.append(error)

    async def _cancel(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class _Listener:
    """One reader of one job's events."""

    def __init__(self, house: Listeners, name: str, job: str, dice: random.Random) -> None:
        self.name = name
        self._house = house
        self._job = job
        self._dice = dice
        self._turns = itertools.count(house.readers)
        self._queue = ""
        self._last = ""
        """The id that it heard last, as `Last-Event-ID` takes it."""
        self._place = 0
        """Its offset, or the one behind which all that was heard is void."""
        self._line: Heard | None = None
        self._pushes: list[Push] = []

    async def run(self) -> None:
        """Listen until the end was told, or that there is no such job; cancelled, it was neither."""
        try:
            ended, fruitless = await self._ended(), 0
            while True:
                stay = self._dice.randint(1, STAY) if fruitless < FRUITLESS else None
                clean = await self._connection(stay)
                fruitless = 0 if self._pushes else fruitless + 1
                if clean and (ended or (self._pushes and _terminal(self._pushes[-1]))):
                    self._note(end="told")
                    return
                self._note()
                await asyncio.sleep(PAUSE * self._dice.random())
                ended = clean and await self._ended()
        except NotFoundError:
            self._leave("gone")
        except asyncio.CancelledError:
            self._leave("missed")
            raise

    async def _ended(self) -> bool:
        """Ask, until there is an answer, whether the job has ended."""
        while True:
            try:
                wire = self._house.way(next(self._turns), cut=False)
                found = await wire.read(f"v1/jobs/{self._job}", _Job, query={"payload": False})
            except NotFoundError:
                raise
            except HostlerError:
                await asyncio.sleep(PAUSE)
            else:
                self._queue = found.queue
                return found.state.terminal

    async def _connection(self, stay: int | None) -> bool:
        """Listen on one connection; tell whether the gateway ended it, and not because it could not go on.

        With `stay` it may be cut, and is left after so many events.
        """
        headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": self._last} if self._last else {})
        self._begin(self._place)
        wire = self._house.way(next(self._turns), cut=stay is not None)
        try:
            async with wire.stream(f"v1/jobs/{self._job}/events", headers=headers) as lines:
                async for frame in frames(lines):
                    if frame.name == _PROBLEM:
                        return False
                    self._hear(frame)
                    if len(self._pushes) == stay and not _terminal(self._pushes[-1]):
                        return False
        except NotFoundError:
            raise
        except HostlerError:
            return False
        return True

    def _hear(self, frame: Frame) -> None:
        if frame.name == _RESET:
            self._note()
            self._place = msgspec.json.decode(frame.data, type=_Reset).after
            self._begin(self._place, reset=True)
        elif frame.name == _GAP:
            self._line = msgspec.structs.replace(self._open, gap=True)
        else:
            told = msgspec.json.decode(frame.data, type=_Told)
            before, self._last = _epoch(self._last), frame.id.decode()
            if self._pushes and _epoch(self._last) != before:
                self._note()
                self._begin(self._place)
            self._line = msgspec.structs.replace(self._open, epoch=_epoch(self._last))
            self._pushes.append(Push(offset=told.offset, type=told.type, job=told.job, state=told.state))
            self._place = told.offset

    @property
    def _open(self) -> Heard:
        if self._line is None:
            raise RuntimeError("nothing is listened to")
        return self._line

    def _begin(self, after: int, *, reset: bool = False) -> None:
        self._pushes = []
        self._line = Heard(
            reader=self.name, queue=self._queue, job=self._job, epoch=_epoch(self._last), after=after, reset=reset
        )

    def _leave(self, end: Literal["missed", "gone"]) -> None:
        """Record what the connection had brought so far, if there is one, and why there will be no other."""
        self._note()
        self._begin(self._place)
        self._note(end=end)

    def _note(self, *, end: Literal["told", "missed", "gone"] | None = None) -> None:
        """Record the connection, or what of it belongs to one epoch."""
        if self._line is not None:
            self._house.write(msgspec.structs.replace(self._line, pushes=tuple(self._pushes), end=end))
        self._line = None


def _epoch(told: str) -> int:
    """Return the epoch of an event's id; 0 while none was heard."""
    return int(told.partition("-")[0] or 0)


def _terminal(push: Push) -> bool:
    return push.state is not None and push.state.terminal
