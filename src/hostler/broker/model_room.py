"""Room in pools, as one claim of the model sees it."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from hostler.broker.model_state import JobRecord, seconds
from hostler.broker.records import thousandths
from hostler.contracts.lease import ClaimRequest, Suspicion
from hostler.contracts.needs import Lane
from hostler.contracts.offer import Offer, Pool, Standing
from hostler.policy.balance import Way, is_home, is_warm
from hostler.policy.suspicion import PASSED_MOST, apart

_EPSILON = 1e-9


class Choice(NamedTuple):
    """A job that may run now, the offer that it fits, and what it takes from whom."""

    job: JobRecord
    offer: int
    wants: list[tuple[Pool, str, float]]
    suspicion: Suspicion


class Room:
    """What is free in the pools that one claim sees, what is kept free for big jobs, and beside what they would run."""

    def __init__(self, taken: Mapping[tuple[str, str], float], *, beside: Suspicion) -> None:
        self._taken = taken
        self._spent: dict[tuple[str, str], float] = {}
        self._reserved: set[tuple[str, str]] = set()
        self.blocked: set[str] = set()
        """Lanes that were found without room: looked at once a claim, so only their first job can reserve."""
        self._beside = beside
        self._passed: set[str] = set()

    def copy(self) -> "Room":
        """Return a room like this that goes its own way from here."""
        other = Room(self._taken, beside=self._beside)
        other._passed = set(self._passed)
        other._spent, other._reserved, other.blocked = dict(self._spent), set(self._reserved), set(self.blocked)
        return other

    def short(self, wants: Sequence[tuple[Pool, str, float]]) -> list[tuple[str, str]]:
        """Return the pools that have no room for this now."""
        return [
            (pool.id, name)
            for pool, name, amount in wants
            if (pool.id, name) in self._reserved or amount > self._free(pool, name) + _EPSILON
        ]

    def passes(self, job: JobRecord, suspicion: Suspicion, now: datetime) -> bool:
        """Tell whether a job is passed over, for what the worker holds or was just given (`policy.suspicion`)."""
        wait = seconds(apart(self._beside, suspicion))
        if (job.ready_at or now) + wait <= now or len(self._passed | {job.id}) > PASSED_MOST:
            return False
        self._passed.add(job.id)
        return True

    def take(self, chosen: Choice) -> None:
        """Take what it wants."""
        self._beside = max(self._beside, chosen.suspicion)
        for pool, name, amount in chosen.wants:
            self._spent[pool.id, name] = self._spent.get((pool.id, name), 0.0) + amount

    def reserve(self, pools: Sequence[tuple[str, str]]) -> None:
        """Keep these pools for a job that waits for them: nothing behind it may take from them."""
        self._reserved.update(pools)

    def way(self, lane: Lane, offer: Offer, standing: Standing, home: str | None) -> Way:
        """Return what the choice among several offers is made by."""
        pool = offer.pools.get("slots")
        spent = 0.0
        if pool is not None:
            spent = self._taken.get((pool.id, "slots"), 0.0) + self._spent.get((pool.id, "slots"), 0.0)
        return Way(
            outstanding=thousandths(spent),
            slots=1000 if pool is None else max(1, -thousandths(-pool.total)),
            weight=thousandths(standing.weight),
            warm=is_warm(lane, standing),
            home=is_home(lane, standing, endpoint=offer.endpoint, home=home),
            shunned=offer.endpoint is not None and offer.endpoint in lane.avoid.shunned,
        )

    def _free(self, pool: Pool, name: str) -> float:
        spent = self._spent.get((pool.id, name), 0.0)
        free = pool.total - self._taken.get((pool.id, name), 0.0)
        return (free if pool.free is None else min(free, pool.free)) - spent


def wants_of(job: JobRecord, request: ClaimRequest, offer: Offer) -> list[tuple[Pool, str, float]]:
    """Return what the job would take from whom: each amount from the worker and from the offer, where they have it."""
    wants: list[tuple[Pool, str, float]] = []
    for name, amount in job.lane.needs.amounts.items():
        pools = {pool.id: pool for pool in (request.pools.get(name), offer.pools.get(name)) if pool is not None}
        wants.extend((pool, name, amount) for pool in pools.values())
    return wants
