"""How much time is left, how it is told to the next one, and when it is too little to begin."""

from datetime import datetime
from typing import Final

from hostler.kernel.units import Seconds

MARGIN: Final[Seconds] = 0.05
"""What each hop keeps for itself, so that its own answer still arrives in time."""
HTTP_HEADER: Final = "X-Request-Timeout-Ms"
GRPC_HEADER: Final = "grpc-timeout"
_GRPC_MOST: Final = 99_999_999
"""The protocol allows eight digits."""
_GRPC_UNITS: Final = (("m", 1), ("S", 1_000), ("M", 60_000), ("H", 3_600_000))


def remaining(deadline: datetime | None, now: datetime, *, margin: Seconds = MARGIN) -> Seconds | None:
    """Return the seconds that may be passed on, 0 when none are left, None without a deadline.

    A duration is passed on, never the moment: the clocks of two machines differ.
    """
    return None if deadline is None else max(0.0, (deadline - now).total_seconds() - margin)


def headers(left: Seconds | None) -> dict[str, str]:
    """Return the headers of an HTTP request and of a gRPC call that say how much time is left; none without a limit."""
    if left is None:
        return {}
    millis = int(left * 1000)
    unit, size = next(((unit, size) for unit, size in _GRPC_UNITS if millis // size <= _GRPC_MOST), _GRPC_UNITS[-1])
    return {HTTP_HEADER: str(millis), GRPC_HEADER: f"{min(millis // size, _GRPC_MOST)}{unit}"}


def worth_it(left: Seconds | None, median: Seconds | None) -> bool:
    """Tell whether to begin: not when less is left than half of the calls took (`median`; None: not known)."""
    if left is None:
        return True
    return left > 0.0 and (median is None or left >= median)
