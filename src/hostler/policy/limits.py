"""Shared limits: how they are written, and what a call costs of one (generic cell rate algorithm).

Each call moves the moment until which a limit is paid for by its `charge`; it may go while that moment is no more
than `allowance` ahead. Both are whole microseconds and rounded so that no window of `per` has more than `most`.
"""

import re
from typing import Final

from hostler.contracts.limit import Limit, LimitKind
from hostler.kernel.errors import InvalidError
from hostler.kernel.units import Seconds

_MICRO: Final = 1_000_000
_MOST: Final = 1_000_000_000_000
_LONGEST: Final[Seconds] = 31 * 86_400.0
_SPANS: Final = {"s": 1.0, "min": 60.0, "h": 3600.0, "day": 86_400.0}
_IN_TIME: Final = re.compile(r"(\d{1,13})(?: ([a-z][a-z_]{0,31}))?/(\d{1,7})?(s|min|h|day)(?: burst (\d{1,13}))?")
_AT_A_TIME: Final = re.compile(r"in_flight (\d{1,13})")
_FORMS: Final = "3/s, 60/min burst 5, 100000 tokens/min, 500 cents/day, 10/15s or in_flight 4"
_SHARE: Final = 4


def parse(text: str, *, name: str) -> Limit:
    """Return the limit that a text like `3/s` or `in_flight 4` means; `InvalidError` says what is wrong with it.

    Without `burst`, calls are evenly spaced, and a quarter of an amount may go at once.
    """
    named(name)
    if flight := _AT_A_TIME.fullmatch(text):
        return Limit(name=name, kind=LimitKind.IN_FLIGHT, most=_count(flight[1], text))
    match = _IN_TIME.fullmatch(text)
    if match is None:
        raise InvalidError(f"{text!r} is no limit: write it like {_FORMS}", field="limits")
    most, unit, span = _count(match[1], text), match[2], int(match[3] or 1) * _SPANS[match[4]]
    if not 0.0 < span <= _LONGEST:
        raise InvalidError(f"{text!r}: a limit is for more than nothing and at most 31 days", field="limits")
    burst = _count(match[5], text) if match[5] else max(1, most // _SHARE) if unit else 1
    if burst > most:
        raise InvalidError(f"{text!r}: a burst of {burst} is more than the limit itself", field="limits")
    kind = LimitKind.AMOUNT if unit else LimitKind.RATE
    return Limit(name=name, kind=kind, most=most, per=span, unit=unit, burst=burst)


def named(name: str) -> str:
    """Return the name of a limit; `InvalidError` when none can be named so."""
    if not re.fullmatch(r"[^\s{}]{1,200}", name):
        raise InvalidError(f"a limit's name has 1 to 200 characters, no space and no brace, not {name!r}", field="name")
    return name


def charge(limit: Limit, units: int) -> int:
    """Return what `units` cost, in microseconds; 0 of what is in flight."""
    if limit.per is None:
        return 0
    span, flow = round(limit.per * _MICRO), limit.most - limit.burst + 1
    if limit.kind is LimitKind.RATE:
        return units * -(-span // flow)
    return -(-units * span // flow)


def allowance(limit: Limit) -> int:
    """Return how far ahead a limit may be paid for, in microseconds; of what is in flight, how many that may be."""
    if limit.per is None:
        return limit.most
    if limit.kind is LimitKind.RATE:
        return charge(limit, limit.burst)
    return limit.burst * round(limit.per * _MICRO) // (limit.most - limit.burst + 1)


def _count(digits: str, text: str) -> int:
    count = int(digits)
    if not 1 <= count <= _MOST:
        raise InvalidError(f"{text!r}: a limit is at least 1 and at most {_MOST}", field="limits")
    return count
