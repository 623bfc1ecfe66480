"""When an endpoint is left alone for a while: a circuit breaker, as functions of one frozen state.

closed -> open when too much of the last half minute failed, or several calls in a row did;
open -> half open after a pause that doubles; half open -> closed after a few probes, or open again.
Times are seconds of one clock that only rises; the state belongs to one process and one endpoint.
"""

from enum import StrEnum
from http import HTTPStatus
from typing import Final

import msgspec
from msgspec import Struct

from hostler.contracts.failure import Failure, FailureClass, Stage
from hostler.kernel.units import Fraction, Seconds

C = FailureClass

EJECTED_MOST: Final[Fraction] = 0.5
"""Share of a pool that breakers may keep out; beyond it the fault is likelier here, or everywhere."""

_NOT_ITS_FAULT: Final = frozenset({Stage.QUEUE, Stage.DEADLINE})
_JITTER: Final = 0.2
"""A pause is shortened by up to this share, so that processes do not probe in step."""


class BreakerPolicy(Struct, frozen=True, kw_only=True):
    """When a breaker opens and how it closes again."""

    window: Seconds = 30.0
    buckets: int = 10
    volume: int = 10
    """Calls in the window below which their share of failures says nothing."""
    share: Fraction = 0.5
    streak: int = 5
    """Failures in a row that open it whatever the volume."""
    slow: Seconds | None = None
    """A success that took longer counts as a failure; None: never."""
    first: Seconds = 5.0
    most: Seconds = 60.0
    """Pauses double from `first` up to `most`."""
    probes: int = 3
    """Successes that close it: one call alone first, then the others at a time."""
    probe_limit: Seconds = 60.0
    """A probe without an end holds its place for so long."""


DEFAULT: Final = BreakerPolicy()


class Mode(StrEnum):
    """How a breaker is."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Mark(StrEnum):
    """What one call says about its endpoint."""

    GOOD = "good"
    BAD = "bad"
    NEUTRAL = "neutral"
    """Nothing: the caller's fault, a limit, a cancel."""


class Bucket(Struct, frozen=True, array_like=True):
    """Calls that ended in one tenth of the window."""

    number: int
    calls: int = 0
    bad: int = 0


class Permit(Struct, frozen=True, kw_only=True):
    """The right to one call; what became of it counts only while the breaker is still in this term."""

    term: int
    probe: Seconds | None = None
    """When the probe began; None for an ordinary call."""


class Breaker(Struct, frozen=True, kw_only=True):
    """All that is remembered."""

    mode: Mode = Mode.CLOSED
    term: int = 0
    """Rises with every change of mode."""
    since: Seconds = 0.0
    """When the mode began."""
    until: Seconds = 0.0
    """End of the pause, while open."""
    opened: int = 0
    """Pauses in a row; forgotten after a whole window closed."""
    streak: int = 0
    window: tuple[Bucket, ...] = ()
    probing: tuple[Seconds, ...] = ()
    """When the probes under way began."""
    passed: int = 0


def mark_of(failure: Failure | None, took: Seconds, policy: BreakerPolicy = DEFAULT) -> Mark:
    """Return what a call says about its endpoint: `failure` is None for a success, `took` its length in seconds.

    Server errors, answers without sense, broken connections, lost work and timeouts count; 4xx, 429, cancels and
    a 503 that names a time to come back do not.
    """
    if failure is None:
        return Mark.BAD if policy.slow is not None and took > policy.slow else Mark.GOOD
    status = failure.details.get("status")
    server = isinstance(status, int) and status >= HTTPStatus.INTERNAL_SERVER_ERROR
    match failure.class_:
        case C.TRANSIENT:  # an answer of 2xx or 3xx that makes no sense (a page, a redirect) is its fault as well
            bad = not isinstance(status, int) or not HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR
        case C.OVERLOADED:
            bad = server and failure.retry_after is None
        case C.TIMEOUT:
            bad = failure.stage not in _NOT_ITS_FAULT
        case C.LOST:
            bad = True
        case _:
            bad = False
    return Mark.BAD if bad else Mark.NEUTRAL


def mode_at(breaker: Breaker, now: Seconds) -> Mode:
    """Return the mode as it is now: a pause ends by itself."""
    over = breaker.mode is Mode.OPEN and now >= breaker.until
    return Mode.HALF_OPEN if over else breaker.mode


def lets_through(breaker: Breaker, now: Seconds, policy: BreakerPolicy = DEFAULT) -> bool:
    """Tell whether `admit` would give a permit now."""
    return admit(breaker, now, policy)[1] is not None


