"""Hands the events of the queues' streams to everybody who waits for a job, over one reader per queue."""

import asyncio
from collections import deque
from collections.abc import Generator
from contextlib import contextmanager
from enum import Enum
from typing import Final

from hostler.contracts.event import Event
from hostler.kernel.errors import CapacityError
from hostler.kernel.units import Seconds
from hostler.policy.sharding import home_of
from hostler.telemetry.metrics import Metrics

BACKLOG: Final = 256
"""Events that one reader may be behind; then they are dropped and it looks at the whole job again."""
COME_BACK: Seconds = 2.0


class Signal(Enum):
    """What a subscription gives besides events."""

    RESYNC = "resync"
    """Events may have been missed: look at the job again."""
    QUIET = "quiet"
    """Nothing came in time."""
    CLOSED = "closed"
    """The gateway stops: end cleanly."""


class Subscription:
    """The events of one job from now on."""

    def __init__(self, queue: str, job_id: str) -> None:
        self.queue = queue
        self.job_id = job_id
        self._events: deque[Event] = deque()
        self._resync = False
        self._closed = False
        self._woken = asyncio.Event()

    def push(self, event: Event) -> None:
        """Add an event; a reader that is too far behind is told to look again instead."""
        if len(self._events) >= BACKLOG:
            self.resync()
            return
        self._events.append(event)
        self._woken.set()

    def resync(self) -> None:
        """Tell the reader to look at the job again."""
        self._events.clear()
        self._resync = True
        self._woken.set()

    def close(self) -> None:
        """Tell the reader to end."""
        self._closed = True
        self._woken.set()

    async def next(self, *, within: Seconds) -> Event | Signal:
        """Return the next event, or a signal; `QUIET` after `within` seconds."""
        while True:
            if self._closed:
                return Signal.CLOSED
            if self._resync:
                self._resync = False
                return Signal.RESYNC
            if self._events:
                return self._events.popleft()
            self._woken.clear()
            try:
                async with asyncio.timeout(within):
                    await self._woken.wait()
            except TimeoutError:
                return Signal.QUIET


class Hub:
    """All subscriptions of one gateway process."""

    def __init__(self, *, most: int, metrics: Metrics) -> None:
        self._most = most
        self._metrics = metrics
        self._by_job: dict[str, dict[Subscription, None]] = {}
        self._open = 0
        self._closed = False

    @property
    def open(self) -> int:
        """Return how many subscriptions there are now."""
        return self._open

    def judge(self) -> None:
        """Raise `CapacityError` when as many wait as may."""
        if self._open >= self._most:
            raise CapacityError(
                f"{self._most} requests wait for jobs already. Come back in {COME_BACK:g} s.", retry_after=COME_BACK
            )

    @contextmanager
    def subscribed(self, queue: str, job_id: str, *, kind: str) -> Generator[Subscription]:
        """Give the events of one job from now on; `CapacityError` when too many wait already."""
        self.judge()
        subscription = Subscription(queue, job_id)
        self._by_job.setdefault(job_id, {})[subscription] = None
        self._open += 1
        self._metrics.move("hostler_http_streams", kind, by=1)
        if self._closed:
            subscription.close()
        try:
            yield subscription
        finally:
            self._open -= 1
            self._metrics.move("hostler_http_streams", kind, by=-1)
            peers = self._by_job[job_id]
            peers.pop(subscription, None)
            if not peers:
                del self._by_job[job_id]

    def publish(self, event: Event) -> None:
        """Hand an event to whoever waits for its job."""
        if event.job is not None:
            for subscription in self._by_job.get(event.job, ()):
                subscription.push(event)

    def resync(self, queue: str) -> None:
        """Tell everybody who waits for a job of this queue, or of the queue that this shard is of, to look again."""
        home = home_of(queue)
        for peers in self._by_job.values():
            for subscription in peers:
                if subscription.queue == home:
                    subscription.resync()

    def close(self) -> None:
        """End every long poll and stream, now and from now on."""
        self._closed = True
        for peers in self._by_job.values():
            for subscription in peers:
                subscription.close()
