"""One attempt, from its lease to its settlement, top to bottom."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Mapping
from dataclasses import dataclass

import msgspec
import structlog
from msgspec import UNSET, Raw

from hostler.contracts.failure import Failure, FailureClass
from hostler.contracts.job import INLINE_LIMIT, BlobRef, Progress, null_json
from hostler.contracts.lease import Again, Die, Ending, Lease, LeaseRef, Settlement, Stopped, Succeed
from hostler.contracts.offer import Pool
from hostler.contracts.preview import Preview, preview_of
from hostler.contracts.queue import KindSpec
from hostler.contracts.reference import payload_reference
from hostler.contracts.result import Kept
from hostler.contracts.service import Failed, Finished
from hostler.contracts.timeouts import Timeouts
from hostler.dispatch.gauge import Gauge, Ticket
from hostler.dispatch.repeats import Repeats
from hostler.dispatch.sharing import Later, Share
from hostler.kernel.allowance import allowed
from hostler.kernel.errors import HostlerError, NotFoundError
from hostler.kernel.units import Bytes, Seconds
from hostler.policy.lanes import shun
from hostler.policy.retry import after_failure, refusals, returns
from hostler.ports.connector import Connector
from hostler.worker.call import Failed as Verdict
from hostler.worker.call import failure_of
from hostler.worker.handlers import Handler
from hostler.worker.hedges import Hedge, HedgedRun
from hostler.worker.restraint import Refrained, Restraint
from hostler.worker.runs import CANCEL_LIMIT, Cause, HandledRun, Run, ServiceRun, Tools
from hostler.worker.stages import StageWatch, complete

_LOG = structlog.stdlib.get_logger("hostler.worker.attempt")

HALT_LIMIT: Seconds = 0.9
"""How long work may take to stop after it was told to; then it is left behind, and its slot is free."""
PART: Bytes = 1_048_576
"""Bytes of a large result that are handed to the blob store at once."""
BLOB_LIMIT: Bytes = 5_368_709_120
"""Largest result that goes to the blob store, 5 GiB."""


def _losses(lease: Lease) -> int:
    """Return how many earlier attempts of this generation ended because the service had lost the work."""
    return sum(
        attempt.generation == lease.generation
        and attempt.outcome == "retry"
        and attempt.error is not None
        and attempt.error.class_ is FailureClass.LOST
        for attempt in lease.history
    )


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


Outcome = Finished | Failed | Later | Refrained


class Attempt:
    """One claim of a job. `run` returns when the attempt is over and recorded, or the lease is lost."""

    def __init__(self, lease: Lease, route: Route, tools: Tools) -> None:
        self.lease = lease
        self.ref = LeaseRef(job_id=lease.job_id, fence=lease.fence)
        self.tools = tools
        self._spec = route.spec
        self._gauge = route.gauge
        self._ticket: Ticket | None = None
        self._others = route.others
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
        self._ran = False
        self._blob: BlobRef | None = None
        self._told: asyncio.Future[Cause] = asyncio.get_running_loop().create_future()

    def begin(self) -> None:
        """Count the call at its endpoint from now on; `run` ends that."""
        if self._gauge is not None:
            self._ticket = self._gauge.begin(self._spec.name, self.lease.lane.needs.models)

    def tell(self, cause: Cause) -> None:
        """Tell the work to stop; the first word counts. The broker refuses what comes of it once the lease is lost."""
        if not self._told.done():
            self._told.set_result(cause)

    async def run(self) -> None:
        """Run, then record how it ended, progress first."""
        self.tools.reports.open(self.ref)
        try:
            outcome = await self._measured()
            elsewhere = outcome is Cause.LOST or outcome is Cause.GIVE_BACK
            await self._share.end(self._worth_keeping(outcome), goes_on=elsewhere)
            ending = await self._ending(outcome)
            if ending is None:
                return
            await self.tools.reports.flush(self.ref)
            endpoint = self.run_by.endpoint if self._ran else None
            settlement = Settlement(job_id=self.ref.job_id, fence=self.ref.fence, ending=ending, endpoint=endpoint)
            word = await self.tools.settler.settle(settlement)
        finally:
            self._share.close()
            self.tools.reports.close(self.ref)
        if word is not None and word.accepted:
            if self.run_by.endpoint is not None and not isinstance(ending, Again):
                await self._bounded(self.run_by.release())
        else:
            _LOG.warning("an ending was not accepted", job=self.ref.job_id, fence=self.ref.fence, word=word)

    async def _measured(self) -> Outcome | Cause:
        """Let the work run, and let its endpoint's gauge know how it ended."""
        failure: Failure | None = None
        told = True
        try:
            outcome = await self._watched()
            told = isinstance(outcome, Cause | Refrained) or not self._ran or self._beaten
            failure = outcome.failure if isinstance(outcome, Failed) else None
        finally:
            if self._gauge is not None and self._ticket is not None:
                self._gauge.end(self._ticket, failure, told=told)
        return outcome

    async def _watched(self) -> Outcome | Cause:
        """Let the work run until it ends, is told to stop, or a stage takes too long."""
        clock = self.tools.clock
        work = asyncio.create_task(self._work(), name=f"work {self.ref.job_id}")
        try:
            while True:
                first = self.stages.next()
                wait = None if first is None else max(0.0, first[0] - clock.monotonic())
                await asyncio.wait({work, self._told}, timeout=wait, return_when=asyncio.FIRST_COMPLETED)
                if work.done():
                    return _outcome(work, self.stages.nearly_over(clock.monotonic()))
                if self._told.done():
                    await self._halt(work, self._told.result())
                    return self._told.result()
                if (failure := self.stages.late(clock.monotonic())) is not None:
                    await self._halt(work, None)
                    return Failed(failure=failure)
        finally:
            work.cancel()

    async def _halt(self, work: asyncio.Task[Outcome], cause: Cause | None) -> None:
        """Stop the work here and, as far as it is ours, at the service; leave behind what does not stop."""
        work.cancel()
        await asyncio.gather(
            asyncio.wait({work}, timeout=HALT_LIMIT),
            self._bounded(self.run_by.stop(cause)),
        )
        if not work.done():
            _LOG.error("work does not stop and is left behind", job=self.ref.job_id, kind=self.lease.kind)

    async def _bounded(self, what: Awaitable[None]) -> None:
        try:
            async with asyncio.timeout(CANCEL_LIMIT):
                await what
        except TimeoutError:
            _LOG.warning("the service did not confirm in time", job=self.ref.job_id, endpoint=self.run_by.endpoint)
        except Exception:  # noqa: BLE001 - a connector's defect while stopping must not keep the end from being recorded
            _LOG.exception("stopping raised", job=self.ref.job_id, endpoint=self.run_by.endpoint)

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
            self.tools.reports.progress(self.ref, news)
        elif (judged := preview_of(news.data)) is not None:
            self.tools.reports.preview(self.ref, judged)

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

    async def _ending(self, outcome: Outcome | Cause) -> Ending | None:
        match outcome:
            case Cause.LOST:
                _LOG.warning("lease lost, work dropped", job=self.ref.job_id, fence=self.ref.fence)
                return None
            case Cause.CANCEL:
                return Stopped()
            case Cause.GIVE_BACK | Later():
                seconds = outcome.seconds if isinstance(outcome, Later) else 0.0
                return Again(failure=None, delay=seconds, counted=False)
            case Refrained():
                return await self._put_off(outcome)
            case Finished(result=result):
                return self._success(result)
            case Failed(failure=failure):
                return await self._after(failure)

    async def _after(self, failure: Failure) -> Ending:
        lease, tools = self.lease, self.tools
        ending = after_failure(
            failure,
            policy=msgspec.structs.replace(self._spec.retry, attempts=lease.attempts_max),
            attempts_used=lease.attempts_used,
            overloads=lease.overloads,
            dice=tools.dice.roll,
            others_fit=self._others or await tools.others_fit(lease.lane),
            lane=lease.lane,
            worker=self._blamed,
            losses=_losses(lease),
            came_back=returns(lease, self._blamed),
            refused=refusals(lease),
        )
        return ending if self._restraint is None else self._restraint.slowed(ending)

    async def _put_off(self, refrained: Refrained) -> Again:
        """Send the job back that was not begun: at once where another endpoint may do better, else when it is said."""
        if refrained.elsewhere and (self._others or await self.tools.others_fit(self.lease.lane)):
            return Again(failure=refrained.failure, counted=False, lane=shun(self.lease.lane, self._blamed))
        return Again(failure=refrained.failure, counted=False, delay=refrained.again_in)

    @property
    def _beaten(self) -> bool:
        return isinstance(self.run_by, HedgedRun) and self.run_by.beaten

    @property
    def _blamed(self) -> str:
        return (self._others and self.run_by.endpoint) or self.tools.worker

    def _success(self, result: Raw) -> Ending:
        if self._blob is not None:
            return Succeed(ref=self._blob)
        size = len(bytes(result))
        if size <= INLINE_LIMIT:
            return Succeed(result=result)
        words = f"a result of {size} bytes is over {INLINE_LIMIT}, and this worker has no blob store for it"
        return Die(failure=Failure(class_=FailureClass.INTERNAL, message=words))


def _outcome(work: asyncio.Task[Outcome], over: Failure | None) -> Outcome:
    """Return how the work ended; an exception is a defect and becomes `internal`.

    `over` is the limit that is about to end it, if one is: a service that was told of it may end the work just before.
    """
    if work.cancelled():
        return Failed(failure=Failure(class_=FailureClass.INTERNAL, message="the work cancelled itself"))
    error = work.exception()
    if error is not None:
        return Failed(failure=failure_of(error))
    outcome = work.result()
    if over is not None and isinstance(outcome, Failed) and outcome.failure.class_ is FailureClass.CANCELLED:
        return Failed(failure=over)
    return outcome
