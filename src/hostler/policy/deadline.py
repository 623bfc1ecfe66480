"""How the time that is left is told to the next one, and when it is too little to begin."""

from typing import Final

from hostler.kernel.units import Seconds

MARGIN: Final[Seconds] = 0.05
"""What each hop keeps for itself, so that the answer of the next one still arrives in time."""
HEADER: Final = "X-Request-Timeout-Ms"


def pass_on(left: Seconds | None, *, margin: Seconds = MARGIN) -> Seconds | None:
    """Return the seconds that the next one is told; None without a limit, and when nothing is left.

    A duration is passed on, never the moment: the clocks of two machines differ. What is called when nothing is left
    ends work, and has limits of its own.
    """
    return None if left is None or left <= margin else left - margin


def headers(left: Seconds | None) -> dict[str, str]:
    """Return the header of a request that says how much time is left, in whole milliseconds; none without a limit."""
    told = pass_on(left)
    return {} if told is None else {HEADER: str(max(1, int(told * 1000)))}


def told_by(header: str | None) -> Seconds | None:
    """Return the seconds that a request's header leaves; None when it is absent or is no number of milliseconds."""
    if header is None or not header.isascii() or not header.isdecimal() or len(header) > _DIGITS:
        return None
    return int(header) / 1000


def worth_it(left: Seconds | None, median: Seconds | None) -> bool:
    """Tell whether to begin: not when less is left than half of the calls took (`median`; None: not known)."""
    if left is None:
        return True
    return left > 0.0 and (median is None or left >= median)


_DIGITS: Final = 12
