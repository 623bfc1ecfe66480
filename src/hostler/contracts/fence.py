"""The number that guards a lease: it rises with every claim of a job and is never given twice."""

from typing import Final

CLAIMS: Final = 1 << 20
"""A fence is `life * CLAIMS + claims so far`; `life` is the eighth of a second, counted
from 2026, in which this life of its queue began.

A new life begins whenever another server takes the queue over (a restart, a fail-over, a restore): what the one
before may have given and lost is below it.
"""


def attempt_of(fence: int) -> int:
    """Return the attempt that a fence stands for, as people count: 1 for a job's first claim, 0 before it."""
    return fence % CLAIMS
