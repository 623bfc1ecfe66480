"""Clients of a rig: they submit through the gateways, look, cancel, ask again without an answer, and record it all."""

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack
from typing import Final, Self

import msgspec

from hostler.chaos.load import Group, Planned
from hostler.chaos.tape import Process, Tape
from hostler.chaos.values import Answer, Answers, Requests, Seen
from hostler.client import Fleet, connect
from hostler.client.problems import wait_before
from hostler.contracts.job import JobRequest
from hostler.kernel.errors import EngineError, GatewayUnavailableError, HostlerError
from hostler.kernel.units import Seconds

CLIENTS: Final = 10
ANSWER: Final[Seconds] = 4.0
"""How long a client waits for one answer; then nobody knows, and it asks the next gateway."""
PAUSE: Final[Seconds] = 0.5
_OPTIONS: Final = tuple(name for name in JobRequest.__struct_fields__ if name not in ("kind", "payload"))


class Taken(msgspec.Struct, frozen=True, kw_only=True):
    """One acknowledged submit."""

    job: str
    created: bool
    planned: Planned


class Clients:
    """`async with` connects; `perform` plays a load; `told` hears of each job that was taken."""

    def __init__(self, tape: Tape, urls: Sequence[str], told: Callable[[str], None]) -> None:
        self._tape = tape
        self._urls = urls
        self._told = told
        self._stack = AsyncExitStack()
        self._fleets: list[Fleet] = []
        self._names = itertools.count(1)
        self._idle: list[Process] = []
        self.taken: list[Taken] = []
        self.asked = 0
        """Submits that were begun, repetitions not counted."""

    async def __aenter__(self) -> Self:
        self._fleets = [await self._stack.enter_async_context(connect(url, tries=1)) for url in self._urls]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def perform(self, load: Sequence[Planned], *, patience: Seconds) -> None:
        """Submit everything at its moment; what nobody takes in `patience` seconds more is given up.

        Each gateway is asked once at least, however late it is.
        """
        began = time.monotonic()
        room = asyncio.Semaphore(CLIENTS)
        async with asyncio.TaskGroup() as group:
            for planned in load:
                await asyncio.sleep(max(0.0, began + planned.at - time.monotonic()))
                await room.acquire()
                self.asked += 1
                task = group.create_task(self._one(planned, until=began + load[-1].at + patience))
                task.add_done_callback(lambda _: room.release())

    async def turn_away(self, *, within: Seconds) -> None:
        """Cancel what nobody can serve."""
        ends = time.monotonic() + within
        jobs = dict.fromkeys(one.job for one in self.taken if one.planned.group is Group.UNSERVABLE)
        room = asyncio.Semaphore(CLIENTS)

        async def one(job: str) -> None:
            async with room:
                await self._cancel(job, until=ends)

        await asyncio.gather(*map(one, jobs))

    async def _one(self, planned: Planned, *, until: float) -> None:
        taken = await self._submit(planned, until=until)
        if taken is None:
            return
        self.taken.append(taken)
        self._told(taken.job)
        await self._look(taken.job)
        if planned.cancel_after is not None:
            await asyncio.sleep(planned.cancel_after)
            await self._cancel(taken.job, until=until)

    async def _submit(self, planned: Planned, *, until: float) -> Taken | None:
        request = planned.request
        options = {name: getattr(request, name) for name in _OPTIONS if getattr(request, name) is not None}
        for tried, fleet in enumerate(self._turns(), 1):
            try:
                async with self._process() as client, asyncio.timeout(ANSWER):
                    with client.doing("submit", Requests(requests=(request,))) as doing:
                        handle = await fleet.submit(request.kind, request.payload, **options)
                        doing.ok(Answers(answers=(Answer(id=handle.id, created=handle.created),)))
                return Taken(job=handle.id, created=handle.created, planned=planned)
            except (TimeoutError, HostlerError) as error:
                late = time.monotonic() > until and tried >= len(self._fleets)
                if not _again(error) or late:
                    return None
                await asyncio.sleep(_pause(error))
        return None

    async def _look(self, job: str) -> None:
        """Look at a job that was just taken, through the gateway whose turn it is: it must be there."""
        with contextlib.suppress(TimeoutError, HostlerError):
            async with self._process() as client, asyncio.timeout(ANSWER):
                with client.doing("get", job=job) as doing:
                    found = await next(self._turns()).get(job)
                    doing.ok(Seen(state=found.state, attempt=found.attempt, generation=found.generation))

    async def _cancel(self, job: str, *, until: float) -> None:
        for fleet in self._turns():
            try:
                async with self._process() as client, asyncio.timeout(ANSWER):
                    with client.doing("cancel", job=job) as doing:
                        state = await fleet.cancel(job, reason="nobody wants it any more")
                        doing.ok(Seen(state=state))
            except (TimeoutError, HostlerError) as error:
                if not _again(error) or time.monotonic() > until:
                    return
            else:
                return
            await asyncio.sleep(PAUSE)

    def _turns(self) -> "itertools.cycle[Fleet]":
        """Yield the gateways for ever, beginning with another one each time."""
        start = next(self._names) % len(self._fleets)
        return itertools.cycle(self._fleets[start:] + self._fleets[:start])

    @contextlib.asynccontextmanager
    async def _process(self) -> AsyncGenerator[Process]:
        """Lend a client: it does one thing at a time."""
        client = self._idle.pop() if self._idle else Process(self._tape, f"client-{next(self._names)}")
        try:
            yield client
        finally:
            self._idle.append(client)


def _pause(error: Exception) -> Seconds:
    """Return when to ask again: at the time that was said, if one was."""
    told = wait_before(error) if isinstance(error, HostlerError) else None
    return PAUSE if told is None else max(PAUSE, told)


def _again(error: Exception) -> bool:
    """Tell whether asking again can help: nobody knows, or it was refused for now."""
    if isinstance(error, TimeoutError | GatewayUnavailableError | EngineError):
        return True
    return isinstance(error, HostlerError) and error.retry == "later"
