"""Which of several fitting endpoints gets a job: within a bound one it is warm at, else the one that is least loaded.

The engine decides it in the claim itself (`functions/_9_choice.lua`), where what runs on each endpoint is
known exactly and taken in the same step; this is the same rule for the model and for `explain`. All amounts are
whole thousandths, as the engine keeps them, so that the two never differ by a rounding.
"""

import math
from collections.abc import Sequence
from typing import Final

from msgspec import Struct

from hostler.contracts.lease import ClaimRequest
from hostler.contracts.needs import Lane
from hostler.contracts.offer import Standing

BOUND: Final = 1.25
"""An endpoint that is preferred may carry so much more than its share of what runs."""


_USUAL: Final = Standing()


class Way(Struct, frozen=True, kw_only=True):
    """One endpoint that has room for the job."""

    outstanding: int = 0
    """Slots that running jobs take there, in thousandths."""
    slots: int = 1000
    """Slots that it has, in thousandths."""
    weight: int = 1000
    """How dear a call is there, in thousandths of the usual."""
    warm: bool = False
    """Whether it holds what the job asks for in memory."""
    home: bool = False
    """Whether the last job of its session ran there, and what it asks for has not left the memory since."""
    shunned: bool = False
    """Whether the job failed there, and should rather go elsewhere."""


def standings_of(request: ClaimRequest) -> tuple[Standing, ...]:
    """Return how each offer stands; one of which nothing is said stands as usual."""
    said = request.standings[: len(request.offers)]
    return (*said, *(_USUAL,) * (len(request.offers) - len(said)))


def admits(lane: Lane, endpoint: str | None, standing: Standing) -> bool:
    """Tell whether an endpoint may take the job: the lane does not exclude it, and it holds or may load the models."""
    if endpoint is not None and endpoint in lane.avoid.workers:
        return False
    return standing.swaps is None or _no_swap(lane, standing) or set(lane.needs.models) <= set(standing.swaps)


def _no_swap(lane: Lane, standing: Standing) -> bool:
    return set(lane.needs.models) <= set(standing.loaded or ())


def is_warm(lane: Lane, standing: Standing) -> bool:
    """Tell whether an endpoint holds the models that the job names in memory; false for a job that names none."""
    return bool(lane.needs.models) and set(lane.needs.models) <= set(standing.loaded or ())


def is_home(lane: Lane, standing: Standing, *, endpoint: str | None, home: str | None) -> bool:
    """Tell whether the last job of the session ran at `endpoint`, unless that says that the models are gone."""
    return home is not None and endpoint == home and (standing.loaded is None or _no_swap(lane, standing))


def cost(way: Way) -> float:
    """Return what the job would cost there: work per slot with it, times how dear the endpoint is."""
    return (way.outstanding + 1000) * way.weight / way.slots


def best(ways: Sequence[Way]) -> int:
    """Return the index of the endpoint to take, of at least one that has room; the first of equals.

    One where the job failed is taken only when there is no other. Where its session ran last goes first, then one
    that holds its models in memory, either while it carries at most `BOUND` times its share of what runs on all of
    these, so that affinity never starves the others. Among equally good ones the cheapest is taken.
    """
    spared = [index for index, way in enumerate(ways) if not way.shunned] or list(range(len(ways)))
    total = sum(ways[index].outstanding for index in spared) + 1000
    slots = sum(ways[index].slots for index in spared)
    within = [
        index
        for index in spared
        if ways[index].outstanding + 1000 <= 1000 * math.ceil(BOUND * total * ways[index].slots / slots / 1000)
    ]
    near = [index for index in within if ways[index].home] or [index for index in within if ways[index].warm]
    return min(near or spared, key=lambda index: (cost(ways[index]), index))
