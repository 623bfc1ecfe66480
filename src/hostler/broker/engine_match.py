"""Which lanes a worker covers: judged once per lane and kind of worker, and told to the engine once."""

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any, Final, cast

import msgspec
from msgspec import Struct

from hostler.broker.records import pack, thousandths, unpack_lane
from hostler.contracts.lease import ClaimRequest
from hostler.contracts.needs import Lane
from hostler.contracts.offer import Offer, Pool
from hostler.policy.balance import standings_of
from hostler.policy.matching import fits

WAYS_MAX: Final = 32
"""Offers of one worker that one lane is tried with."""

_NO_STANDINGS: Final = pack([])
_canonical = msgspec.json.Encoder(order="deterministic").encode


class Cover(Struct, frozen=True, kw_only=True):
    """What a class covers among the lanes up to `upto`: lane, offer indexes joined by commas, ..."""

    upto: int = 0
    pairs: tuple[int | str, ...] = ()


class WorkerClass(Struct, frozen=True, kw_only=True):
    """All that decides which lanes a worker fits; two workers of one class fit the same lanes.

    Pool ids, endpoints and what is free do not decide; lanes that exclude a worker by name are the
    functions' business.
    """

    name: str
    offers: tuple[Offer, ...]
    pools: Mapping[str, Pool]

    def judge(self, rows: Sequence[int | bytes], upto: int) -> Cover:
        """Judge lanes given as number, packed lane, number, packed lane, ..."""
        pairs: list[int | str] = []
        numbers, packed = cast("Sequence[int]", rows[::2]), cast("Sequence[bytes]", rows[1::2])
        for number, row in zip(numbers, packed, strict=True):
            ways = self._ways(unpack_lane(row))
            if ways:
                pairs += (number, ",".join(map(str, ways)))
        return Cover(upto=upto, pairs=tuple(pairs))

    def _ways(self, lane: Lane) -> list[int]:
        found: list[int] = []
        for index, offer in enumerate(self.offers):
            if len(found) < WAYS_MAX and fits(lane, (offer,), worker="", pools=self.pools) is not None:
                found.append(index)
        return found


class Claimant(Struct, frozen=True, kw_only=True):
    """A worker as the engine sees it: its class, and the amounts that it brings."""

    worker_class: WorkerClass
    pools: bytes
    """Packed for the function `claim`."""


def claimant(request: ClaimRequest, last: Claimant | None = None) -> Claimant:
    """Return the claimant of a request; `last` is the worker's previous one, whose class is kept when it is equal."""
    pools = pack([_pools(request.pools), *(_pools(offer.pools) for offer in request.offers)])
    if last is not None and last.worker_class.offers == request.offers and last.worker_class.pools == request.pools:
        return Claimant(worker_class=last.worker_class, pools=pools)
    return Claimant(worker_class=worker_class(request.offers, request.pools), pools=pools)


def worker_class(offers: Sequence[Offer], pools: Mapping[str, Pool]) -> WorkerClass:
    """Return the class of whoever offers this."""
    facts = (
        [
            (
                offer.kinds,
                offer.service,
                offer.healthy,
                offer.models,
                offer.models_known,
                offer.labels,
                offer.versions,
                offer.isolation,
                _totals(offer.pools),
            )
            for offer in offers
        ],
        _totals(pools),
    )
    name = blake2b(_canonical(facts), digest_size=8).hexdigest()
    return WorkerClass(name=name, offers=tuple(offers), pools=dict(pools))


def _totals(pools: Mapping[str, Pool]) -> dict[str, float]:
    return {name: pool.total for name, pool in pools.items()}


def _pools(pools: Mapping[str, Pool]) -> list[tuple[str, str, int, int]]:
    return [
        (name, pool.id, _floor(pool.total), -1 if pool.free is None else max(0, _floor(pool.free)))
        for name, pool in pools.items()
    ]


def _floor(amount: float) -> int:
    """Return what is there in thousandths, rounded down: never more is given than is there."""
    return -thousandths(-amount)


def pack_standings(request: ClaimRequest) -> bytes:
    """Pack how the offers stand for the function `claim`: {weight, loaded, swaps, endpoint} of each, false for none."""
    if not any(offer.endpoint for offer in request.offers):
        return _NO_STANDINGS
    return pack(
        [
            (thousandths(standing.weight), *map(_or_false, (standing.loaded, standing.swaps, offer.endpoint)))
            for offer, standing in zip(request.offers, standings_of(request), strict=True)
        ]
    )


def _or_false(value: Any) -> Any:
    return False if value is None else value
