"""What one process knows of one endpoint from the calls it made: breaker, latency, learned limit, pauses asked for."""

import math
from collections.abc import Callable, Mapping
from typing import Final

import msgspec
from msgspec import Struct

from hostler.contracts.failure import Failure, FailureClass
from hostler.contracts.service import BreakerMode, Cooling, Traffic
from hostler.dispatch.memory import Memory
from hostler.kernel.units import Seconds
from hostler.policy import breaker as breakers
from hostler.policy.breaker import DEFAULT, Breaker, BreakerPolicy, Mode, Permit
from hostler.policy.concurrency import MOST, Limit, aimd, gradient
from hostler.policy.latency import Latency, quantile, sampled
from hostler.ports.clock import Clock, Dice

RAMP: Final[Seconds] = 30.0
"""How long an endpoint that has just come takes to get its full share."""
RAMP_LEAST: Final = 0.1
STALE: Final[Seconds] = 30.0
"""How fast what is known of an endpoint's speed is forgotten, so that a slow one is tried again."""
DEAREST: Final = 8.0
"""A slow endpoint counts as so many times dearer than the usual, at most."""
COOL: Final[Seconds] = 1.0
"""How long an endpoint without room is left alone, unless it named a time."""
LIFTED: Final[Seconds] = 0.5
"""A shared pause that is gone so long before its end was lifted by an operator."""
COOLEST: Final[Seconds] = 300.0
"""Longest time that an endpoint is left alone because it asked for it."""

MISMATCHES: Final = 3
"""Jobs in a row that an endpoint lacks something for, though it offers it, before it is left alone for a while."""

Told = Callable[[str, str, str], None]
"""Takes how it was, how it is now, and why."""

_DROPS = frozenset({FailureClass.OVERLOADED, FailureClass.TIMEOUT})
_COOLS = frozenset({FailureClass.OVERLOADED, FailureClass.QUOTA})


class Ticket(Struct, frozen=True, kw_only=True):
    """One call that is under way."""

    kind: str
    began: Seconds
    """On the clock that only rises."""
    permit: Permit
    models: tuple[str, ...] = ()
    """Models that the job names."""
    loads: bool = False
    """Whether one of them had to be loaded for it."""


