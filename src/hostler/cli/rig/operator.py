"""An operator of a rig: pauses queues as planned and lets them go on, through gateways that may be away."""

import asyncio
import contextlib
import itertools
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Final, Literal, Self

from hostler.chaos.schedule import Pause
from hostler.chaos.tape import Process, Tape
from hostler.cli.rig.stage import Report
from hostler.client import Fleet, connect
from hostler.kernel.errors import HostlerError, InternalError
from hostler.kernel.units import Seconds

ANSWER: Final[Seconds] = 4.0
"""How long it waits for one answer; then nobody knows, and it asks the next gateway."""
AGAIN: Final[Seconds] = 0.5
HEEDED_WITHIN: Final[Seconds] = 60.0
LOOK: Final[Seconds] = 1.0
WHY: Final = "the rig tries it out"


class Operator:
    """`async with` connects; `perform` plays the pauses, and `keep_open` sees that none is left."""

    def __init__(self, tape: Tape, urls: Sequence[str], report: Report) -> None:
        self._process = Process(tape, "operator")
        self._urls = urls
        self._report = report
        self._stack = AsyncExitStack()
        self._gateways: itertools.cycle[Fleet] = itertools.cycle(())
        self._queues: tuple[str, ...] = ()

    async def __aenter__(self) -> Self:
        fleets = [await self._stack.enter_async_context(connect(url, tries=1)) for url in self._urls]
        self._gateways = itertools.cycle(fleets)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def perform(self, pauses: Sequence[Pause]) -> None:
        """Pause and resume at their moments; `InternalError` when no gateway heeds that for long."""
        began = time.monotonic()
        self._queues = tuple(dict.fromkeys(pause.queue for pause in pauses))
        for pause in pauses:
            await asyncio.sleep(max(0.0, began + pause.begin - time.monotonic()))
            await self._order("pause", pause.queue)
            self._report({"event": "paused", "queue": pause.queue, "seconds": pause.length})
            await asyncio.sleep(pause.length)
            await self._order("resume", pause.queue)
            self._report({"event": "resumed", "queue": pause.queue})

    async def keep_open(self) -> None:
        """Resume what is found paused, for ever: an order whose answer never came may still have been on its way."""
        while self._queues:
            for queue in self._queues:
                if await self._is_paused(queue):
                    await self._order("resume", queue)
                    self._report({"event": "resumed", "queue": queue})
            await asyncio.sleep(LOOK)

    async def _is_paused(self, queue: str) -> bool:
        with contextlib.suppress(TimeoutError, HostlerError):
            async with asyncio.timeout(ANSWER):
                return (await next(self._gateways).queues.get(queue)).stats.paused
        return False

    async def _order(self, verb: Literal["pause", "resume"], queue: str) -> None:
        ends = time.monotonic() + HEEDED_WITHIN
        while time.monotonic() < ends:
            queues = next(self._gateways).queues
            order = queues.pause if verb == "pause" else queues.resume
            with contextlib.suppress(TimeoutError, HostlerError):
                async with asyncio.timeout(ANSWER):
                    with self._process.doing(verb, queue=queue):
                        await order(queue, reason=WHY)
                return
            await asyncio.sleep(AGAIN)
        raise InternalError(f"no gateway took the {verb} of {queue} in {HEEDED_WITHIN:g} s")
