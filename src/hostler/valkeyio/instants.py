"""Times as the engine keeps them: microseconds since the epoch, 0 for none."""

from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICRO = timedelta(microseconds=1)


def instant(micros: int) -> datetime:
    """Return a stored time."""
    return _EPOCH + timedelta(microseconds=micros)


def instant_or_none(micros: int) -> datetime | None:
    """Return a stored time, or None where 0 says that there is none."""
    return instant(micros) if micros else None


def micros(moment: datetime | None) -> int:
    """Return a moment as it is stored; exact."""
    return (moment - _EPOCH) // _MICRO if moment else 0
