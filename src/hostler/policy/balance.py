"""Which endpoint gets a call: hard filters with counted reasons, then warmth within a bound, then the better of two.

Everything that was looked at is part of the answer, so that `explain` can show why.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import Final

import msgspec
from msgspec import Struct

from hostler.contracts.needs import Lane
from hostler.contracts.offer import Offer
from hostler.kernel.units import Seconds
from hostler.policy.breaker import panics
from hostler.policy.matching import Lack, lacks

BOUND: Final = 1.25
"""A warm endpoint may carry so much more than its share."""
RAMP: Final[Seconds] = 30.0
"""How long a new endpoint takes to get its full share."""
_RAMP_LEAST: Final = 0.1
_LATENCY: Final[Seconds] = 1.0
"""Assumed where nothing was measured anywhere: then only the load counts."""


class Reason(StrEnum):
    """Why an endpoint cannot get a call."""

    CAPABILITY = "capability"
    ISOLATION = "isolation"
    HEALTH = "health"
    PAUSE = "pause"
    QUOTA = "quota"
    ROOM = "room"
    BREAKER = "breaker"
    TRIED = "tried"
    """It failed this very job, and another endpoint fits."""


class Warmth(StrEnum):
    """What an endpoint still has of an earlier call; the first is worth most."""

    SESSION = "session"
    PREFIX = "prefix"
    MODEL = "model"


_RANKS: Final = tuple(Warmth)


class How(StrEnum):
    """By which step an endpoint was chosen."""

    NOBODY = "nobody"
    ONLY = "only"
    WARM = "warm"
    TWO = "two"


class Call(Struct, frozen=True, kw_only=True):
    """What is to be placed."""

    lane: Lane
    worker: str
    session: str | None = None
    """Calls of one session share what a service remembers of it."""
    prefix: str | None = None
    """Hash of the beginning of a prompt that a service may have computed already."""
    tried: tuple[str, ...] = ()
    """Endpoints that failed this job."""


class Standing(Struct, frozen=True, kw_only=True):
    """What this process knows of an endpoint beyond its offer."""

    slots: float = 1.0
    outstanding: int = 0
    limit: int | None = None
    """Calls that it takes at a time, as learned; None: not limited."""
    latency: Seconds | None = None
    age: Seconds = RAMP
    """Since it was first seen well."""
    paused: str | None = None
    """Why an operator stopped it."""
    cooled: Seconds = 0.0
    """For how long its quota, or its own word, keeps calls away."""
    out: bool = False
    """Its breaker refuses."""
    out_for: Seconds = 0.0
    loaded: tuple[str, ...] = ()
    """Models in its memory."""


class Facts(Struct, frozen=True, kw_only=True):
    """What is known of all of them; an endpoint without a standing is new."""

    standing: Mapping[str, Standing] = {}
    homes: Mapping[tuple[Warmth, str], str] = {}
    """Which endpoint served a session or a prefix last."""


class Judged(Struct, frozen=True, kw_only=True):
    """One endpoint as it was judged."""

    endpoint: str
    reason: Reason | None
    """None: it could get the call."""
    detail: str = ""
    back_in: Seconds | None = None
    """When the reason goes away by itself, if it does."""
    warmth: Warmth | None = None
    outstanding: int = 0
    room: float = 0.0
    """Calls that a warm endpoint may carry, this one included."""
    cost: float = 0.0
    """(calls + 1) / slots x latency, as the two are compared."""


class Choice(Struct, frozen=True, kw_only=True):
    """What was decided, and all of why."""

    endpoint: str | None
    how: How
    judged: tuple[Judged, ...]
    panic: bool = False
    """Breakers were ignored: more than half of those that fit were out."""
    compared: tuple[str, ...] = ()
    """The one or two endpoints that were weighed last."""

    @property
    def reasons(self) -> dict[str, int]:
        """Return how many endpoints fell out for each reason."""
        found = [judged.reason.value for judged in self.judged if judged.reason is not None]
        return {reason: found.count(reason) for reason in dict.fromkeys(found)}

    @property
    def back_in(self) -> Seconds | None:
        """Return when an endpoint may be fit again without anybody's doing, None when none will be."""
        times = [judged.back_in for judged in self.judged if judged.back_in is not None]
        return min(times, default=None) if self.endpoint is None else None


