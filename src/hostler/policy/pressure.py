"""Which model an endpoint that holds one at a time should load next: pressure, with a minimum stay."""

from collections.abc import Collection, Mapping
from typing import Final

from msgspec import Struct

from hostler.kernel.units import Seconds

PER_JOB: Final = 10.0
DWELL: Final[Seconds] = 30.0
"""Shortest stay of a model, so that two of them do not chase each other out."""
GRUDGE: Final[Seconds] = 300.0
"""How long a model that failed to load is not tried again on the same endpoint."""


class Line(Struct, frozen=True, kw_only=True):
    """Jobs that wait for one model."""

    waiting: int
    oldest: Seconds
    """How long the first of them waits."""


class Loaded(Struct, frozen=True, kw_only=True):
    """What an endpoint holds now."""

    model: str | None = None
    since: Seconds = 0.0
    """When it was loaded."""
    failed: Mapping[str, Seconds] = {}
    """Models that failed to load here, and when."""


def pressure(line: Line | None) -> float:
    """Return how urgent a model is: 10 for each job that waits, 1 for each second that the oldest does."""
    return 0.0 if line is None or line.waiting <= 0 else line.waiting * PER_JOB + line.oldest


def swap(
    loaded: Loaded,
    lines: Mapping[str, Line],
    *,
    able: Collection[str],
    busy: bool,
    now: Seconds,
    dwell: Seconds = DWELL,
) -> str | None:
    """Return the model to load instead of the present one, None to stay.

    Only what the endpoint is `able` to load and what did not fail there of late; never while it is `busy`, and
    never before the present model stayed its `dwell`. Equal pressure is no reason to move.
    """
    if busy or (loaded.model is not None and now - loaded.since < dwell):
        return None
    present = 0.0 if loaded.model is None else pressure(lines.get(loaded.model))
    fresh = {model for model, at in loaded.failed.items() if now - at < GRUDGE}
    wanted = sorted(
        ((-pressure(line), model) for model, line in lines.items() if model in able and model not in fresh),
    )
    for urgency, model in wanted:
        if -urgency > present and model != loaded.model:
            return model
    return None
