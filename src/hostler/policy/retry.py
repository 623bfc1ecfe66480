"""What follows a failure: the table of failure classes, as one function."""

import itertools
from collections.abc import Callable
from typing import Final

import msgspec

from hostler.contracts.failure import Failure, FailureClass
from hostler.contracts.lease import Again, Die, Ending, Hold, Lease, Stopped
from hostler.contracts.limit import Line
from hostler.contracts.needs import Lane
from hostler.contracts.queue import RetryPolicy
from hostler.kernel.units import Seconds
from hostler.policy.lanes import derive, shun

AUTH_HOLD: Final[Seconds] = 60.0
"""How long work waits after a refused credential, unless somebody wakes it."""
QUOTA_HOLD: Final[Seconds] = 300.0
"""How long work waits for an account that has nothing left, unless the service named a time."""

LIMITED: Final[Seconds] = 0.05
"""First spread of the time at which work comes back that a limit of ours refused; it doubles each time in a row."""
LIMITED_LEAST: Final[Seconds] = 1.0
"""The spread grows to this, or to the time that the limit named where that is longer."""
LIMITED_MOST: Final[Seconds] = 30.0
LINE_HALF: Final[Seconds] = 30.0
"""Half of the time ahead for which a limit that others have room beside gives moments away."""

_MESSAGE: Final = 2_000
"""Longest message of a failure."""


def backoff(n: int, *, policy: RetryPolicy, dice: Callable[[], float]) -> Seconds:
    """Return the n-th delay (from 0): base * 2^n, capped, with full jitter; `dice` gives [0, 1)."""
    ceiling = min(policy.cap, policy.base * 2.0 ** min(n, 64))  # cut: 2^n soon is more than a float holds
    return dice() * ceiling


def returns(lease: Lease, worker: str) -> int:
    """Return how many earlier attempts of this generation `worker` ended because it lacked what the job needs.

    `worker` is the id of a worker or of an endpoint. Each of them excluded it; if the job came back all the same,
    its queue had no lane left for that.
    """
    return sum(
        attempt.generation == lease.generation
        and worker in {attempt.worker, attempt.endpoint}
        and attempt.error is not None
        and attempt.error.class_ is FailureClass.CAPABILITY_MISMATCH
        for attempt in lease.history
    )


def refusals(lease: Lease) -> int:
    """Return how often in a row, before this attempt, a limit of ours refused this job."""
    last = itertools.takewhile(lambda one: one.error is not None and one.error.unsent, reversed(lease.history))
    return sum(1 for _ in last)


def after_failure(
    failure: Failure,
    *,
    policy: RetryPolicy,
    attempts_used: int,
    overloads: int,
    dice: Callable[[], float],
    others_fit: bool,
    lane: Lane,
    worker: str,
    losses: int = 0,
    came_back: int = 0,
    refused: int = 0,
) -> Ending:
    """Return how the attempt ends that failed with `failure` on `worker`, or on the endpoint of that id.

    `attempts_used` counted before this one, `overloads` came in a row before this one; `others_fit` says
    whether another live worker serves this lane; `dice` gives [0, 1). `losses` are earlier attempts of
    this generation whose work the service lost: they have the budget of crashes. `came_back` is `returns`:
    a job that cannot be kept away from a worker that lacks what it needs has the budget of overloads.
    What a limit of ours refused, `refused` times before (`refusals`), has no budget: it waits as long as it takes.
    """
    if failure.unsent:
        return _limited(failure, refused, dice)
    match failure.class_:
        case FailureClass.INVALID_INPUT | FailureClass.REFUSED | FailureClass.POISON:
            ending: Ending = Die(failure=failure)
        case FailureClass.CANCELLED:
            ending = Stopped()
        case FailureClass.CAPABILITY_MISMATCH:
            ending = _elsewhere(failure, lane, worker, policy, dice, overloads=overloads, came_back=came_back)
        case FailureClass.OVERLOADED:
            ending = _no_room(failure, policy=policy, overloads=overloads, dice=dice)
        case FailureClass.AUTH | FailureClass.QUOTA:
            ending = _held(failure)
        case FailureClass.LOST:
            ending = (
                Again(failure=failure, counted=False, delay=_delay(failure, losses, policy, dice))
                if losses + 1 < policy.crashes
                else Die(failure=failure)
            )
        case FailureClass.TRANSIENT | FailureClass.TIMEOUT | FailureClass.INTERNAL | FailureClass.OUT_OF_MEMORY:
            away = others_fit or failure.class_ is FailureClass.OUT_OF_MEMORY
            ending = (
                Again(
                    failure=failure,
                    delay=_delay(failure, attempts_used, policy, dice),
                    lane=shun(lane, worker) if away else None,
                )
                if attempts_used + 1 < policy.attempts
                else Die(failure=failure)
            )
    return ending


def _limited(failure: Failure, refused: int, dice: Callable[[], float]) -> Ending:
    """Let it come back when the limit may grant it, spread more each time, so that many do not ask at once.

    Who was given a moment of its own comes then; who found none left, while the later half of them is given away.
    """
    after = failure.retry_after or 0.0
    line = failure.details.get("line")
    if line == Line.OWN:
        return Again(failure=failure, delay=after, counted=False)
    if line == Line.FULL:
        return Again(failure=failure, delay=after + dice() * LINE_HALF, counted=False)
    spread = min(LIMITED_MOST, max(LIMITED_LEAST, after), LIMITED * 2.0 ** min(refused, 16))
    return Again(failure=failure, delay=after + dice() * spread, counted=False)


def _no_room(failure: Failure, *, policy: RetryPolicy, overloads: int, dice: Callable[[], float]) -> Ending:
    if overloads >= policy.overloads:
        return Die(failure=failure)
    named = failure.retry_after
    delay = backoff(overloads, policy=policy, dice=dice) if named is None else named
    return Again(failure=failure, delay=delay, counted=False, overload=True)


def _elsewhere(
    failure: Failure,
    lane: Lane,
    worker: str,
    policy: RetryPolicy,
    dice: Callable[[], float],
    *,
    overloads: int,
    came_back: int,
) -> Ending:
    elsewhere = derive(lane, exclude=worker)
    if elsewhere is None:
        return Die(failure=failure)
    if not came_back:
        return Again(failure=failure, counted=False, lane=elsewhere)
    if overloads >= policy.overloads:
        why = f"; it came back to {worker} {came_back} times, for its queue has all the lanes it may have"
        return Die(failure=msgspec.structs.replace(failure, message=failure.message[: _MESSAGE - len(why)] + why))
    delay = backoff(overloads, policy=policy, dice=dice)
    return Again(failure=failure, delay=delay, counted=False, overload=True, lane=elsewhere)


def _held(failure: Failure) -> Ending:
    default = AUTH_HOLD if failure.class_ is FailureClass.AUTH else QUOTA_HOLD
    until = default if failure.retry_after is None else failure.retry_after
    return Hold(reason=f"{failure.label}: {failure.message}", failure=failure, until=until)


def _delay(failure: Failure, n: int, policy: RetryPolicy, dice: Callable[[], float]) -> Seconds:
    return max(backoff(n, policy=policy, dice=dice), failure.retry_after or 0.0)
