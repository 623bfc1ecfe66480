"""What one attempt has to do with results that are kept for equal jobs."""

import asyncio
from collections.abc import Awaitable
from typing import Final, TypeVar

import structlog
from msgspec import Struct

from hostler.contracts.failure import Failure, FailureClass
from hostler.contracts.lease import Lease
from hostler.contracts.queue import CacheMode, CachePolicy
from hostler.contracts.result import Flight, Kept, Taken
from hostler.contracts.service import Failed
from hostler.kernel.errors import HostlerError
from hostler.kernel.units import Seconds
from hostler.policy.caching import LABEL, mode_of, result_key, wait_for, waits_of
from hostler.ports.blobs import Blobs
from hostler.ports.results import Results

_LOG = structlog.stdlib.get_logger("hostler.dispatch.sharing")
T = TypeVar("T")

FLIGHT: Final[Seconds] = 30.0
"""How long a flight holds without a renewal: so long equal jobs wait for one whose worker is gone."""
PATIENCE: Final[Seconds] = 2.0
"""Longest wait for the cache; then the work runs as if there were none."""


class Later(Struct, frozen=True, kw_only=True):
    """An equal job runs: this one comes back for its result."""

    seconds: Seconds


class Share:
    """Asks before the work, keeps what it brought, and holds the flight meanwhile. A broken cache only costs runs."""

    def __init__(self, lease: Lease, policy: CachePolicy | None, results: Results | None, blobs: Blobs | None) -> None:
        self._lease = lease
        self._policy = policy if results is not None else None
        self._results = results
        self._blobs = blobs
        self._key = ""
        self._keeps = False
        self._asked = False
        self._holding: asyncio.Task[None] | None = None

    async def ask(self) -> Kept | Later | Failed | None:
        """Return what answers the job, when to come back, or why it fails; None: the work has to run."""
        lease = self._lease
        try:
            mode = mode_of(self._policy, lease.labels)
        except ValueError:
            words = f"the label {LABEL} says {lease.labels[LABEL]!r}: {', '.join(CacheMode)}"
            return Failed(failure=Failure(class_=FailureClass.INVALID_INPUT, message=words))
        if self._results is None or mode is CacheMode.BYPASS:
            return None
        self._key = result_key(lease.kind, lease.payload, lease.lane.needs)
        if mode is CacheMode.ONLY:
            return await self._only(self._results)
        self._keeps = True
        return await self._first(self._results) if mode is CacheMode.FIRST else None

    async def end(self, kept: Kept | None, *, goes_on: bool) -> None:
        """Keep the result of work that ran; give the flight up when there is none, unless the job goes on elsewhere."""
        self.close()
        results, lease = self._results, self._lease
        if results is None or not self._keeps or self._policy is None:
            return
        if kept is not None:
            await self._try(
                results.put(self._key, kept, kind=lease.kind, job=lease.job_id, ttl=self._policy.ttl), "keep a result"
            )
        elif self._asked and not goes_on:
            await self._try(results.give_up(self._key, job=lease.job_id, fence=lease.fence), "give a flight up")

    def close(self) -> None:
        """Renew the flight no more."""
        if self._holding is not None:
            self._holding.cancel()

    async def _only(self, results: Results) -> Kept | Failed:
        try:
            async with asyncio.timeout(PATIENCE):
                found = await results.look(self._key, kind=self._lease.kind)
                if found is not None and await self._whole(found):
                    return found
        except (HostlerError, TimeoutError) as error:
            words = f"the cache does not answer: {type(error).__name__}: {error}"
            return Failed(failure=Failure(class_=FailureClass.TRANSIENT, message=words))
        words = f"no result is kept for this job, and {self._lease.kind} is answered from the cache only"
        return Failed(failure=Failure(class_=FailureClass.REFUSED, message=words))

    async def _first(self, results: Results) -> Kept | Later | None:
        """Ask for result or flight; a job whose work an earlier attempt began goes on with that, whatever is kept."""
        lease = self._lease
        self._asked = True
        begun = results.begin(self._key, kind=lease.kind, job=lease.job_id, fence=lease.fence, lasts=FLIGHT)
        match await self._try(begun, "ask for a result"):
            case Kept() as found if lease.remote is None and await self._try(self._whole(found), "look at a blob"):
                self._keeps = False
                return found
            case Taken(left=left) if lease.remote is None:
                self._keeps = False
                return Later(seconds=wait_for(waits_of(lease), left=left))
            case Flight():
                self._holding = asyncio.create_task(self._hold(results), name=f"flight {lease.job_id}")
            case _:
                pass
        return None

    async def _whole(self, kept: Kept) -> bool:
        """Tell whether what a result refers to is still there."""
        return kept.ref is None or self._blobs is None or await self._blobs.size(kept.ref.sha256) is not None

    async def _hold(self, results: Results) -> None:
        lease = self._lease
        while True:
            await asyncio.sleep(FLIGHT / 3)
            await self._try(
                results.hold(self._key, job=lease.job_id, fence=lease.fence, lasts=FLIGHT), "renew a flight"
            )

    async def _try(self, what: Awaitable[T], words: str) -> T | None:
        try:
            async with asyncio.timeout(PATIENCE):
                return await what
        except Exception as error:  # noqa: BLE001 - whatever the cache runs into, the job must go on without it
            _LOG.warning("the cache failed", could_not=words, job=self._lease.job_id, error=f"{error!r}")
            return None
