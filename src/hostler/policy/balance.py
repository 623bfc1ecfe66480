"""Which of several fitting endpoints gets a job: a warm one within a bound, else the one that is least loaded.

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
"""A warm endpoint may carry so much more than its share of what runs."""


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


def cost(way: Way) -> float:
    """Return what the job would cost there: work per slot with it, times how dear the endpoint is."""
    return (way.outstanding + 1000) * way.weight / way.slots


def best(ways: Sequence[Way]) -> int:
    """Return the index of the endpoint to take, of at least one that has room; the first of equals.

    One where the job failed is taken only when there is no other. A warm endpoint is taken while it carries at most
    `BOUND` times its share of what runs on all of these, so that affinity never starves the others; among the warm,
    or among all when none is, the cheapest is taken.
    """
    spared = [index for index, way in enumerate(ways) if not way.shunned] or list(range(len(ways)))
    total = sum(ways[index].outstanding for index in spared) + 1000
    slots = sum(ways[index].slots for index in spared)
    warm = [
        index
        for index in spared
        if ways[index].warm
        and ways[index].outstanding + 1000 <= 1000 * math.ceil(BOUND * total * ways[index].slots / slots / 1000)
    ]
    return min(warm or spared, key=lambda index: (cost(ways[index]), index))