class Gauge:
    """Counts what goes to one endpoint and how it ends; not safe for several threads.

    `begin` and `end` frame every call. `spare` says how many more it may get now, `weight` how dear it is.
    `first` is the limit to begin with; `woken` hears in how many seconds a pause ends that began.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        dice: Dice,
        first: int,
        policy: BreakerPolicy = DEFAULT,
        woken: Callable[[Seconds], None] | None = None,
        memory: Memory | None = None,
    ) -> None:
        self._clock, self._dice, self._policy = clock, dice, policy
        self._woken = woken
        self._breaker = Breaker()
        self._limit = Limit(value=float(first))
        self._latencies: dict[str, Latency] = {}
        self._since = clock.monotonic()
        self._cool_until = 0.0
        self._cooled: tuple[Cooling, str] = (Cooling.ASKED, "")
        self._held_until = 0.0
        self._last_error: Failure | None = None
        self.memory = memory or Memory(clock)
        """Which model it holds, where it holds one at a time."""
        self._mismatches = 0
        self.told: Told = _nobody
        """Hears when its breaker opens or closes, and when a pause begins that the service is the reason for."""
        self.outstanding = 0
        self.slots: float | None = None
        """Calls that the endpoint says it takes at a time."""
        self.forced = False
        """Whether its breaker is ignored, since most of its pool is out."""

    def begin(self, kind: str, models: tuple[str, ...] = ()) -> Ticket:
        """Note that a call begins, for these models."""
        now = self._clock.monotonic()
        self._breaker, permit = breakers.admit(self._breaker, now, self._policy, force=True)
        self.outstanding += 1
        loads = self.memory.begins(models)
        return Ticket(kind=kind, began=now, permit=permit or Permit(term=-1), models=models, loads=loads)

    def end(self, ticket: Ticket, failure: Failure | None, *, told: bool = False) -> None:
        """Note how a call ended; `told` means that it was stopped from here, which says nothing about the endpoint."""
        self.outstanding -= 1
        if told:
            failure = Failure(class_=FailureClass.CANCELLED, message="stopped from here")
        now = self._clock.monotonic()
        took = now - ticket.began
        self.memory.ended(ticket.models, failure, took, loads=ticket.loads)
        mark = breakers.mark_of(failure, took, self._policy)
        before = self._breaker
        self._breaker = breakers.record(
            before, ticket.permit, mark, now=now, roll=self._dice.roll(), policy=self._policy
        )
        self._tell(before, now, failure)
        if failure is None:
            self._latencies[ticket.kind] = sampled(self._latencies.get(ticket.kind, Latency()), took, now)
        elif not told and not failure.unsent:
            self._last_error = failure
        self._rest(failure)
        self._learn(failure, took)
        if failure is not None and self._woken is not None and (pause := self._wakes_in(now)) is not None:
            self._woken(pause)

    def cool(self, seconds: Seconds, *, by: Cooling = Cooling.ASKED, why: str = "") -> None:
        """Leave the endpoint alone for so long, since it said so, or a limit did."""
        now = self._clock.monotonic()
        until = now + min(max(seconds, 0.0), COOLEST)
        if until <= self._cool_until:
            return
        if self._cool_until <= now < until and by is not Cooling.LIMIT:
            self.told("in use", "cooled", f"for {until - now:.1f} s, {by}: {why}")
        self._cool_until, self._cooled = until, (by, why)

    def hold(self, seconds: Seconds) -> None:
        """Take in how long all workers are to leave the endpoint alone; 0 before the time ends every pause with it."""
        now = self._clock.monotonic()
        if seconds <= 0.0 and self._held_until - now > LIFTED:
            self._cool_until = 0.0
        turns = (self._held_until > now) is not (seconds > 0.0)
        self._held_until = now + max(seconds, 0.0)
        if turns and self._woken is not None:
            self._woken(max(seconds, 0.0))

    def reset(self) -> None:
        """Close the breaker and forget pauses, by an operator's word; what holds for all workers holds on."""
        self._breaker = breakers.reset(self._breaker, self._clock.monotonic())
        self._cool_until = 0.0

    def came(self) -> None:
        """Note that it has just come (back): it gets its full share only by and by."""
        self._since = self._clock.monotonic()

    @property
    def out(self) -> bool:
        """Tell whether its breaker keeps every call away now."""
        return breakers.mode_at(self._breaker, self._clock.monotonic()) is Mode.OPEN

    def spare(self) -> int:
        """Return how many more calls it may get from here now."""
        now = self._clock.monotonic()
        if now < max(self._cool_until, self._held_until):
            return 0
        free = max(0, self._limit.calls - self.outstanding)
        mode = breakers.mode_at(self._breaker, now)
        if mode is Mode.CLOSED or self.forced:
            return free
        if mode is Mode.OPEN:
            return 0
        return min(free, breakers.probes_left(self._breaker, now, self._policy))

    def latency(self, kind: str) -> Latency:
        """Return what is known of how long calls of a kind take."""
        return self._latencies.get(kind, Latency())

    def median(self, kind: str) -> Seconds | None:
        """Return how long half of the last calls of a kind took at most; None while they are too few or long ago."""
        known = self.latency(kind)
        return quantile(known, 0.5) if self._clock.monotonic() - known.at < STALE else None

    def averages(self) -> Mapping[str, Seconds]:
        """Return how long calls take, by kind."""
        return {kind: known.average for kind, known in self._latencies.items() if known.average is not None}

    def weight(self, usual: Mapping[str, Seconds]) -> float:
        """Return how dear a call is, where `usual` is how long one takes on the endpoints of its pool, by kind."""
        now = self._clock.monotonic()
        ratios = [
            1.0 + (known.average / usual[kind] - 1.0) * math.exp(-max(0.0, now - known.at) / STALE)
            for kind, known in self._latencies.items()
            if known.average is not None and usual.get(kind, 0.0) > 0.0
        ]
        speed = sum(ratios) / len(ratios) if ratios else 1.0
        ramp = min(1.0, max(RAMP_LEAST, (now - self._since) / RAMP))
        return min(DEAREST, max(1.0 / DEAREST, speed)) / ramp

    def traffic(self) -> Traffic:
        """Return what is shown of it."""
        now = self._clock.monotonic()
        calls, failed = breakers.failures(self._breaker, now, self._policy)
        recent = [known for known in self._latencies.values() if known.recent]
        merged = Latency(recent=tuple(took for known in recent for took in known.recent))
        mode = breakers.mode_at(self._breaker, now)
        until = max(self._cool_until, self._held_until)
        cooled, (by, why) = until > now, self._cooled if self._cool_until > now else (Cooling.ASKED, "")
        return Traffic(
            in_flight=self.outstanding,
            limit=self._limit.calls,
            calls=calls,
            failed=failed,
            p50_s=quantile(merged, 0.5),
            p95_s=quantile(merged, 0.95),
            breaker=BreakerMode(mode.value),
            breaker_s=max(0.0, self._breaker.until - now) if mode is Mode.OPEN else None,
            cooled_s=until - now if cooled else None,
            cooled_by=by if cooled else None,
            cooled_why=(why or None) if cooled else None,
            forced=self.forced,
            last_error=None if self._last_error is None else f"{self._last_error.label}: {self._last_error.message}",
        )

    def _rest(self, failure: Failure | None) -> None:
        """Begin a pause where a failure asks for one, or where several in a row say that it lacks what it offers."""
        if failure is None:
            self._mismatches = 0
        elif failure.class_ in _COOLS and not failure.details.get("narrow"):
            self.cool(
                COOL if failure.retry_after is None else failure.retry_after, by=_cooling(failure), why=failure.message
            )
        elif failure.class_ is FailureClass.CAPABILITY_MISMATCH:
            self._mismatches += 1
            if (beyond := self._mismatches - MISMATCHES) >= 0:
                self.cool(COOL * 2.0 ** min(beyond, 5), by=Cooling.MISMATCH, why=failure.message)

    def _tell(self, before: Breaker, now: Seconds, failure: Failure | None) -> None:
        if self._breaker.mode is before.mode:
            return
        was = f"breaker {breakers.mode_at(before, now)}"
        if self._breaker.mode is Mode.OPEN:
            words = "calls that took too long" if failure is None else f"{failure.label}: {failure.message}"
            self.told(was, "breaker open", f"for {self._breaker.until - now:.1f} s, after {words}")
        elif self._breaker.mode is Mode.CLOSED:
            self.told(was, "breaker closed", "calls that tried it out went well")

    def _wakes_in(self, now: Seconds) -> Seconds | None:
        """Return in how many seconds `spare` may rise by itself; None when only an ending raises it."""
        times = [self._cool_until - now]
        if breakers.mode_at(self._breaker, now) is Mode.OPEN and not self.forced:
            times.append(self._breaker.until - now)
        return max((each for each in times if each > 0.0), default=None)

    def _learn(self, failure: Failure | None, took: Seconds) -> None:
        dropped = failure is not None and failure.class_ in _DROPS and not failure.unsent
        if failure is not None and not dropped:
            return
        busy = self.outstanding + 1
        if self.slots is not None:
            self._limit = aimd(self._limit, dropped=dropped, outstanding=busy, slots=self.slots)
        else:
            self._limit = gradient(self._limit, dropped=dropped, outstanding=busy, took=took, most=MOST)

    def declare(self, slots: float | None) -> None:
        """Take in how many calls the endpoint says it takes; the limit is learned below that."""
        if slots is not None and slots != self.slots:
            self._limit = msgspec.structs.replace(self._limit, value=max(1.0, slots))
        self.slots = slots


def _cooling(failure: Failure) -> Cooling:
    if failure.unsent:
        return Cooling.LIMIT
    return Cooling.QUOTA if failure.class_ is FailureClass.QUOTA else Cooling.ASKED


def _nobody(was: str, now: str, why: str) -> None:
    """Nobody listens."""