def choose(candidates: Sequence[Offer], call: Call, facts: Facts, dice: Callable[[], float]) -> Choice:
    """Choose one of the offers' endpoints; offers without an endpoint are none of its business.

    `dice` gives [0, 1), and is rolled only when more than one endpoint is left.
    """
    judged = _filtered([offer for offer in candidates if offer.endpoint is not None], call, facts)
    able = [one for one in judged if one.reason in {None, Reason.BREAKER}]
    panic = panics(sum(one.reason is Reason.BREAKER for one in able), len(able))
    if panic:
        judged = [_freed(one) if one.reason is Reason.BREAKER else one for one in judged]
    judged = _spared([_weighed(one, judged, call, facts) if one.reason is None else one for one in judged], call)
    fit = [one for one in judged if one.reason is None]
    if not fit:
        return Choice(endpoint=None, how=How.NOBODY, judged=tuple(judged), panic=panic)
    warm = _warmest([one for one in fit if one.outstanding + 1 <= one.room])
    how = How.ONLY if len(fit) == 1 else How.WARM if warm else How.TWO
    two = _two(warm or fit, dice)
    best = min(two, key=_cost)
    names = tuple(one.endpoint for one in two)
    return Choice(endpoint=best.endpoint, how=how, judged=tuple(judged), panic=panic, compared=names)


def _filtered(offers: Sequence[Offer], call: Call, facts: Facts) -> list[Judged]:
    return [_judge(offer, offer.endpoint or "", call, facts) for offer in offers]


def _judge(offer: Offer, endpoint: str, call: Call, facts: Facts) -> Judged:
    standing = facts.standing.get(endpoint, Standing())
    reason, detail, back_in = _obstacle(lacks(call.lane, (offer,), worker=call.worker), standing)
    return Judged(endpoint=endpoint, reason=reason, detail=detail, back_in=back_in, outstanding=standing.outstanding)


def _obstacle(found: Sequence[Lack], standing: Standing) -> tuple[Reason | None, str, Seconds | None]:
    """Return the first thing in the way; what never changes by itself is named before what does."""
    lacking = [lack.key for lack in found if lack.key != "healthy"]
    if lacking:
        isolated = all("isolation" in key for key in lacking)
        return (Reason.ISOLATION if isolated else Reason.CAPABILITY), ", ".join(lacking), None
    if found:
        return Reason.HEALTH, "its probe fails", None
    return _hindrance(standing)


def _hindrance(standing: Standing) -> tuple[Reason | None, str, Seconds | None]:
    if standing.paused is not None:
        return Reason.PAUSE, standing.paused, None
    if standing.cooled > 0.0:
        return Reason.QUOTA, f"for {standing.cooled:.3g} s", standing.cooled
    if standing.limit is not None and standing.outstanding >= standing.limit:
        return Reason.ROOM, f"{standing.outstanding} of {standing.limit}", None
    if standing.out:
        return Reason.BREAKER, f"for {standing.out_for:.3g} s", standing.out_for
    return None, "", None


def _freed(judged: Judged) -> Judged:
    return msgspec.structs.replace(judged, reason=None, detail="breaker ignored", back_in=None)


def _weighed(one: Judged, all_: Sequence[Judged], call: Call, facts: Facts) -> Judged:
    """Add what is compared: warmth, the load that warmth may bring, cost."""
    fit = [facts.standing.get(each.endpoint, Standing()) for each in all_ if each.reason is None]
    standing = facts.standing.get(one.endpoint, Standing())
    slots = max(standing.slots, 1e-9)
    share = (sum(each.outstanding for each in fit) + 1) * slots / sum(max(each.slots, 1e-9) for each in fit)
    known = sorted(each.latency for each in fit if each.latency is not None)
    usual = known[len(known) // 2] if known else _LATENCY
    latency = usual if standing.latency is None else standing.latency
    ramp = min(1.0, max(_RAMP_LEAST, standing.age / RAMP))
    return msgspec.structs.replace(
        one,
        warmth=_warmth(one.endpoint, standing, call, facts),
        room=float(math.ceil(BOUND * share)),
        cost=(standing.outstanding + 1) / slots * latency / ramp,
    )


def _warmth(endpoint: str, standing: Standing, call: Call, facts: Facts) -> Warmth | None:
    for warmth, key in ((Warmth.SESSION, call.session), (Warmth.PREFIX, call.prefix)):
        if key is not None and facts.homes.get((warmth, key)) == endpoint:
            return warmth
    models = call.lane.needs.models
    return Warmth.MODEL if models and set(models) <= set(standing.loaded) else None


def _spared(judged: list[Judged], call: Call) -> list[Judged]:
    """Take out endpoints that failed this job, as long as another one is left."""
    others = any(one.reason is None and one.endpoint not in call.tried for one in judged)
    return [
        msgspec.structs.replace(one, reason=Reason.TRIED, detail="it failed this job")
        if others and one.reason is None and one.endpoint in call.tried
        else one
        for one in judged
    ]


def _warmest(within: Sequence[Judged]) -> list[Judged]:
    ranks = [_RANKS.index(one.warmth) for one in within if one.warmth is not None]
    return [one for one in within if one.warmth is not None and _RANKS.index(one.warmth) == min(ranks)]


def _two(fit: Sequence[Judged], dice: Callable[[], float]) -> list[Judged]:
    if len(fit) == 1:
        return list(fit)
    first = int(dice() * len(fit))
    second = int(dice() * (len(fit) - 1))
    return [fit[first], fit[second if second < first else second + 1]]


def _cost(one: Judged) -> float:
    return one.cost
