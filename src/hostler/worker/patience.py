"""Outliving the engine: a call is repeated, with jittered backoff, until it is answered."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from hostler.kernel.errors import EngineError, HostlerError
from hostler.kernel.units import Seconds
from hostler.ports.clock import Dice

T = TypeVar("T")

_LOG = structlog.stdlib.get_logger("hostler.worker.engine")

FIRST: Seconds = 0.05
LONGEST: Seconds = 2.0


def passing(error: BaseException) -> bool:
    """Tell whether an error is the engine's and will pass: it may or may not have done what was asked."""
    return isinstance(error, EngineError) and error.retry == "later"


def pause(n: int, dice: Dice) -> Seconds:
    """Return how long to wait before try `n` + 1 (from 0): doubling, half of it chance, 2 s at most."""
    ceiling = min(LONGEST, FIRST * 2.0 ** min(n, 16))
    return ceiling * (0.5 + 0.5 * dice.roll())


def doubtful(error: EngineError) -> bool:
    """Tell whether what was asked may have been done."""
    return error.facts.get("executed") is not False


def local(error: HostlerError) -> bool:
    """Tell whether an error will pass and concerns one server of several: the others answer meanwhile."""
    return passing(error) and "server" in error.facts


async def persist(
    call: Callable[[], Awaitable[T]],
    *,
    dice: Dice,
    what: str,
    unless: Callable[[EngineError], bool] = lambda _: False,
) -> T:
    """Await `call()` until the engine answers, and return that answer; other errors are raised at once.

    So are those which `unless` names. The caller bounds it by cancelling, and makes sure that repeating is safe
    (same operation, same fence).
    """
    n = 0
    while True:
        try:
            answer = await call()
        except EngineError as error:
            if not passing(error) or unless(error):
                raise
            if n == 0:
                _LOG.warning("engine does not answer, trying on", what=what, code=error.code, error=error.message)
            await asyncio.sleep(pause(n, dice))
            n += 1
        else:
            if n:
                _LOG.info("engine answers again", what=what, tries=n + 1)
            return answer
