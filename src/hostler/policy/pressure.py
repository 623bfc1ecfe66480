"""Which model an endpoint that holds one at a time should load next: pressure, with a minimum stay."""

from collections.abc import Collection, Mapping
from typing import Final

from msgspec import Struct

from hostler.kernel.units import Seconds

PER_JOB: Final = 10.0
DWELL: Final[Seconds] = 30.0
"""Shortest stay of a model that jobs wait for, so that two of them do not chase each other out."""
GRUDGE: Final[Seconds] = 300.0
"""How long a model that failed to load is not tried again on the same endpoint."""


class Line(Struct, frozen=True, kw_only=True):
    """Jobs that wait for one model, and who else holds it."""

    waiting: int = 0
    oldest: Seconds = 0.0
    """How long the first of them waits."""
    elsewhere: int = 0
    """Other endpoints that hold the model: they share the work."""


class Loaded(Struct, frozen=True, kw_only=True):
    """What an endpoint holds now, and what it learned about loads."""

    models: Collection[str] = ()
    """The model in its memory, by each of its names; empty for none."""
    since: Seconds = 0.0
    """When it was loaded."""
    failed: Mapping[str, Seconds] = {}
    """Models that failed to load here, and when."""
    load: Seconds = 0.0
    """How long a load takes, as far as one was seen."""


_NOBODY: Final = Line()


def pressure(line: Line, *, sharers: int = 1) -> float:
    """Return how urgent a model is: 10 for each job that waits and falls to it, 1 for each second of age.

    `sharers` are the endpoints that hold it, or would; at least 1.
    """
    return 0.0 if line.waiting <= 0 else line.waiting / max(1, sharers) * PER_JOB + line.oldest


def swap(
    loaded: Loaded,
    lines: Mapping[str, Line],
    *,
    able: Collection[str],
    now: Seconds,
    dwell: Seconds = DWELL,
) -> str | None:
    """Return the model to load instead of the present one, None to stay.

    Only what the endpoint is `able` to load and what did not fail there of late. While jobs wait for the present
    model it stays its `dwell`, and then until another is more urgent: equal pressure is no reason to move. A model
    that another endpoint holds is not loaded here as well before its jobs have waited for as long as a load takes.
    """
    lines_here = [line for name in loaded.models if (line := lines.get(name)) is not None and line.waiting > 0]
    present = max((pressure(line, sharers=line.elsewhere + 1) for line in lines_here), default=0.0)
    if present > 0.0 and now - loaded.since < dwell:
        return None
    best, most = None, present
    for model in sorted(free(loaded, able, now=now)):
        line = lines.get(model, _NOBODY)
        urgency = pressure(line, sharers=line.elsewhere + 1)
        if urgency > most and not (line.elsewhere and line.oldest < loaded.load):
            best, most = model, urgency
    return best


def free(loaded: Loaded, able: Collection[str], *, now: Seconds) -> frozenset[str]:
    """Return the models that may be loaded in place of the present one: it has them, and they did not just fail."""
    fresh = {model for model, at in loaded.failed.items() if now - at < GRUDGE}
    return frozenset(able) - fresh - frozenset(loaded.models)
