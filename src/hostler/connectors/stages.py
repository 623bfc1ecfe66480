"""The clocks of one attempt: each stage has a limit, the run and the deadline bound them all."""

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime
from types import TracebackType

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
        self._ends: list[tuple[float, Stage, Seconds]] = []
        if timeouts.run is not None:
            self._ends.append((started + timeouts.run, Stage.RUN, timeouts.run))
        if deadline is not None:
            rest = max(0.0, (deadline - wall()).total_seconds())
            self._ends.append((started + rest, Stage.DEADLINE, rest))
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
        candidates = [(end - now, blame, limit) for end, blame, limit in self._ends]
        own = self._limits.get(stage)
        if own is not None:
            candidates.append(((now if since is None else since) + own - now, stage, own))
        if not candidates:
            return None, stage, None
        rest, blame, limit = min(candidates, key=lambda candidate: candidate[0])
        return max(0.0, rest), blame, limit

    def check(self, stage: Stage, *, since: float) -> None:
        """Raise the fault of the stage whose time is up, if one's is."""
        rest, blame, limit = self.left(stage, since=since)
        if rest is not None and rest <= 0:
            raise timed_out(blame, limit)

    def within(self, stage: Stage, *, since: float | None = None) -> "Bounded":
        """Bound what is awaited inside by this stage; raises `ServiceFaultError` of class timeout."""
        rest, blame, limit = self.left(stage, since=since)
        return Bounded(rest, blame, limit=limit)


class Bounded:
    """Bounds what is awaited inside; raises `ServiceFaultError` of class timeout that blames the stage and its limit.

    A class and no generator, since streams enter one for every message.
    """

    def __init__(self, seconds: Seconds | None, stage: Stage, *, limit: Seconds | None = None) -> None:
        self._stage = stage
        self._limit = seconds if limit is None else limit
        self._timer = asyncio.timeout(seconds)

    async def __aenter__(self) -> None:
        await self._timer.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._timer.__aexit__(kind, value, trace)
        except TimeoutError:
            raise timed_out(self._stage, self._limit) from None
        if isinstance(value, TimeoutError) and self._timer.expired():  # what was cut off said it in its own words
            raise timed_out(self._stage, self._limit) from None
