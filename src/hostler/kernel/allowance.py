"""How much time the work at hand has left: set by whoever runs it, read by whoever calls out for it, however deep.

It holds for the task that sets it and for all that this one starts. What many share, or what outlives the work, is
begun under `allowed(None)`.
"""

from collections.abc import Callable
from contextvars import ContextVar, Token

from hostler.kernel.units import Seconds

Left = Callable[[], Seconds | None]
"""Returns the seconds that are left, below zero when none are, None without a limit."""

_LEFT: ContextVar[Left | None] = ContextVar("hostler.allowance", default=None)


class allowed:  # noqa: N801 - read as a word: `with allowed(left):`
    """Let `left` say how much time all that is called inside has; None for no limit."""

    def __init__(self, left: Left | None) -> None:
        self._left = left
        self._before: Token[Left | None] | None = None

    def __enter__(self) -> None:
        self._before = _LEFT.set(self._left)

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            _LEFT.reset(self._before)


def allowance() -> Seconds | None:
    """Return the seconds that are left now, below zero when none are, None without a limit."""
    left = _LEFT.get()
    return None if left is None else left()
