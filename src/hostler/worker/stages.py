"""Which stage of an attempt is how late: pure bookkeeping on a clock that is handed in."""

from functools import lru_cache

from hostler.contracts.failure import Failure, FailureClass, Stage
from hostler.contracts.timeouts import HANDLER_TIMEOUTS, LOADING, SERVICE_TIMEOUTS, Timeouts
from hostler.kernel.units import Seconds

SLACK: Seconds = 0.5
"""How much later than a connector the worker enforces a stage: the connector's own words are better."""

EARLY: Seconds = 0.25
"""So long before its end a service may end work by itself, since it was told how much time there is."""


@lru_cache(maxsize=1024)
def complete(job: Timeouts, kind: Timeouts, *, service: bool) -> Timeouts:
    """Return the job's timeouts with the kind's, then the defaults, in the gaps."""
    last = SERVICE_TIMEOUTS if service else HANDLER_TIMEOUTS

    def first(*limits: Seconds | None) -> Seconds | None:
        return next((limit for limit in limits if limit is not None), None)

    return Timeouts(
        queue=first(job.queue, kind.queue),
        connect=first(job.connect, kind.connect, last.connect),
        load=first(job.load, kind.load, last.load),
        first_byte=first(job.first_byte, kind.first_byte, last.first_byte),
        idle=first(job.idle, kind.idle, last.idle),
        run=first(job.run, kind.run, last.run),
    )


class StageWatch:
    """Knows since when an attempt is in which stage, and which limit ends first.

    `started` and `ends` (the job's deadline) are on one monotonic clock, in seconds.
    """

    def __init__(self, timeouts: Timeouts, *, started: float, ends: float | None, service: bool) -> None:
        self._timeouts = timeouts
        self._started = started
        self._ends = ends
        self._slack = SLACK if service else 0.0
        self._own = {
            Stage.CONNECT: timeouts.connect,
            Stage.FIRST_BYTE: timeouts.first_byte,
            Stage.LOAD: timeouts.load,
            Stage.IDLE: timeouts.idle,
        }
        self._shortest = min([limit for limit in self._own.values() if limit is not None], default=None)
        self._stage = Stage.IDLE
        self._since = started

    def connecting(self, now: float) -> None:
        """Work is being handed to a service."""
        self._stage, self._since = Stage.CONNECT, now

    def submitted(self, now: float) -> None:
        """The service accepted the work and has said nothing yet."""
        self._stage, self._since = Stage.FIRST_BYTE, now

    def touched(self, now: float, stage: str | None = None) -> None:
        """The work gave a sign of life, perhaps naming its own stage."""
        if stage is not None and stage.lower() in LOADING:
            if self._stage is not Stage.LOAD:
                self._stage, self._since = Stage.LOAD, now
        elif stage is not None or self._stage is not Stage.LOAD:
            self._stage, self._since = Stage.IDLE, now

    def next(self) -> tuple[float, Stage] | None:
        """Return when which limit ends first; None when there is no limit at all."""
        first = None if self._ends is None else (self._ends, Stage.DEADLINE)  # of two at once, the wider one is named
        run, own = self._timeouts.run, self._own[self._stage]
        if run is not None and (first is None or self._started + run + self._slack < first[0]):
            first = (self._started + run + self._slack, Stage.RUN)
        if own is not None and (first is None or self._since + own + self._slack < first[0]):
            first = (self._since + own + self._slack, self._stage)
        return first

    def look_in(self, now: float) -> Seconds | None:
        """Return after how many seconds to look whether something is late; None when nothing ever is.

        That is when the first limit ends, or sooner: a stage that begins meanwhile may have a shorter limit.
        """
        first = self.next()
        wait = None if first is None else max(0.0, first[0] - now)
        soon = None if self._shortest is None else self._shortest + self._slack
        return min((each for each in (wait, soon) if each is not None), default=None)

    def left(self, now: float) -> Seconds | None:
        """Return the seconds to the end of the run limit or to the deadline, whichever is first; None without both."""
        end = None if self._timeouts.run is None else self._started + self._timeouts.run
        if self._ends is not None and (end is None or self._ends < end):
            end = self._ends
        return None if end is None else end - now

    def to_deadline(self, now: float) -> Seconds | None:
        """Return the seconds to the job's deadline, None when it has none."""
        return None if self._ends is None else self._ends - now

    def nearly_over(self, now: float) -> Failure | None:
        """Return the failure of the run limit or deadline that ends within `EARLY`, if one does."""
        left = self.left(now)
        if left is None or left > EARLY:
            return None
        ends = self._ends is not None and self._ends - now <= left
        return self._failure(Stage.DEADLINE if ends else Stage.RUN)

    def late(self, now: float) -> Failure | None:
        """Return the failure of the limit that has ended, if one has."""
        first = self.next()
        if first is None or now < first[0]:
            return None
        return self._failure(first[1])

    def _failure(self, stage: Stage) -> Failure:
        words = {
            Stage.CONNECT: "the service did not take the work",
            Stage.FIRST_BYTE: "the service took the work and then said nothing",
            Stage.LOAD: "the service did not finish loading",
            Stage.IDLE: "the work gave no sign of life",
            Stage.RUN: "the work did not end",
            Stage.DEADLINE: "the job did not end by its deadline",
        }[stage]
        limit = getattr(self._timeouts, stage.value, None)
        within = f" within {limit:g} s" if isinstance(limit, float | int) else ""
        return Failure(class_=FailureClass.TIMEOUT, stage=stage, message=f"{words}{within}")
