"""Reads from what workers logged which calls a shared limit let go."""

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import msgspec

from hostler.chaos.record import Granted
from hostler.contracts.limit import LimitKind, Want

GRANTED = "limit.granted"
"""The log record that says so."""


class _Line(msgspec.Struct, frozen=True):
    event: str = ""
    granted_at: datetime | None = None
    wants: tuple[Want, ...] = ()


def grants(log: Path) -> tuple[Granted, ...]:
    """Return what the limits of calls in a time let go, by a worker's log; what is no record of that is passed over."""
    with log.open("rb") as stream:
        return tuple(granted for text in stream if GRANTED.encode() in text for granted in _granted(text))


def _granted(text: bytes) -> Iterator[Granted]:
    try:
        line = msgspec.json.decode(text, type=_Line)
    except msgspec.DecodeError:
        return  # its writer was killed while it wrote, or it is another record that names this one
    if line.event == GRANTED and line.granted_at is not None:
        for want in line.wants:
            if want.limit.kind is LimitKind.RATE and want.units:
                yield Granted(limit=want.limit, at=line.granted_at, units=want.units)
