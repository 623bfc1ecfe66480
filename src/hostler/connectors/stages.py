"""The clocks of one attempt: each stage has a limit, the run and the deadline bound them all."""

import asyncio
import math
import time
from collections.abc import Callable
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

from hostler.connectors.faults import timed_out
from hostler.contracts.failure import Stage
from hostler.contracts.service import ServiceCall
from hostler.contracts.timeouts import Timeouts
from hostler.kernel.units import Instant, Seconds


class Stages:
    """Says how long a stage may still take, and whom to blame when it took longer; starts when it is made."""

    def __init__(
        self,
        timeouts: Timeouts,
        deadline: Instant | None = None,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._timeouts = timeouts
        self._monotonic = monotonic
        started = monotonic()
        self._end: tuple[float, Stage, Seconds | None] = (math.inf, Stage.RUN, None)
        """When all stages are over, whom to blame then, and its limit: None when there is no such time."""
        if timeouts.run is not None:
            self._end = (started + timeouts.run, Stage.RUN, timeouts.run)
        if deadline is not None:
            rest = max(0.0, (deadline - wall()).total_seconds())
            if started + rest < self._end[0]:
                self._end = (started + rest, Stage.DEADLINE, rest)
        self._limits = {
            Stage.CONNECT: timeouts.connect,
            Stage.LOAD: timeouts.load,
            Stage.FIRST_BYTE: timeouts.first_byte,
            Stage.IDLE: timeouts.idle,
            Stage.RUN: timeouts.run,
        }

    @classmethod
    def of(cls, call: ServiceCall) -> "Stages":
        """Start the clocks of one call."""
        return cls(call.timeouts, call.deadline)

    def left(self, stage: Stage, *, since: float | None = None) -> tuple[Seconds | None, Stage, Seconds | None]:
        """Return the seconds left (None without any limit), the stage to blame, and that stage's limit.

        `since` is when the stage began, on the monotonic clock; now unless given.
        """
        now = self._monotonic()
        end, blame, limit = self._end
        own = self._limits.get(stage)
        if own is not None and (over := (now if since is None else since) + own) < end:
            end, blame, limit = over, stage, own
        return (None, stage, None) if limit is None else (max(0.0, end - now), blame, limit)

    def check(self, stage: Stage, *, since: float) -> None:
        """Raise the fault of the stage whose time is up, if one's is."""
        rest, blame, limit = self.left(stage, since=since)
        if rest is not None and rest <= 0:
            raise timed_out(blame, limit)

    def within(self, stage: Stage, *, since: float | None = None) -> "Bounded":
        """Bound what is awaited inside by this stage; raises `ServiceFaultError` of class timeout."""
        rest, blame, limit = self.left(stage, since=since)
        return Bounded(rest, blame, limit=limit)

    def clock(self, stage: Stage, *, since: float | None = None) -> "StageClock":
        """Bound what goes through several stages, at first by this one that began at `since`; now unless given."""
        return StageClock(self, self._monotonic, stage, self._monotonic() if since is None else since)


class Bounded:
    """Bounds what is awaited inside; raises `ServiceFaultError` of class timeout that blames the stage and its limit.

    A class and no generator, since some streams enter one for every message.
    """

    def __init__(self, seconds: Seconds | None, stage: Stage, *, limit: Seconds | None = None) -> None:
        self._stage = stage
        self._limit = seconds if limit is None else limit
        self._timer = asyncio.timeout(seconds)

    async def __aenter__(self) -> None:
        await self._timer.__aenter__()

    def expire(self, stage: Stage, limit: Seconds | None) -> None:
        """End what is awaited inside now, and blame this stage."""
        self._stage, self._limit = stage, limit
        self._timer.reschedule(asyncio.get_running_loop().time())

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._timer.__aexit__(kind, value, trace)
        except TimeoutError:
            raise timed_out(self._stage, self._limit) from None
        if isinstance(value, TimeoutError) and self._timer.expired():  # what was cut off said it in its own words
            raise timed_out(self._stage, self._limit) from None


class StageClock:
    """Bounds a request and the loop over its answer; raises `ServiceFaultError` of class timeout that blames the stage.

    To begin a stage is to note the time: the one timer looks at that when it runs out, and goes on if there is time
    left, so that a message costs no timer. Not for a generator that yields inside: who takes that would be bounded too.
    """

    def __init__(self, stages: Stages, monotonic: Callable[[], float], stage: Stage, since: float) -> None:
        self._stages, self._monotonic = stages, monotonic
        self._stage, self._since = stage, since
        self._bound = Bounded(None, stage)
        self._timer: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Self:
        await self._bound.__aenter__()
        self._look()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._cancel()
        await self._bound.__aexit__(kind, value, trace)

    def begin(self, stage: Stage) -> None:
        """Begin a stage now, or the same one again."""
        same, self._stage, self._since = stage is self._stage, stage, self._monotonic()
        if not same:  # it may be over sooner than the one before
            left, _, _ = self._stages.left(stage, since=self._since)
            timer = self._timer
            if left is not None and (timer is None or timer.when() > asyncio.get_running_loop().time() + left):
                self._cancel()
                self._look()

    def _look(self) -> None:
        """End the loop when the present stage is over, else look again when it may be."""
        left, blame, limit = self._stages.left(self._stage, since=self._since)
        if left is None:
            self._timer = None
        elif left > 0:
            self._timer = asyncio.get_running_loop().call_later(left, self._look)
        else:
            self._bound.expire(blame, limit)

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
