"""How much time the work at hand has left: set by whoever runs it, read by whoever calls out for it, however deep.

It holds for the task that sets it and for all that this one starts. What many share, or what outlives the work, is
begun under `allowed(None)`.
"""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar

from hostler.kernel.units import Seconds

Left = Callable[[], Seconds | None]
"""Returns the seconds that are left, below zero when none are, None without a limit."""

_LEFT: ContextVar[Left | None] = ContextVar("hostler.allowance", default=None)


@contextmanager
def allowed(left: Left | None) -> Generator[None]:
    """Let `left` say how much time all that is called inside has; None for no limit."""
    before = _LEFT.set(left)
    try:
        yield
    finally:
        _LEFT.reset(before)


def allowance() -> Seconds | None:
    """Return the seconds that are left now, below zero when none are, None without a limit."""
    left = _LEFT.get()
    return None if left is None else left()
