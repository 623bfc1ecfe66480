"""Whether a worker can serve a lane, and what it lacks: needs and avoid are always judged, in doubt with *no*."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version

from hostler.contracts.needs import Avoid, Lane, Needs
from hostler.contracts.offer import Offer, Pool
from hostler.kernel.units import Json

NO_POOLS: Mapping[str, Pool] = {}


class Lack(NamedTuple):
    """One need that an offer does not meet."""

    key: str
    """`kind`, `healthy`, `service`, `models`, `labels.x`, `versions.x`, `isolation`, `amounts.x`, `avoid.…`."""
    wanted: Json
    has: Json


def fits(lane: Lane, offers: Sequence[Offer], *, worker: str, pools: Mapping[str, Pool] = NO_POOLS) -> int | None:
    """Return the index of the first healthy offer that serves this lane; None when none does.

    `worker` is the id of who offers, `pools` are its own amounts. Judged by totals: whether there is room
    *now* is the claim's business. A worker that the lane shuns still fits: who else lives is not known here.
    """
    for index, offer in enumerate(offers):
        if next(_lacks(lane, offer, worker, pools), None) is None:
            return index
    return None


def lacks(
    lane: Lane, offers: Sequence[Offer], *, worker: str, pools: Mapping[str, Pool] = NO_POOLS
) -> tuple[Lack, ...]:
    """Return what the offer that comes nearest lacks; empty when one fits.

    An offer of the kind is nearer than any that is not, then the one that lacks least, then the first.
    """
    found = [tuple(_lacks(lane, offer, worker, pools)) for offer in offers]
    if not found:
        return (Lack("kind", lane.kind, []),)
    return min(found, key=_distance)


def misses(lane: Lane, offer: Offer, *, worker: str, pools: Mapping[str, Pool] = NO_POOLS) -> tuple[Lack, ...]:
    """Return all that one offer lacks."""
    return tuple(_lacks(lane, offer, worker, pools))


def problems(needs: Needs, avoid: Avoid) -> tuple[tuple[str, str], ...]:
    """Return what can never be judged in these needs: pairs of field (`needs.versions.x`) and sentence."""
    return tuple(
        (f"{part}.versions.{name}", f"{text!r} is not a version specifier such as '>=1.2,<2'")
        for part, versions in (("needs", needs.versions), ("avoid", avoid.versions))
        for name, text in versions.items()
        if _specifiers(text) is None
    )


def _distance(found: tuple[Lack, ...]) -> tuple[bool, int]:
    return any(lack.key == "kind" for lack in found), len(found)


def _lacks(lane: Lane, offer: Offer, worker: str, pools: Mapping[str, Pool]) -> Iterator[Lack]:
    if lane.kind not in offer.kinds:
        yield Lack("kind", lane.kind, list(offer.kinds))
    if not offer.healthy:
        yield Lack("healthy", wanted=True, has=False)
    yield from _unmet(lane.needs, offer)
    yield from _short(lane.needs, offer, pools)
    yield from _unwanted(lane.avoid, offer, worker)


def _unmet(needs: Needs, offer: Offer) -> Iterator[Lack]:
    if needs.service is not None and needs.service != offer.service:
        yield Lack("service", needs.service, offer.service)
    if needs.models and not (offer.models_known and set(needs.models) <= set(offer.models)):
        yield Lack("models", list(needs.models), list(offer.models) if offer.models_known else None)
    for name, value in needs.labels.items():
        if offer.labels.get(name) != value:
            yield Lack(f"labels.{name}", value, offer.labels.get(name))
    for name, text in needs.versions.items():
        if _satisfies(offer.versions.get(name), text) is not True:
            yield Lack(f"versions.{name}", text, offer.versions.get(name))
    if needs.isolation is not None and needs.isolation not in offer.isolation:
        yield Lack("isolation", needs.isolation, list(offer.isolation))


def _short(needs: Needs, offer: Offer, pools: Mapping[str, Pool]) -> Iterator[Lack]:
    for name, amount in needs.amounts.items():
        owners = [pool for pool in (pools.get(name), offer.pools.get(name)) if pool is not None]
        if not owners and name != "slots":
            yield Lack(f"amounts.{name}", amount, None)
        elif any(pool.total < amount for pool in owners):
            yield Lack(f"amounts.{name}", amount, min(pool.total for pool in owners))


def _unwanted(avoid: Avoid, offer: Offer, worker: str) -> Iterator[Lack]:
    if avoid.service is not None and avoid.service == offer.service:
        yield Lack("avoid.service", avoid.service, offer.service)
    if avoid.models and not (offer.models_known and set(avoid.models).isdisjoint(offer.models)):
        yield Lack("avoid.models", list(avoid.models), list(offer.models) if offer.models_known else None)
    for name, value in avoid.labels.items():
        if offer.labels.get(name) == value:
            yield Lack(f"avoid.labels.{name}", value, value)
    for name, text in avoid.versions.items():
        if name in offer.versions and _satisfies(offer.versions[name], text) is not False:
            yield Lack(f"avoid.versions.{name}", text, offer.versions[name])
    if avoid.isolation is not None and avoid.isolation in offer.isolation:
        yield Lack("avoid.isolation", avoid.isolation, list(offer.isolation))
    if worker in avoid.workers:
        yield Lack("avoid.workers", list(avoid.workers), worker)


def _satisfies(version: str | None, text: str) -> bool | None:
    """Tell whether a version meets the specifiers; None when one of the two cannot be read."""
    specifiers = _specifiers(text)
    if version is None or specifiers is None:
        return None
    try:
        return specifiers.contains(Version(version), prereleases=True)
    except InvalidVersion:
        return None


def _specifiers(text: str) -> SpecifierSet | None:
    try:
        return SpecifierSet(text)
    except InvalidSpecifier:
        return None
