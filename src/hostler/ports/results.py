"""Results kept for equal jobs: the promises of the cache."""

from typing import Protocol

from hostler.contracts.result import CacheView, Flight, Kept, Taken
from hostler.kernel.units import Seconds


class Results(Protocol):
    """Kept results by key, and flights: the right of one job to run what all equal ones wait for.

    A key begins with its kind and a colon (`policy.caching`). A flight is its job's, over all its attempts: the one
    with the higher fence takes it over. Losing a flight or a result never makes work wrong, only done again.
    """

    async def begin(self, key: str, *, kind: str, job: str, fence: int, lasts: Seconds) -> Kept | Flight | Taken:
        """Return what is kept; or give this job the flight for `lasts` seconds; or say that another one has it.

        One step: of any number of jobs that ask at the same time, one gets the flight. Repeating it is safe.
        """
        ...

    async def look(self, key: str, *, kind: str) -> Kept | None:
        """Return what is kept, and take no flight."""
        ...

    async def hold(self, key: str, *, job: str, fence: int, lasts: Seconds) -> bool:
        """Renew this job's flight; False when another one has it."""
        ...

    async def put(self, key: str, kept: Kept, *, kind: str, job: str, ttl: Seconds) -> None:
        """Keep a result for `ttl` seconds in place of what was there, and end this job's flight.

        Those that end soonest may go earlier, when the cache is full. `InvalidError` when neither or both of result
        and reference are given, or the result is over `INLINE_LIMIT`.
        """
        ...

    async def give_up(self, key: str, *, job: str, fence: int) -> bool:
        """End this job's flight without a result, so that another may take it; False when it was not its own."""
        ...

    async def clear(self, prefix: str = "") -> int:
        """Drop every result whose key begins so, and return how many that were; flights go on."""
        ...

    async def view(self) -> CacheView:
        """Return counts by kind, and how much is kept."""
        ...
