"""What a worker has free, over all its queues: reserved here before anything is claimed."""

import asyncio
from collections.abc import Mapping
from types import MappingProxyType

import msgspec

from hostler.contracts.lease import LeaseRef
from hostler.contracts.needs import Lane
from hostler.contracts.offer import Offer, Pool

_NOTHING: Mapping[str, float] = MappingProxyType({})


class Capacity:
    """Slots and amounts; `changed` is set when some become free."""

    def __init__(self, worker: str, *, slots: int) -> None:
        self._slots = Pool(id=f"{worker}:slots", total=float(slots))
        self._held: dict[LeaseRef, dict[str, float]] = {}
        self._used: dict[str, float] = {}
        self.changed = asyncio.Event()

    @property
    def running(self) -> int:
        """Return how many leases hold something."""
        return len(self._held)

    @property
    def free(self) -> int:
        """Return how many more jobs of one slot may be claimed."""
        return max(0, int(self._slots.total - self._used.get(self._slots.id, 0.0)))

    def pools(self) -> dict[str, Pool]:
        """Return the worker's own amounts with what is free of them."""
        return {"slots": self._left(self._slots)}

    def offer(self, offer: Offer) -> Offer:
        """Return an offer whose pools say what this worker can spare of them now."""
        if not offer.pools:
            return offer
        return msgspec.structs.replace(offer, pools={name: self._left(pool) for name, pool in offer.pools.items()})

    def holds(self, lane: Lane, pools: Mapping[str, Pool]) -> bool:
        """Tell whether there is room now for what `take` would note."""
        return all(
            self._used.get(pool_id, 0.0) + amount <= total
            for pool_id, (amount, total) in self._wanted(lane, pools).items()
        )

    def take(self, ref: LeaseRef, lane: Lane, pools: Mapping[str, Pool]) -> None:
        """Note what a lease took: from the worker's own pools and from those of the offer that fits (`pools`)."""
        taken = {pool_id: amount for pool_id, (amount, _) in self._wanted(lane, pools).items()}
        for pool_id, amount in taken.items():
            self._used[pool_id] = self._used.get(pool_id, 0.0) + amount
        self._held[ref] = taken

    def give(self, ref: LeaseRef) -> None:
        """Free what a lease took; safe to call again: the engine may have room by then that it had not."""
        for pool_id, amount in self._held.pop(ref, _NOTHING).items():
            left = self._used[pool_id] - amount
            if left > 0:
                self._used[pool_id] = left
            else:
                del self._used[pool_id]
        self.changed.set()

    def _wanted(self, lane: Lane, pools: Mapping[str, Pool]) -> dict[str, tuple[float, float]]:
        """Return by pool what a job of this lane takes of it, and its total."""
        wanted = {"slots": 1.0, **lane.needs.amounts}
        found: dict[str, tuple[float, float]] = {}
        for owned in ({"slots": self._slots}, pools):
            for name, pool in owned.items():
                if name in wanted:
                    found[pool.id] = found.get(pool.id, (0.0, 0.0))[0] + wanted[name], pool.total
        return found

    def _left(self, pool: Pool) -> Pool:
        ours = max(0.0, pool.total - self._used.get(pool.id, 0.0))
        free = ours if pool.free is None else min(ours, pool.free)
        return msgspec.structs.replace(pool, free=free)
