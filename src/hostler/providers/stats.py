"""How a provider has done of late."""

import math
from collections import deque
from typing import Final

from msgspec import Struct

from hostler.kernel.units import Fraction, Seconds

WINDOW: Final = 200
"""Answers that the rates look back on."""


class Figures(Struct, frozen=True, kw_only=True):
    """Rates over the last answers; None before the first."""

    requests: int
    """Since the start."""
    errors: int
    error_rate: Fraction | None
    """Share of the last 200 answers that failed through the provider's own fault."""
    p50_s: Seconds | None
    p95_s: Seconds | None
    last_error: str | None


class Stats:
    """Counts answers; what a caller did wrong is a request, and no error."""

    def __init__(self) -> None:
        self._recent: deque[tuple[Seconds, bool]] = deque(maxlen=WINDOW)
        self._requests = self._errors = 0
        self._last_error: str | None = None

    def add(self, seconds: Seconds, *, error: str | None = None) -> None:
        """Count one answer."""
        self._recent.append((seconds, error is not None))
        self._requests += 1
        if error is not None:
            self._errors += 1
            self._last_error = error

    def figures(self) -> Figures:
        """Return the rates as they are now."""
        times = sorted(seconds for seconds, _ in self._recent)
        failed = sum(bad for _, bad in self._recent)
        return Figures(
            requests=self._requests,
            errors=self._errors,
            error_rate=failed / len(times) if times else None,
            p50_s=_quantile(times, 0.5),
            p95_s=_quantile(times, 0.95),
            last_error=self._last_error,
        )


def _quantile(times: list[Seconds], share: Fraction) -> Seconds | None:
    return times[max(0, math.ceil(share * len(times)) - 1)] if times else None
