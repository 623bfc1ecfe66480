"""How much may be repeated: a retry budget that holds for a whole service, and when a second call may race a first."""

from typing import Final

from msgspec import Struct

from hostler.kernel.units import Fraction, Seconds
from hostler.policy.latency import Latency, quantile

SHARE: Final[Fraction] = 0.2
"""Repeats per call."""
FLOOR: Final = 3.0
"""Repeats a second that are allowed however few calls there are."""
SPAN: Final = 10
"""Seconds that are looked at."""
HEDGE_AT: Final[Fraction] = 0.95


class Second(Struct, frozen=True, array_like=True):
    """What happened in one second."""

    number: int
    calls: int = 0
    repeats: int = 0


class Budget(Struct, frozen=True, kw_only=True):
    """The last seconds of one service."""

    seconds: tuple[Second, ...] = ()


def called(budget: Budget, now: Seconds) -> Budget:
    """Take in one first call."""
    return _add(budget, now, calls=1)


def left(budget: Budget, now: Seconds) -> float:
    """Return how many repeats are allowed now."""
    kept = _kept(budget, now)
    calls = sum(second.calls for second in kept)
    return SHARE * calls + FLOOR * SPAN - sum(second.repeats for second in kept)


def repeat(budget: Budget, now: Seconds) -> Budget | None:
    """Take one repeat out; None when there is none left: whoever wanted it gives the job back instead."""
    return _add(budget, now, repeats=1) if left(budget, now) >= 1.0 else None


def given_back(budget: Budget, now: Seconds) -> Budget:
    """Put the latest repeat back: it went well, and what works is no storm, or it was never sent."""
    return _less(_kept(budget, now), repeats=1)


def unsaid(budget: Budget, now: Seconds) -> Budget:
    """Take the latest first call back, which was never sent: the service has no part in it."""
    return _less(_kept(budget, now), calls=1)


def put_off(roll: float) -> Seconds:
    """Return how long a job waits that found nothing left: `roll` in [0, 1) spreads those that wait.

    When it is over, what the job was refused for has left the span, or is about to; and it is never long, since the
    service may be well again.
    """
    return SPAN * (0.5 + 0.5 * roll)


def hedge_after(latency: Latency, *, budget: Budget, now: Seconds) -> Seconds | None:
    """Return after how long a second call of a short read may be sent beside the first, None for never.

    Inside the retry budget, and only once the first takes longer than 95 % of the last calls did.
    """
    return quantile(latency, HEDGE_AT) if left(budget, now) >= 1.0 else None


def _less(kept: tuple[Second, ...], *, calls: int = 0, repeats: int = 0) -> Budget:
    """Take one away where there was one last; what has left the span counts no more anyway."""
    for at in reversed(range(len(kept))):
        second = kept[at]
        if second.calls >= calls and second.repeats >= repeats:
            less = Second(second.number, second.calls - calls, second.repeats - repeats)
            return Budget(seconds=(*kept[:at], less, *kept[at + 1 :]))
    return Budget(seconds=kept)


def _kept(budget: Budget, now: Seconds) -> tuple[Second, ...]:
    seconds, oldest = budget.seconds, int(now) - SPAN
    if not seconds or seconds[0].number > oldest:
        return seconds
    return tuple(second for second in seconds if second.number > oldest)


def _add(budget: Budget, now: Seconds, *, calls: int = 0, repeats: int = 0) -> Budget:
    kept = _kept(budget, now)
    last = kept[-1] if kept and kept[-1].number == int(now) else Second(int(now))
    before = kept[:-1] if last in kept else kept
    return Budget(seconds=(*before, Second(last.number, last.calls + calls, last.repeats + repeats)))
