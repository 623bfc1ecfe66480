"""Follows one job: until it has ended (long poll), or event by event (server-sent events)."""

import asyncio
from collections.abc import AsyncIterator
from typing import Final

import msgspec

from hostler.contracts.event import Event, Timeline
from hostler.contracts.job import Job
from hostler.gateway.hub import Hub, Signal, Subscription
from hostler.gateway.problems import problem
from hostler.kernel.errors import HostlerError
from hostler.kernel.units import Seconds
from hostler.ports.broker import Desk

HEARTBEAT: Final[Seconds] = 15.0
"""Longest silence of an event stream; proxies and clients take longer ones for a dead connection."""
RECONNECT_MS: Final = 1000
SCAN: Final = 10
PAGE: Final = 1000


async def ended(desk: Desk, hub: Hub, job_id: str, *, within: Seconds, payload: bool = False) -> Job:
    """Return the job once it has ended, or as it is after `within` seconds or when the gateway stops."""
    loop = asyncio.get_running_loop()
    ends = loop.time() + within
    job = await desk.get(job_id, payload=payload)
    if job.state.terminal or within <= 0:
        return job
    with hub.subscribed(job.queue, job_id, kind="wait") as subscription:
        while True:
            job = await desk.get(job_id, payload=payload)
            left = ends - loop.time()
            if job.state.terminal or left <= 0:
                return job
            if not await _worth_a_look(subscription, ends):
                return await desk.get(job_id, payload=payload)


async def _worth_a_look(subscription: Subscription, ends: float) -> bool:
    """Wait until the job may have ended; False when time is up or the gateway stops."""
    loop = asyncio.get_running_loop()
    while (left := ends - loop.time()) > 0:
        found = await subscription.next(within=left)
        if found is Signal.RESYNC or (isinstance(found, Event) and found.state is not None and found.state.terminal):
            return True
        if found is Signal.CLOSED:
            return False
    return False


class Story:
    """One job's events as server-sent events, from an offset on, without gaps or doubles.

    `epoch` is the one in which the reader heard the event `after`; None for one that does not say, and is believed.
    """

    def __init__(
        self, desk: Desk, hub: Hub, job: Job, *, after: int, epoch: int | None = None, heartbeat: Seconds = HEARTBEAT
    ) -> None:
        self._desk = desk
        self._hub = hub
        self._job = job
        self._last = after
        self._epoch = epoch
        self._heartbeat = heartbeat

    async def told(self) -> AsyncIterator[bytes]:
        """Yield frames until the job has ended, the gateway stops, or the events cannot be read."""
        with self._hub.subscribed(self._job.queue, self._job.id, kind="events") as subscription:
            yield b"retry: %d\n\n" % RECONNECT_MS
            try:
                async for frame in self._frames(subscription):
                    yield frame
            except HostlerError as error:
                yield _frame("problem", msgspec.json.encode(problem(error)))

    async def _frames(self, subscription: Subscription) -> AsyncIterator[bytes]:
        look = True
        while True:
            if look:
                async for frame in self._history():
                    yield frame
                if await self._has_ended():
                    return
            found = await subscription.next(within=self._heartbeat)
            look = found is Signal.RESYNC
            if found is Signal.CLOSED:
                return
            if found is Signal.QUIET:
                yield b": still here\n\n"
            elif isinstance(found, Event) and found.offset > self._last:
                self._last = found.offset
                yield self._shown(found)
                if found.state is not None and found.state.terminal:
                    return

    async def _history(self) -> AsyncIterator[bytes]:
        timeline = await self._desk.timeline(self._job.id)
        if (shared := self._turned(timeline)) is not None:
            yield _frame("reset", msgspec.json.encode({"after": shared}))
        if not timeline.complete and (not timeline.events or timeline.events[0].offset > self._last + 1):
            yield _frame("gap", msgspec.json.encode({"after": self._last}))
        found = {event.offset: event for event in timeline.events if event.offset > self._last}
        if timeline.events:
            stream = timeline.stream or self._job.queue
            found |= await self._between(stream, max(self._last, timeline.events[0].offset), timeline.events[-1])
        for offset in sorted(found):
            self._last = offset
            yield self._shown(found[offset])

    def _turned(self, timeline: Timeline) -> int | None:
        """Take another epoch in; return the offset behind which all that was told is void, None when nothing is."""
        before, self._epoch = self._epoch, timeline.epoch
        shared = None if before is None or before == timeline.epoch else timeline.shared(before)
        if shared is None or shared >= self._last:
            return None
        self._last = shared
        return shared

    def _shown(self, event: Event) -> bytes:
        return event_frame(event, self._epoch)

    async def _between(self, stream: str, after: int, latest: Event) -> dict[int, Event]:
        """Return the job's events of the stream behind `after`, for those that a timeline leaves out (progress).

        Looks at `SCAN` pages of the stream at most: a job that runs beside very many others tells its moves
        from before the connection, and its progress from then on.
        """
        found: dict[int, Event] = {}
        for _ in range(SCAN):
            page = await self._desk.events(stream, after=after, limit=PAGE)
            found |= {event.offset: event for event in page.events if event.job == self._job.id}
            ended = latest.state is not None and latest.state.terminal and page.next >= latest.offset
            if ended or page.next <= after or len(page.events) < PAGE:
                return found
            after = page.next
        return found

    async def _has_ended(self) -> bool:
        """Tell whether the job has ended and its last event has been told."""
        job = await self._desk.get(self._job.id)
        if not job.state.terminal:
            return False
        timeline = await self._desk.timeline(self._job.id)
        return not timeline.events or timeline.events[-1].offset <= self._last


def event_frame(event: Event, epoch: int | None) -> bytes:
    """Return an event as one server-sent event whose id is its epoch and offset."""
    return b"id: %d-%d\n" % (epoch or 0, event.offset) + _frame(event.type, msgspec.json.encode(event))


def _frame(name: str, data: bytes) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (name.encode(), data)


async def unless_gone(work: asyncio.Task[Job], gone: asyncio.Task[None]) -> Job | None:
    """Return the work's answer, or None when the client went away first; nothing is left running."""
    try:
        await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
        return work.result() if work.done() else None
    finally:
        for task in (work, gone):
            task.cancel()
        await asyncio.gather(work, gone, return_exceptions=True)