def admit(
    breaker: Breaker, now: Seconds, policy: BreakerPolicy = DEFAULT, *, force: bool = False
) -> tuple[Breaker, Permit | None]:
    """Ask for one call; None is a refusal. `force` calls all the same (most of the pool is out)."""
    if mode_at(breaker, now) is not breaker.mode:
        breaker = Breaker(mode=Mode.HALF_OPEN, term=breaker.term + 1, since=now, opened=breaker.opened)
    if breaker.mode is Mode.HALF_OPEN:
        probing = tuple(began for began in breaker.probing if now - began < policy.probe_limit)
        room = 1 if breaker.passed == 0 else policy.probes - breaker.passed
        if len(probing) < room:
            changed = msgspec.structs.replace(breaker, probing=(*probing, now))
            return changed, Permit(term=breaker.term, probe=now)
        breaker = msgspec.structs.replace(breaker, probing=probing)
    if breaker.mode is Mode.CLOSED or force:
        return breaker, Permit(term=breaker.term)
    return breaker, None


def record(
    breaker: Breaker, permit: Permit, mark: Mark, *, now: Seconds, roll: float, policy: BreakerPolicy = DEFAULT
) -> Breaker:
    """Take in how a call ended; `roll` in [0, 1) shortens the pause, should the breaker open.

    A call of an earlier term says nothing about the endpoint as it is now. So does one that was forced.
    """
    if permit.term != breaker.term:
        return breaker
    match breaker.mode:
        case Mode.CLOSED:
            return _judged(breaker, mark, now, roll, policy)
        case Mode.HALF_OPEN if permit.probe is not None:
            if mark is Mark.BAD:
                return _opened(breaker, breaker.opened + 1, now, roll, policy)
            return _passed(breaker, permit.probe, mark, now, policy)
        case _:
            return breaker


def probes_left(breaker: Breaker, now: Seconds, policy: BreakerPolicy = DEFAULT) -> int:
    """Return how many more calls may try out an endpoint whose pause is over."""
    if breaker.mode is not Mode.HALF_OPEN:
        return 1 if mode_at(breaker, now) is Mode.HALF_OPEN else 0
    probing = sum(now - began < policy.probe_limit for began in breaker.probing)
    return max(0, (1 if breaker.passed == 0 else policy.probes - breaker.passed) - probing)


def reset(breaker: Breaker, now: Seconds) -> Breaker:
    """Close it by hand and forget everything."""
    return Breaker(term=breaker.term + 1, since=now)


def failures(breaker: Breaker, now: Seconds, policy: BreakerPolicy = DEFAULT) -> tuple[int, int]:
    """Return (calls, failures) of the window."""
    kept = _kept(breaker.window, now, policy)
    return sum(bucket.calls for bucket in kept), sum(bucket.bad for bucket in kept)


def panics(out: int, pool: int) -> bool:
    """Tell whether breakers are to be ignored, since more than half of a pool is out.

    A pool of one has nobody to be spared: its breaker holds, and its jobs wait instead of failing.
    """
    return pool > 1 and out > pool * EJECTED_MOST


def _judged(breaker: Breaker, mark: Mark, now: Seconds, roll: float, policy: BreakerPolicy) -> Breaker:
    if mark is Mark.NEUTRAL:
        return breaker
    bad = mark is Mark.BAD
    number = _number(now, policy)
    kept = _kept(breaker.window, now, policy)
    if kept and kept[-1].number == number:
        window = (*kept[:-1], Bucket(number, kept[-1].calls + 1, kept[-1].bad + bad))
    else:
        window = (*kept, Bucket(number, 1, int(bad)))
    breaker = msgspec.structs.replace(breaker, streak=breaker.streak + 1 if bad else 0, window=window)
    if not bad:
        return breaker
    calls, failed = failures(breaker, now, policy)
    if breaker.streak >= policy.streak or (calls >= policy.volume and failed >= policy.share * calls):
        calm = now - breaker.since >= policy.window
        return _opened(breaker, 1 if calm else breaker.opened + 1, now, roll, policy)
    return breaker


def _passed(breaker: Breaker, began: Seconds, mark: Mark, now: Seconds, policy: BreakerPolicy) -> Breaker:
    probing = list(breaker.probing)
    if began in probing:
        probing.remove(began)
    passed = breaker.passed + (mark is Mark.GOOD)
    if passed >= policy.probes:
        return Breaker(term=breaker.term + 1, since=now, opened=breaker.opened)
    return msgspec.structs.replace(breaker, probing=tuple(probing), passed=passed)


def _opened(breaker: Breaker, opened: int, now: Seconds, roll: float, policy: BreakerPolicy) -> Breaker:
    pause = min(policy.most, policy.first * 2.0 ** min(opened - 1, 32))  # cut: soon it is `most` anyway
    until = now + pause * (1.0 - _JITTER * roll)
    return Breaker(mode=Mode.OPEN, term=breaker.term + 1, since=now, until=until, opened=opened)


def _number(now: Seconds, policy: BreakerPolicy) -> int:
    return int(now * policy.buckets / policy.window)


def _kept(window: tuple[Bucket, ...], now: Seconds, policy: BreakerPolicy) -> tuple[Bucket, ...]:
    oldest = _number(now, policy) - policy.buckets + 1
    if not window or window[0].number >= oldest:
        return window
    return tuple(bucket for bucket in window if bucket.number >= oldest)
