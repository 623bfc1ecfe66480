"""A short read that takes unusually long is asked of a second endpoint too; the first answer wins."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import structlog
from msgspec import Raw

from hostler.contracts.job import Progress
from hostler.contracts.preview import Preview
from hostler.contracts.service import Failed, Finished
from hostler.dispatch.gauge import Gauge
from hostler.dispatch.repeats import Repeats
from hostler.kernel.allowance import allowed
from hostler.kernel.units import Seconds
from hostler.ports.connector import Connector
from hostler.worker.restraint import Refrained
from hostler.worker.runs import CANCEL_LIMIT, Cause, Errand, ServiceRun
from hostler.worker.stages import StageWatch

_LOG = structlog.stdlib.get_logger("hostler.worker.hedges")

Outcome = Finished | Failed | Refrained
_STOPPING: set[asyncio.Future[None]] = set()
"""Losers that are being told to stop: nobody waits for them, and they must not be forgotten half-way."""


@dataclass(frozen=True, kw_only=True)
class Second:
    """Another endpoint that has room."""

    connector: Connector
    gauge: Gauge


@dataclass(frozen=True, kw_only=True)
class Hedge:
    """When, and of whom, a call of an attempt is asked a second time."""

    gauge: Gauge
    """Of the first endpoint."""
    repeats: Repeats
    find: Callable[[], Second | None]
    """Looks for a second endpoint that has room now."""

    def after(self, kind: str) -> Seconds | None:
        """Return how long the first endpoint is waited for alone; None for ever."""
        return self.repeats.hedge_after(self.gauge.latency(kind))

    def second(self) -> Second | None:
        """Return a second endpoint, whose call is paid for; None when there is no room or no repeat left."""
        found = self.find()
        return found if found is not None and self.repeats.take() else None


class HedgedRun:
    """Runs an attempt on one endpoint and, when that takes long, on a second one as well; one of them is recorded."""

    def __init__(self, first: ServiceRun, hedge: Hedge) -> None:
        self._first = self._winner = first
        self._hedge = hedge
        self._runs = [first]

    @property
    def endpoint(self) -> str | None:
        """Return the endpoint whose answer counts."""
        return self._winner.endpoint

    async def run(self, attempt: Errand) -> Outcome:
        """Return the first result, or the first endpoint's failure when there is none."""
        first = asyncio.create_task(self._first.run(attempt), name=f"first call {attempt.ref.job_id}")
        try:
            await asyncio.wait({first}, timeout=self._hedge.after(attempt.lease.kind))
            second = None if first.done() else self._hedge.second()
            return await first if second is None else await self._race(first, second, attempt)
        finally:
            _cancel(self._first, first)

    def interrupt(self) -> bool:
        """Return False: each call is ended as it may be."""
        return False

    async def stop(self, cause: Cause | None) -> None:
        """Stop both."""
        await asyncio.gather(*(run.stop(cause) for run in self._runs))

    async def release(self) -> None:
        """Let the winner's service forget the work."""
        await self._winner.release()

    async def _race(self, first: asyncio.Task[Outcome], second: Second, attempt: Errand) -> Outcome:
        run, ticket = ServiceRun(second.connector, None), second.gauge.begin(attempt.lease.kind)
        self._runs.append(run)
        _LOG.info("asked a second endpoint", job=attempt.ref.job_id, first=self._first.endpoint, second=run.endpoint)
        other = asyncio.create_task(run.run(Beside(attempt)), name=f"second call {attempt.ref.job_id}")
        try:
            outcome = await _first_result(first, other)
        finally:
            over = other.done() and not other.cancelled() and other.exception() is None
            end = other.result() if over else None
            failure = end.failure if isinstance(end, Failed) else None
            kept = isinstance(end, Finished) and end.kept
            second.gauge.end(ticket, failure, told=not over or kept)
            if kept or (failure is not None and failure.unsent):
                self._hedge.repeats.give_back()
            _cancel(run, other)
        if outcome is not None:
            self._winner, loser, left = (run, self._first, first) if outcome is end else (self._first, run, other)
            if not left.done():
                _cancel(loser, left)
                _stop(loser)
            return outcome
        return await first

    @property
    def beaten(self) -> bool:
        """Tell whether the second endpoint's answer counts."""
        return self._winner is not self._first


class Beside:
    """An attempt as its second call sees it: limits and progress are the first one's."""

    def __init__(self, attempt: Errand) -> None:
        self.lease, self.ref, self.tools, self.timeouts = attempt.lease, attempt.ref, attempt.tools, attempt.timeouts
        self.reports = attempt.reports
        now = attempt.tools.clock.monotonic()
        left = attempt.stages.to_deadline(now)
        self.stages = StageWatch(attempt.timeouts, started=now, ends=None if left is None else now + left, service=True)
        self._attempt = attempt

    async def payload(self) -> Raw:
        """Return the payload."""
        return await self._attempt.payload()

    def progressed(self, news: Progress | Preview) -> None:
        """Drop it: what two say about one piece of work would go to and fro."""


def _cancel(run: ServiceRun, task: asyncio.Task[Outcome]) -> None:
    """End a call, after its submit where one is under way."""
    if not run.interrupt():
        task.cancel()


async def _first_result(first: asyncio.Task[Outcome], other: asyncio.Task[Outcome]) -> Finished | None:
    """Return the first result of two calls, None when neither has one."""
    pending: set[asyncio.Task[Outcome]] = {first, other}
    while pending:
        done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        for task in sorted(done, key=lambda task: task is not first):
            outcome = None if task.cancelled() or task.exception() is not None else task.result()
            if isinstance(outcome, Finished):
                return outcome
    return None


def _stop(loser: ServiceRun) -> None:
    """Have a service told that nobody waits for its answer any more; the winner's end does not wait for that."""
    with allowed(None):
        task = asyncio.ensure_future(_ended(loser))
    _STOPPING.add(task)
    task.add_done_callback(_STOPPING.discard)


async def _ended(loser: ServiceRun) -> None:
    try:
        async with asyncio.timeout(CANCEL_LIMIT):
            await loser.stop(Cause.CANCEL)
            await loser.release()
    except Exception as error:  # noqa: BLE001 - the job has its result; what the loser makes of a cancel is its own
        _LOG.warning("a call that lost did not stop", error=f"{type(error).__name__}: {error}")
