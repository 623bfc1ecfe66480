"""Shared limits: how they are written, and what a call costs of one (generic cell rate algorithm).

Each call moves the moment until which a limit is paid for by its `charge`; it may go while that moment is no more
than `allowance` ahead. Both are whole microseconds and rounded so that no window of `per` has more than `most`.
"""

import hashlib
import re
from http import HTTPStatus
from typing import Final
from urllib.parse import quote

import msgspec

from hostler.contracts.limit import Limit, LimitKind, LimitLook, LimitView
from hostler.contracts.rates import RateHint, Room
from hostler.kernel.errors import InvalidError
from hostler.kernel.units import Seconds

MOST_LIMITS: Final = 16
"""Limits of one call at most."""
_MICRO: Final = 1_000_000
_MOST: Final = 1_000_000_000_000
_LONGEST: Final[Seconds] = 31 * 86_400.0
_SPANS: Final = {"s": 1.0, "min": 60.0, "h": 3600.0, "day": 86_400.0}
_IN_TIME: Final = re.compile(r"(\d{1,13})(?: ([a-z][a-z_]{0,31}))?/(\d{1,7})?(s|min|h|day)(?: burst (\d{1,13}))?")
_AT_A_TIME: Final = re.compile(r"in_flight (\d{1,13})")
_FORMS: Final = "3/s, 60/min burst 5, 100000 tokens/min, 500 cents/day, 10/15s or in_flight 4"
_SHARE: Final = 4
_NAME_MOST: Final = 200
_REFUSALS: Final = frozenset({HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE})
_LOW: Final = 0.1
"""Below this share of what a service allows it is time to slow down."""
_PACE: Final[Seconds] = 0.1
"""Calls are not paced faster than what others do at the same time is heard of."""
CENTS: Final = "cents"
CENT: Final = 1000
FINE_CENTS: Final = "millicents"
"""What cents are counted in, for a call may cost less than one."""


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


def written(limit: Limit) -> str:
    """Return the text that means a limit: `parse` reads it."""
    if limit.per is None:
        return f"in_flight {limit.most}"
    word = next(word for word in reversed(_SPANS) if limit.per % _SPANS[word] == 0.0)
    count = round(limit.per / _SPANS[word])
    unit = f" {limit.unit}" if limit.unit else ""
    return f"{limit.most}{unit}/{'' if count == 1 else count}{word} burst {limit.burst}"


def view(look: LimitLook, text: str) -> LimitView:
    """Return how a limit is shown that was written as `text`, or is nothing but a hold."""
    bare = LimitView(name=look.name, held_s=look.held_s, leases=look.leases)
    if not text:
        return bare
    limit = parse(text, name=look.name)
    if limit.per is None:
        return msgspec.structs.replace(bare, text=text, most=limit.most, left=max(0, limit.most - look.leases))
    room, span = max(0, allowance(limit) - round(look.used_s * _MICRO)), round(limit.per * _MICRO)
    rate = limit.kind is LimitKind.RATE
    left = min(limit.burst, room // charge(limit, 1) if rate else room * (limit.most - limit.burst + 1) // span)
    shown, scale = limit, 1
    if limit.unit == FINE_CENTS:
        most, burst, scale = max(1, limit.most // CENT), max(1, limit.burst // CENT), CENT
        shown = msgspec.structs.replace(limit, unit=CENTS, most=most, burst=burst)
    return msgspec.structs.replace(
        bare,
        text=written(shown),
        most=shown.most,
        left=left / scale,
        per=limit.per,
        unit=shown.unit,
        whole_s=look.used_s,
    )


def gate(endpoint: str) -> Limit:
    """Return what an endpoint's own word (429, a reset) holds, whatever else limits it: whoever takes 0 keeps to it."""
    return Limit(name=safe(endpoint), kind=LimitKind.RATE, most=1, per=1.0)


def safe(text: str) -> str:
    """Return a name that a limit may have, the same for the same text: what no name has is escaped, a long one cut."""
    name = quote(text, safe="/|:@.,;=+~!*()'$&-_ ").replace(" ", "_")
    return (
        name
        if len(name) <= _NAME_MOST
        else f"{name[: _NAME_MOST - 17]}~{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    )


def pause_of(hint: RateHint) -> Seconds | None:
    """Return how long nobody should call, by what one answer said; None while there is room enough.

    With the last tenth of the calls each of them waits for its share of the time until all are back, and the last one
    for all of it, since somebody may have used that already; with the last tenth of the tokens the wait grows to that
    time. A time to come back counts as it is said with a refusal; beside an answer it is no word about limits.
    """
    if hint.retry_after is not None and hint.status in _REFUSALS:
        return hint.retry_after
    waits = [_pace(hint.requests), _thin(hint.tokens)]
    return max((wait for wait in waits if wait), default=None)


def _pace(room: Room | None) -> Seconds | None:
    if room is None or room.remaining is None or room.reset is None:
        return None
    if room.remaining <= 1:
        return room.reset
    low = _LOW * room.limit if room.limit else 0.0
    return min(room.reset, max(_PACE, room.reset / room.remaining)) if room.remaining <= low else None


def _thin(room: Room | None) -> Seconds | None:
    if room is None or room.remaining is None or room.reset is None:
        return None
    if not room.limit:
        return room.reset if room.remaining == 0 else None
    left = room.remaining / (_LOW * room.limit)
    return room.reset * (1.0 - left) if left < 1.0 else None


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
