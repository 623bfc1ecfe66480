"""The attempts that run now."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import structlog

from hostler.contracts.failure import Failure, FailureClass
from hostler.contracts.lease import Again, Lease, LeaseRef, Settlement, Suspicion
from hostler.contracts.queue import RetryPolicy
from hostler.kernel.units import Seconds
from hostler.policy.retry import after_failure, returns
from hostler.policy.suspicion import suspicion
from hostler.worker.attempt import HALT_LIMIT, Attempt, Route
from hostler.worker.board import Board
from hostler.worker.capacity import Capacity
from hostler.worker.runs import Cause, Tools

_LOG = structlog.stdlib.get_logger("hostler.worker.crew")

GONE_PAUSE: Seconds = 0.5
"""How long a job waits whose endpoint left, or whose room was taken, in the moment of its claim."""


class Crew:
    """Starts attempts and passes on what they are told; `counted` is called after one has begun or ended."""

    def __init__(self, tools: Tools, capacity: Capacity, board: Board, counted: Callable[[], None]) -> None:
        self._tools = tools
        self._capacity = capacity
        self._board = board
        self._counted = counted
        self._attempts: dict[LeaseRef, Attempt] = {}
        self._runs: dict[LeaseRef, asyncio.Task[None]] = {}
        """Tasks that work, by their attempts."""
        self._suspects: dict[LeaseRef, Suspicion] = {}
        """Those of them that may be poison."""
        self._tasks: set[asyncio.Future[Any]] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._giving_back = False

    @property
    def jobs(self) -> tuple[str, ...]:
        """Return the ids of the jobs that run now."""
        return tuple(ref.job_id for ref in self._attempts)

    @property
    def suspicion(self) -> Suspicion:
        """Return that of the worst of the jobs that run now (`policy.suspicion`)."""
        return max(self._suspects.values(), default=Suspicion.NONE)

    def start(self, lease: Lease, route: Route) -> None:
        """Start an attempt; its amounts are taken before this returns."""
        attempt = Attempt(lease, route, self._tools, self)
        ref = attempt.ref
        if ref in self._attempts:
            return  # an answer that came twice
        attempt.begin()
        self._capacity.take(ref, lease.lane, route.pools)
        self._board.hold(ref, lease.lease_s, queue=lease.queue)
        self._attempts[ref] = attempt
        if (level := suspicion(lease.crashes, lease.crashes_max)) is not Suspicion.NONE:
            self._suspects[ref] = level
        if self._giving_back:
            attempt.tell(Cause.GIVE_BACK)
        self._runs[ref] = asyncio.create_task(self._guarded(attempt, attempt.run), name=f"attempt {ref.job_id}")
        self._keep(self._runs[ref])
        self._counted()

    def halting(self, attempt: Attempt) -> None:
        """Stop the work of an attempt and record that; nobody waits for the work itself any more, which may go on."""
        self._keep(asyncio.create_task(self._guarded(attempt, attempt.halt), name=f"halt {attempt.ref.job_id}"))
        self._forget(self._runs[attempt.ref])

    def worked(self, attempt: Attempt) -> None:
        """Free what work took that is over: the engine hears of its end and of who wants more in one round trip."""
        self._capacity.give(attempt.ref)

    def ended(self, attempt: Attempt) -> None:
        """Have done with an attempt."""
        self._attempts.pop(attempt.ref, None)
        self._suspects.pop(attempt.ref, None)
        self._runs.pop(attempt.ref, None)
        self._board.drop(attempt.ref)
        self._capacity.give(attempt.ref)
        self._counted()

    def give_up(self, lease: Lease, why: str) -> None:
        """Send a lease back that cannot be started now: nobody is to blame, no attempt is used."""
        _LOG.warning("a claimed job is given back", job=lease.job_id, why=why)
        settlement = Settlement(
            job_id=lease.job_id, fence=lease.fence, ending=Again(failure=None, counted=False, delay=GONE_PAUSE)
        )
        self._keep(asyncio.ensure_future(self._tools.settlers.settle(settlement)))

    def refuse(self, lease: Lease, why: str) -> None:
        """Send a lease back to where a fitter worker finds it."""
        ending = after_failure(
            Failure(class_=FailureClass.CAPABILITY_MISMATCH, message=why),
            policy=RetryPolicy(),
            attempts_used=lease.attempts_used,
            overloads=lease.overloads,
            dice=self._tools.dice.roll,
            others_fit=True,
            lane=lease.lane,
            worker=self._tools.worker,
            came_back=returns(lease, self._tools.worker),
        )
        _LOG.error("claimed what nothing here runs", job=lease.job_id, why=why)
        settlement = Settlement(job_id=lease.job_id, fence=lease.fence, ending=ending)
        self._keep(asyncio.ensure_future(self._tools.settlers.settle(settlement)))

    def tell(self, ref: LeaseRef, cause: Cause) -> None:
        """Tell one attempt to stop; ignored when it is over."""
        if (attempt := self._attempts.get(ref)) is not None:
            attempt.tell(cause)

    def give_back(self) -> None:
        """Tell every attempt, and any that is still to come, to give its job back."""
        self._giving_back = True
        for attempt in self._attempts.values():
            attempt.tell(Cause.GIVE_BACK)

    async def over(self, *, within: float | None = None) -> bool:
        """Return True when no attempt runs any more, False after `within` seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within):
                await self._idle.wait()
        return self._idle.is_set()

    async def close(self) -> None:
        """Drop what still runs, unrecorded; what does not stop is left behind."""
        for attempt in self._attempts.values():
            attempt.drop()
        for task in set(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=HALT_LIMIT)

    def _keep(self, task: asyncio.Future[Any]) -> None:
        self._idle.clear()
        self._tasks.add(task)
        task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Future[Any]) -> None:
        self._tasks.discard(task)
        if not self._tasks:
            self._idle.set()

    async def _guarded(self, attempt: Attempt, part: Callable[[], Awaitable[None]]) -> None:
        try:
            await part()
        except Exception:  # noqa: BLE001 - a defect in one attempt must not touch the others; its lease lapses
            _LOG.exception("an attempt broke", job=attempt.ref.job_id, fence=attempt.ref.fence)
