"""The number that guards a lease: it rises with every claim of a job and is never given twice."""

from typing import Final

CLAIMS: Final = 1 << 20
"""A fence is `mark * CLAIMS + claims so far`; `mark` is 0, or the second of the engine's last restore."""


def attempt_of(fence: int) -> int:
    """Return the attempt that a fence stands for, as people count: 1 for a job's first claim, 0 before it."""
    return fence % CLAIMS
