"""What an answer's headers say about the room that is left, so that a limiter can slow down before the first 429."""

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Final

from hostler.connectors.transports.http_faults import retry_after
from hostler.contracts.rates import RateHint, Room
from hostler.kernel.units import Seconds

RESET_MAX: Final[Seconds] = 86_400.0
"""A later reset is believed to be this late."""
_PART: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|us|µs|ns|d|h|m|s)")
_UNITS: Final = {"d": 86_400.0, "h": 3_600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_EPOCH_FROM: Final = 1e9
"""A reset that is a larger number is a moment in seconds since 1970, not a duration."""
_MILLIS_FROM: Final = 1e12
"""One that is larger than this is in milliseconds."""
_NAMES: Final = ("x-ratelimit-{part}-{kind}", "anthropic-ratelimit-{kind}-{part}")


def rate_hint(status: int, headers: Mapping[str, str], *, now: datetime | None = None) -> RateHint | None:
    """Read the headers of an answer; None when it says nothing about limits.

    Understood are `x-ratelimit-{limit,remaining,reset}-{requests,tokens}` (OpenAI and those like it), the same
    without `-requests` (GitHub), `anthropic-ratelimit-{requests,tokens}-{limit,remaining,reset}`, and
    `retry-after-ms` and `Retry-After`. A reset is seconds, a duration as Go writes it (`1s`, `6m0s`, `20ms`), a date,
    or seconds or milliseconds since 1970. What makes no sense is taken for not said; nothing is below zero or above a
    day.
    """
    at = now or datetime.now(UTC)
    requests = _room(headers, "requests", (*_NAMES, "x-ratelimit-{part}"), at)
    tokens = _room(headers, "tokens", _NAMES, at)
    wait = retry_after(headers, now=at)
    if requests is None and tokens is None and wait is None and status != HTTPStatus.TOO_MANY_REQUESTS:
        return None
    return RateHint(status=status, requests=requests, tokens=tokens, retry_after=wait)


def reset_in(text: str, now: datetime) -> Seconds | None:
    """Return the seconds until a reset, in whichever way it is written; None for what makes no sense."""
    text = text.strip()
    seconds = _amount(text)
    if seconds is not None:
        moment = seconds / 1000.0 if seconds >= _MILLIS_FROM else seconds
        left = moment - now.timestamp() if seconds >= _EPOCH_FROM else seconds
    elif text and not _PART.sub("", text):
        left = sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))
    else:
        try:
            at = datetime.fromisoformat(text)
        except ValueError:
            return None
        left = ((at if at.tzinfo else at.replace(tzinfo=UTC)) - now).total_seconds()
    return min(max(0.0, left), RESET_MAX)


def _room(headers: Mapping[str, str], kind: str, names: tuple[str, ...], now: datetime) -> Room | None:
    def said(part: str) -> str:
        return next((text for name in names if (text := headers.get(name.format(part=part, kind=kind), ""))), "")

    room = Room(limit=_amount(said("limit")), remaining=_amount(said("remaining")), reset=reset_in(said("reset"), now))
    return None if room == Room() else room


def _amount(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None
