"""What an answer says about being given again (RFC 9111), as a cache of one client with one credential reads it."""

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

from msgspec import Struct
from multidict import CIMultiDict, CIMultiDictProxy

from hostler.kernel.units import Seconds
from hostler.policy import deadline

Headers = CIMultiDictProxy[str]

SECONDS_MAX: Final = 2**31
"""A longer time is taken for this one (RFC 9111, 1.2.2)."""
_DIRECTIVE: Final = re.compile(r'([\w!#$%&\'*+.^`|~-]+)(?:\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,;"]*)))?', re.ASCII)
_DIGITS: Final = re.compile(r"[0-9]{1,20}", re.ASCII)
_CHANGING: Final = frozenset({deadline.HEADER.lower()})
"""Headers that every request of ours says anew: an answer that varies by them answers no other request."""


class Reuse(Struct, frozen=True, kw_only=True):
    """How long an answer is good, how old it was when it came, and how to ask whether it still is."""

    lifetime: Seconds
    age: Seconds
    vary: frozenset[str]
    """Names, in small letters, of the request's headers that the answer depends on."""
    conditions: dict[str, str]
    """Headers of a request that asks whether it changed; none where the answer has no validator."""

    @property
    def fresh(self) -> bool:
        """Tell whether it was good when it came."""
        return self.age < self.lifetime


def reuse_of(headers: Headers, *, assumed: Seconds, now: datetime, delay: Seconds) -> Reuse | None:
    """Read the headers of a 200 to a GET; None for an answer that must not, or could never, be given again.

    `assumed` is how long an answer is good that does not say it, `delay` how long the request took. What is said in
    two ways, or makes no sense, counts as the shorter time. What is meant for shared caches alone is not looked at.
    """
    said = _directives(headers.getall("Cache-Control", ()))
    vary = frozenset(_names(headers.getall("Vary", ())))
    if "no-store" in said or "*" in vary or vary & _CHANGING:
        return None
    at = _date(headers.get("Date"))
    lifetime = 0.0 if "no-cache" in said else _lifetime(said, headers, at or now, assumed)
    given = {"If-None-Match": headers.get("ETag"), "If-Modified-Since": headers.get("Last-Modified")}
    conditions = {name: value for name, value in given.items() if value}
    if lifetime <= 0 and not conditions:
        return None
    apparent = 0.0 if at is None else max(0.0, (now - at).total_seconds())
    age = max(apparent, (_seconds(headers.get("Age", "")) or 0.0) + delay)
    return Reuse(lifetime=lifetime, age=age, vary=vary, conditions=conditions)


def renewed(kept: Headers, told: Headers) -> Headers:
    """Return the headers of an answer that a 304 says is still good; those about its content stay."""
    merged = CIMultiDict(kept)
    for name in ("Age", "Date"):  # they told of the answer before
        merged.popall(name, None)
    news = [(name, value) for name, value in told.items() if not name.lower().startswith("content-")]
    for name, _ in news:
        merged.popall(name, None)
    merged.extend(news)
    return CIMultiDictProxy(merged)


def _lifetime(said: dict[str, list[str]], headers: Headers, at: datetime, assumed: Seconds) -> Seconds:
    if "max-age" in said:
        return min(_seconds(value) or 0.0 for value in said["max-age"])
    if "Expires" in headers:
        ends = [_date(value) for value in headers.getall("Expires")]
        return max(0.0, min(0.0 if end is None else (end - at).total_seconds() for end in ends))
    return assumed


def _directives(lines: Iterable[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, quoted, plain in _DIRECTIVE.findall(", ".join(lines)):
        found.setdefault(name.lower(), []).append(quoted or plain)
    return found


def _names(lines: Iterable[str]) -> Iterable[str]:
    return (name for line in lines for part in line.split(",") if (name := part.strip().lower()))


def _seconds(text: str) -> Seconds | None:
    return float(min(int(text), SECONDS_MAX)) if _DIGITS.fullmatch(text.strip()) else None


def _date(text: str | None) -> datetime | None:
    try:
        at = None if text is None else parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    return at if at is None or at.tzinfo else at.replace(tzinfo=UTC)
