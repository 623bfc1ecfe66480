"""Watching over work: it is told to stop, or a stage takes too long."""

import asyncio
from collections.abc import Callable

from hostler.contracts.failure import Failure
from hostler.ports.clock import Clock
from hostler.worker.runs import Cause
from hostler.worker.stages import StageWatch


class Watch:
    """Calls `halt` once when work has to stop, from the loop; `why` says why.

    One timer for all stages: it looks which limit ends next when it runs out, so that a new stage costs nothing.
    """

    def __init__(self, stages: StageWatch, clock: Clock, halt: Callable[[], None]) -> None:
        self._stages, self._clock = stages, clock
        self._halt: Callable[[], None] | None = halt
        self._timer: asyncio.TimerHandle | None = None
        self._begun = self._closed = False
        self.why: Cause | Failure | None = None

    def begin(self) -> Cause | Failure | None:
        """Watch from now on, unless the work was told to stop before: that is returned."""
        self._begun = True
        if self.why is None:
            self._look()
        return self.why

    def tell(self, why: Cause | Failure) -> None:
        """Have the work stopped; the first word counts, and none after `close`."""
        if self.why is not None or self._closed:
            return
        self.why = why
        if self._begun and self._halt is not None:
            halt = self._halt
            self.close()
            halt()

    def close(self) -> None:
        """Watch no more."""
        self._closed, self._halt = True, None  # whom it calls may own it: no circle is left to the collector
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        now = self._clock.monotonic()
        if (failure := self._stages.late(now)) is not None:
            self.tell(failure)
        elif (wait := self._stages.look_in(now)) is not None:
            self._timer = asyncio.get_running_loop().call_later(wait, self._look)
