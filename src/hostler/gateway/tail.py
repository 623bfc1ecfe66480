"""Reads the streams of all queues, one reader each, and hands every event on exactly once."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final

from hostler.contracts.event import Event
from hostler.gateway.rooms import Rooms
from hostler.kernel.errors import HostlerError
from hostler.kernel.units import Seconds
from hostler.policy.sharding import home_of
from hostler.ports.clock import Dice
from hostler.telemetry.logs import logger

_LOG = logger("gateway")
PAGE: Final = 1000
WAIT: Final[Seconds] = 1.0
"""Longest that one read waits for an event."""
PAUSE: Final[Seconds] = 0.5
"""Between tries while the engine cannot be read, with jitter."""

IDLE: Final[Seconds] = 0.05
"""Shortest time between two reads that found nothing."""

Counted = Callable[[Sequence[Event]], Awaitable[None]]
"""Takes the events of one page in, for metrics."""


class Tail:
    """The reader of one stream: a queue's, or that of one of its shards."""

    def __init__(self, queue: str, rooms: Rooms, counted: Counted) -> None:
        self.queue = queue
        self._desk = rooms.desk
        self._foreman = rooms.foreman
        self._hub = rooms.hub
        self._metrics = rooms.metrics
        self._counted = counted
        self._epoch: int | None = None
        self.offset = 0

    async def begin(self) -> None:
        """Stand at the stream's end: what comes from now on is handed on."""
        stats = await self._foreman.stats(self.queue)
        self.offset, self._epoch = stats.offset, stats.epoch
        self._hub.resync(self.queue)

    async def read(self) -> None:
        """Read one page and hand its events on; wait a little when there are none."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        page = await self._desk.events(self.queue, after=self.offset, limit=PAGE, wait=WAIT)
        if page.epoch != self._epoch and not await self._goes_on(page.epoch):
            return
        if page.gap:
            self._lost(page.next)
        for event in page.events:
            self._metrics.count("hostler_job_events_total", home_of(self.queue), event.type)
            self._hub.publish(event)
        await self._counted(page.events)
        self.offset = max(self.offset, page.next)
        if not page.events:
            await asyncio.sleep(max(0.0, IDLE - (loop.time() - began)))

    async def _goes_on(self, epoch: int) -> bool:
        """Take a new epoch in; False when the stream was set back and what was read no longer counts."""
        stats = await self._foreman.stats(self.queue)
        self._epoch = epoch
        if stats.offset >= self.offset:
            self._hub.resync(self.queue)
            return True
        self._lost(stats.offset)
        self.offset = stats.offset
        return False

    def _lost(self, resumed: int) -> None:
        self._metrics.count("hostler_tail_gaps_total", self.queue)
        _LOG.warning("tail.gap", queue=self.queue, after=self.offset, next=resumed)
        self._hub.resync(self.queue)


class Tails:
    """One `Tail` for each stream that there is."""

    def __init__(self, make: Callable[[str], Tail], dice: Dice) -> None:
        self._make = make
        self._dice = dice
        self._tails: dict[str, Tail] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    @property
    def offsets(self) -> dict[str, int]:
        """Return how far each stream was read."""
        return {queue: tail.offset for queue, tail in self._tails.items()}

    def follow(self, streams: Iterable[str]) -> None:
        """Read these streams from now on, and no others: those that are read already are read on."""
        wanted = frozenset(streams)
        for stream in sorted(wanted - self._tasks.keys()):
            self._tasks[stream] = asyncio.create_task(self._run(self._make(stream)), name=f"tail-{stream}")
        for stream in sorted(self._tasks.keys() - wanted):
            self._tasks.pop(stream).cancel()
            self._tails.pop(stream, None)

    async def stop(self) -> None:
        """Stop all readers."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        self._tasks.clear()

    async def _run(self, tail: Tail) -> None:
        begun = failing = False
        while True:
            try:
                if begun:
                    await tail.read()
                else:
                    await tail.begin()
                    self._tails[tail.queue] = tail
                    begun = True
            except HostlerError as error:
                if not failing:
                    _LOG.warning("upkeep.failing", task=f"tail-{tail.queue}", error=error.message, code=error.code)
                failing = True
                await asyncio.sleep(PAUSE * (0.5 + self._dice.roll()))
            else:
                if failing:
                    _LOG.info("upkeep.recovered", task=f"tail-{tail.queue}")
                failing = False
