"""One attempt, from its lease to its settlement, top to bottom."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import structlog
from msgspec import UNSET, Raw

from hostler.contracts.failure import Failure, FailureClass
from hostler.contracts.job import INLINE_LIMIT, BlobRef, Progress, null_json
from hostler.contracts.lease import Again, Ending, Lease, LeaseRef, Settlement
from hostler.contracts.offer import Pool
from hostler.contracts.preview import Preview, preview_of
from hostler.contracts.queue import KindSpec
from hostler.contracts.reference import payload_reference
from hostler.contracts.result import Kept
from hostler.contracts.service import Failed, Finished
from hostler.contracts.timeouts import Timeouts
from hostler.dispatch.gauge import Gauge, Ticket
from hostler.dispatch.repeats import Repeats
from hostler.dispatch.sharing import Share
from hostler.kernel.allowance import allowed
from hostler.kernel.errors import HostlerError, NotFoundError
from hostler.kernel.units import Bytes, Seconds
from hostler.ports.connector import Connector
from hostler.worker.call import Failed as Verdict
from hostler.worker.call import failure_of
from hostler.worker.endings import Endings, Outcome
from hostler.worker.handlers import Handler
from hostler.worker.hedges import Hedge, HedgedRun
from hostler.worker.restraint import Refrained, Restraint
from hostler.worker.runs import CANCEL_LIMIT, Cause, HandledRun, Run, ServiceRun, Tools
from hostler.worker.stages import StageWatch, complete
from hostler.worker.watch import Watch

_LOG = structlog.stdlib.get_logger("hostler.worker.attempt")

HALT_LIMIT: Seconds = 0.9
"""How long work may take to stop after it was told to; then it is left behind, and its slot is free."""
PART: Bytes = 1_048_576
"""Bytes of a large result that are handed to the blob store at once."""
BLOB_LIMIT: Bytes = 5_368_709_120
"""Largest result that goes to the blob store, 5 GiB."""


@dataclass(frozen=True, kw_only=True)
class Route:
    """What a claimed job is run by: a connector or a handler, and the kind's row as that declares it."""

    spec: KindSpec
    by: Connector | Handler
    pools: Mapping[str, Pool]
    """Amounts of the endpoint that the job takes from."""
    gauge: Gauge | None = None
    """What counts the calls of the endpoint."""
    repeats: Repeats | None = None
    """The retry budget of the endpoint's service."""
    hedge: Hedge | None = None
    """How a short read is asked of a second endpoint, where there may be one."""
    others: bool = False
    """Whether another endpoint of this worker could run it: then a failure is the endpoint's, not the worker's."""


class Boss(Protocol):
    """Whoever starts attempts."""

    def halting(self, attempt: "Attempt") -> None:
        """Have `attempt.halt` run by a task of its own: its work has to stop."""
        ...

    def worked(self, attempt: "Attempt") -> None:
        """Hear that the work of an attempt is over, and only its end is to be told: its room is free."""
        ...

    def ended(self, attempt: "Attempt") -> None:
        """Hear once that an attempt is over and recorded, or its lease lost."""
        ...


class Attempt:
    """One claim of a job: `run` does the work and records its end, in one task.

    Work that has to stop may not do so. It is stopped, or left behind, and the end recorded by another task: `halt`.
    """

    def __init__(self, lease: Lease, route: Route, tools: Tools, boss: Boss) -> None:
        self.lease = lease
        self.ref = LeaseRef(job_id=lease.job_id, fence=lease.fence)
        self.tools = tools
        self.reports = tools.reporters.of(lease.job_id)
        self._spec = route.spec
        self._gauge = route.gauge
        self._ticket: Ticket | None = None
        service = not isinstance(route.by, Handler)
        self.timeouts: Timeouts = complete(lease.timeouts, route.spec.timeouts, service=service)
        now = tools.clock.monotonic()
        ends = None if lease.deadline is None else now + (lease.deadline - lease.now).total_seconds()
        self.stages = StageWatch(self.timeouts, started=now, ends=ends, service=service)
        self._restraint: Restraint | None = None
        if isinstance(route.by, Handler):
            self.run_by: Run = HandledRun(route.by)
        else:
            endpoint = route.by.endpoint
            self._restraint = Restraint(lease, endpoint=endpoint, gauge=route.gauge, repeats=route.repeats)
            run = ServiceRun(route.by, self._restraint)
            self.run_by = run if route.hedge is None else HedgedRun(run, route.hedge)
        self._share = Share(lease, route.spec.cache, tools.results, tools.blobs)
        self._endings = Endings(lease, route.spec, tools, self._restraint, others=route.others)
        self._boss = boss
        self._watch = Watch(self.stages, tools.clock, self._hand_over)
        self._task: asyncio.Task[Any] | None = None
        self._handed_over = self._dropped = self._ran = False
        self._blob: BlobRef | None = None

    def begin(self) -> None:
        """Count the call at its endpoint from now on; `run` ends that."""
        if self._gauge is not None:
            self._ticket = self._gauge.begin(self._spec.name, self.lease.lane.needs.models)

    def tell(self, cause: Cause) -> None:
        """Tell the work to stop; the first word counts. The broker refuses what comes of it once the lease is lost."""
        self._watch.tell(cause)

    def drop(self) -> None:
        """Record nothing of what becomes of the work; whoever says so cancels the task."""
        self._dropped = True
        self._watch.close()

    async def run(self) -> None:
        """Work, then record how it ended, progress first; work that has to stop meanwhile is left to `halt`."""
        self._task = asyncio.current_task()
        self.reports.open(self.ref)
        try:
            told = self._watch.begin()
            outcome = await self._worked() if told is None else _stopped(told)
            self._watch.close()
            if not self._handed_over:
                await self._record(outcome)
        finally:
            if not self._handed_over:
                self._close()

    async def halt(self) -> None:
        """Stop the work here and, as far as it is ours, at the service, or leave it behind; record why."""
        work, why = self._task, self._watch.why
        if work is None or why is None:
            return
        try:
            if not self.run_by.interrupt():
                work.cancel()
            await asyncio.gather(
                asyncio.wait({work}, timeout=HALT_LIMIT),
                self._bounded(self.run_by.stop(why if isinstance(why, Cause) else None)),
            )
            if not work.done():
                if not self.run_by.interrupt():
                    work.cancel()
                _LOG.error("work does not stop and is left behind", job=self.ref.job_id, kind=self.lease.kind)
            await self._record(_stopped(why))
        finally:
            self._close()

    def _hand_over(self) -> None:
        self._handed_over = True
        self._boss.halting(self)

    async def _record(self, outcome: Outcome | Cause) -> None:
        """Let the endpoint's gauge know how the work ended, record it, and let the service forget it."""
        self._measure(outcome)
        ending: Ending | None = None
        try:
            elsewhere = outcome is Cause.LOST or outcome is Cause.GIVE_BACK
            await self._share.end(self._worth_keeping(outcome), goes_on=elsewhere)
            ending = await self._endings.of(outcome, endpoint=self.run_by.endpoint, blob=self._blob)
            if ending is None:
                return
            await self.reports.flush(self.ref)
            self._boss.worked(self)  # now, so that the next claim leaves together with the settlement
            endpoint = self.run_by.endpoint if self._ran else None
            settlement = Settlement(job_id=self.ref.job_id, fence=self.ref.fence, ending=ending, endpoint=endpoint)
            word = await self.tools.settlers.settle(settlement)
        finally:
            self._share.close()
            self.reports.close(self.ref)
        if word is not None and word.accepted:
            if self.run_by.endpoint is not None and not isinstance(ending, Again):
                await self._bounded(self.run_by.release())
        else:
            _LOG.warning("an ending was not accepted", job=self.ref.job_id, fence=self.ref.fence, word=word)

    def _measure(self, outcome: Outcome | Cause | None) -> None:
        """Let the endpoint's gauge know how the work ended; None: it was dropped, or broke."""
        ticket, self._ticket = self._ticket, None
        if self._gauge is None or ticket is None:
            return
        kept = isinstance(outcome, Finished) and outcome.kept
        told = outcome is None or isinstance(outcome, Cause | Refrained) or not self._ran or self._beaten or kept
        self._gauge.end(ticket, outcome.failure if isinstance(outcome, Failed) else None, told=told)

    def _close(self) -> None:
        """Have done with it, however it ended."""
        self._watch.close()
        self._measure(None)
        self._share.close()
        self.reports.close(self.ref)
        self._boss.ended(self)

    async def _bounded(self, what: Awaitable[None]) -> None:
        try:
            async with asyncio.timeout(CANCEL_LIMIT):
                await what
        except TimeoutError:
            _LOG.warning("the service did not confirm in time", job=self.ref.job_id, endpoint=self.run_by.endpoint)
        except Exception:  # noqa: BLE001 - a connector's defect while stopping must not keep the end from being recorded
            _LOG.exception("stopping raised", job=self.ref.job_id, endpoint=self.run_by.endpoint)

    async def _worked(self) -> Outcome:
        """Return how the work ended; an exception is a defect and becomes `internal`."""
        try:
            outcome = await self._work()
        except asyncio.CancelledError:
            if self._handed_over or self._dropped or self._task is None:
                raise
            while self._task.uncancel():
                pass
            outcome = Failed(failure=Failure(class_=FailureClass.INTERNAL, message="the work cancelled itself"))
        except Exception as error:  # noqa: BLE001 - whatever escapes from a connector has a class
            outcome = Failed(failure=failure_of(error))
        if self._dropped:  # and the work took no notice of being cancelled
            raise asyncio.CancelledError
        if isinstance(outcome, Failed) and outcome.failure.class_ is FailureClass.CANCELLED:
            # a service that was told how much time there is may end the work just before
            over = self.stages.nearly_over(self.tools.clock.monotonic())
            return outcome if over is None else Failed(failure=over)
        return outcome

    async def _work(self) -> Outcome:
        answer = await self._share.ask()
        if isinstance(answer, Kept):
            self._blob = answer.ref
            return Finished(result=null_json() if answer.result is UNSET else answer.result)
        if answer is not None:
            return answer
        self._ran = True
        with allowed(lambda: self.stages.left(self.tools.clock.monotonic())):
            outcome = await self.run_by.run(self)
        return await self._stored(outcome) if isinstance(outcome, Finished) else outcome

    async def _stored(self, outcome: Finished) -> Finished | Failed:
        """Put a result that is too large for the broker into the blob store; it is watched like the work itself."""
        body, blobs = bytes(outcome.result), self.tools.blobs
        if len(body) <= INLINE_LIMIT or blobs is None:
            return outcome
        name = hashlib.sha256(body).hexdigest()
        try:
            await blobs.put(name, self._parts(body), limit=BLOB_LIMIT)
        except Exception as error:  # noqa: BLE001 - whatever the store runs into, the job must get an end
            words = f"the result could not be stored: {type(error).__name__}: {error}"
            return Failed(failure=Failure(class_=FailureClass.TRANSIENT, message=words))
        self._blob = BlobRef(sha256=name, size=len(body))
        return outcome

    async def _parts(self, body: bytes) -> AsyncIterator[bytes]:
        """Yield a result in parts; each one that the store takes is a sign of life."""
        for at in range(0, len(body), PART):
            yield body[at : at + PART]
            self.stages.touched(self.tools.clock.monotonic(), "store")

    def _worth_keeping(self, outcome: Outcome | Cause) -> Kept | None:
        if not isinstance(outcome, Finished):
            return None
        if self._blob is not None:
            return Kept(ref=self._blob)
        return Kept(result=outcome.result) if len(bytes(outcome.result)) <= INLINE_LIMIT else None

    def progressed(self, news: Progress | Preview) -> None:
        """Take a sign of life and pass it on; a picture is none, and left out when it cannot be shown."""
        if isinstance(news, Progress):
            self.stages.touched(self.tools.clock.monotonic(), news.stage)
            self.reports.progress(self.ref, news)
        elif (judged := preview_of(news.data)) is not None:
            self.reports.preview(self.ref, judged)

    async def payload(self) -> Raw:
        """Return the payload, from the blob store where it is a reference; `HostlerError` when it is not there."""
        reference = payload_reference(self.lease.payload)
        if reference is None:
            return self.lease.payload
        if self.tools.blobs is None:
            raise HostlerError(f"the payload is blob {reference.sha256}, and this worker has no blob store")
        try:
            return Raw(b"".join([part async for part in self.tools.blobs.get(reference.sha256)]))
        except NotFoundError as error:
            raise Verdict(FailureClass.INVALID_INPUT, f"the payload is not there: {error.message}") from error

    @property
    def _beaten(self) -> bool:
        return isinstance(self.run_by, HedgedRun) and self.run_by.beaten


def _stopped(why: Cause | Failure) -> Failed | Cause:
    return Failed(failure=why) if isinstance(why, Failure) else why
