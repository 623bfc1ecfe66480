"""One attempt, from its lease to its settlement, top to bottom."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import msgspec
import structlog
from msgspec import UNSET, Raw

from hostler.contracts.failure import Failure, FailureClass
from hostler.contracts.fence import attempt_of
from hostler.contracts.job import INLINE_LIMIT, BlobRef, Progress, null_json
from hostler.contracts.lease import Again, Die, Ending, Lease, LeaseRef, Settlement, Stopped, Succeed
from hostler.contracts.needs import Lane
from hostler.contracts.offer import Pool
from hostler.contracts.queue import KindSpec
from hostler.contracts.reference import payload_reference
from hostler.contracts.result import Kept
from hostler.contracts.service import Failed, Finished, RemoteRef, RemoteState, ServiceCall, Step
from hostler.contracts.timeouts import Timeouts
from hostler.dispatch.gauge import Gauge, Ticket
from hostler.dispatch.sharing import Later, Share
from hostler.kernel.errors import HostlerError, NotFoundError
from hostler.kernel.units import Bytes, Seconds
from hostler.policy.retry import after_failure, returns
from hostler.ports.blobs import Blobs
from hostler.ports.clock import Clock, Dice
from hostler.ports.connector import Connector
from hostler.ports.results import Results
from hostler.worker.call import CallFacts, failure_of
from hostler.worker.call import Failed as Verdict
from hostler.worker.handlers import Handler
from hostler.worker.handling import HandlerRun, LoopOutlet
from hostler.worker.processes import ProcessPool
from hostler.worker.reports import Reports
from hostler.worker.settler import Settler
from hostler.worker.stages import StageWatch, complete

_LOG = structlog.stdlib.get_logger("hostler.worker.attempt")

HALT_LIMIT: Seconds = 0.9
"""How long work may take to stop after it was told to; then it is left behind, and its slot is free."""
CANCEL_LIMIT: Seconds = 5.0
"""How long a service may take to confirm that it stopped."""
STORE_PATIENCE: Seconds = 2.0
"""How long following a service's work waits for its id to be stored, while the engine does not answer."""
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


class Cause(StrEnum):
    """Why running work is told to stop."""

    LOST = "lost"
    """The lease is no longer ours: nothing is recorded."""
    CANCEL = "cancel"
    """Somebody asked for it; it is acknowledged."""
    GIVE_BACK = "give_back"
    """The worker drains: another one goes on, no attempt is used."""


@dataclass(frozen=True, kw_only=True)
class Tools:
    """What all attempts of a worker share."""

    worker: str
    reports: Reports
    settler: Settler
    processes: ProcessPool
    blobs: Blobs | None
    clock: Clock
    dice: Dice
    others_fit: Callable[[Lane], Awaitable[bool]]
    """Whether another live worker serves a lane."""
    results: Results | None = None
    """Results that are kept for equal jobs, where there are any."""


@dataclass(frozen=True, kw_only=True)
class Route:
    """What a claimed job is run by: a connector or a handler, and the kind's row as that declares it."""

    spec: KindSpec
    by: Connector | Handler
    pools: Mapping[str, Pool]
    """Amounts of the endpoint that the job takes from."""
    gauge: Gauge | None = None
    """What counts the calls of the endpoint."""
    others: bool = False
    """Whether another endpoint of this worker could run it: then a failure is the endpoint's, not the worker's."""


class Run(Protocol):
    """One way to run an attempt."""

    @property
    def endpoint(self) -> str | None:
        """Return the endpoint that it runs on, if any."""
        ...

    async def run(self, attempt: "Attempt") -> Finished | Failed:
        """Do the work; cancelling stops waiting for it."""
        ...

    async def stop(self, cause: Cause | None) -> None:
        """Stop what goes on elsewhere, as far as it is ours; None is a timeout. Bounded by the caller."""
        ...

    async def release(self) -> None:
        """Let whoever ran it forget it, after its end is recorded."""
        ...


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
        self.run_by: Run = HandledRun(route.by) if isinstance(route.by, Handler) else ServiceRun(route.by)
        self._share = Share(lease, route.spec.cache, tools.results, tools.blobs)
        self._ran = False
        self._blob: BlobRef | None = None
        self._told: asyncio.Future[Cause] = asyncio.get_running_loop().create_future()

    def begin(self) -> None:
        """Count the call at its endpoint from now on; `run` ends that."""
        if self._gauge is not None:
            self._ticket = self._gauge.begin(self._spec.name)

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

    async def _measured(self) -> Finished | Failed | Later | Cause:
        """Let the work run, and let its endpoint's gauge know how it ended."""
        failure: Failure | None = None
        told = True
        try:
            outcome = await self._watched()
            told = isinstance(outcome, Cause) or not self._ran
            failure = outcome.failure if isinstance(outcome, Failed) else None
        finally:
            if self._gauge is not None and self._ticket is not None:
                self._gauge.end(self._ticket, failure, told=told)
        return outcome

    async def _watched(self) -> Finished | Failed | Later | Cause:
        """Let the work run until it ends, is told to stop, or a stage takes too long."""
        clock = self.tools.clock
        work = asyncio.create_task(self._work(), name=f"work {self.ref.job_id}")
        try:
            while True:
                first = self.stages.next()
                wait = None if first is None else max(0.0, first[0] - clock.monotonic())
                await asyncio.wait({work, self._told}, timeout=wait, return_when=asyncio.FIRST_COMPLETED)
                if work.done():
                    return _outcome(work)
                if self._told.done():
                    await self._halt(work, self._told.result())
                    return self._told.result()
                if (failure := self.stages.late(clock.monotonic())) is not None:
                    await self._halt(work, None)
                    return Failed(failure=failure)
        finally:
            work.cancel()

    async def _halt(self, work: asyncio.Task[Finished | Failed | Later], cause: Cause | None) -> None:
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

    async def _work(self) -> Finished | Failed | Later:
        answer = await self._share.ask()
        if isinstance(answer, Kept):
            self._blob = answer.ref
            return Finished(result=null_json() if answer.result is UNSET else answer.result)
        if answer is not None:
            return answer
        self._ran = True
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

    def _worth_keeping(self, outcome: Finished | Failed | Later | Cause) -> Kept | None:
        if not isinstance(outcome, Finished):
            return None
        if self._blob is not None:
            return Kept(ref=self._blob)
        return Kept(result=outcome.result) if len(bytes(outcome.result)) <= INLINE_LIMIT else None

    def progressed(self, progress: Progress) -> None:
        """Take a sign of life and pass it on."""
        self.stages.touched(self.tools.clock.monotonic(), progress.stage)
        self.tools.reports.progress(self.ref, progress)

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

    async def _ending(self, outcome: Finished | Failed | Later | Cause) -> Ending | None:
        match outcome:
            case Cause.LOST:
                _LOG.warning("lease lost, work dropped", job=self.ref.job_id, fence=self.ref.fence)
                return None
            case Cause.CANCEL:
                return Stopped()
            case Cause.GIVE_BACK:
                return Again(failure=None, counted=False)
            case Later(seconds=seconds):
                return Again(failure=None, delay=seconds, counted=False)
            case Finished(result=result):
                return self._success(result)
            case Failed(failure=failure):
                lease, tools = self.lease, self.tools
                blamed = (self._others and self.run_by.endpoint) or tools.worker
                return after_failure(
                    failure,
                    policy=msgspec.structs.replace(self._spec.retry, attempts=lease.attempts_max),
                    attempts_used=lease.attempts_used,
                    overloads=lease.overloads,
                    dice=tools.dice.roll,
                    others_fit=self._others or await tools.others_fit(lease.lane),
                    lane=lease.lane,
                    worker=blamed,
                    losses=_losses(lease),
                    came_back=returns(lease, blamed),
                )

    def _success(self, result: Raw) -> Ending:
        if self._blob is not None:
            return Succeed(ref=self._blob)
        size = len(bytes(result))
        if size <= INLINE_LIMIT:
            return Succeed(result=result)
        words = f"a result of {size} bytes is over {INLINE_LIMIT}, and this worker has no blob store for it"
        return Die(failure=Failure(class_=FailureClass.INTERNAL, message=words))


class ServiceRun:
    """Runs an attempt on a service: reconcile, submit, store the service's id, follow."""

    def __init__(self, connector: Connector) -> None:
        self._connector = connector
        self._submitting: asyncio.Task[RemoteRef | Step] | None = None
        self._remote: RemoteRef | None = None
        self._stored = False

    @property
    def endpoint(self) -> str | None:
        """Return the endpoint's id."""
        return self._connector.endpoint

    async def run(self, attempt: Attempt) -> Finished | Failed:
        """Return the service's result or failure; work that an earlier attempt began is picked up, not repeated."""
        lease = attempt.lease
        call = ServiceCall(
            job_id=lease.job_id,
            fence=lease.fence,
            kind=lease.kind,
            payload=await attempt.payload(),
            timeouts=attempt.timeouts,
            deadline=lease.deadline,
            history=tuple(each.error for each in lease.history if each.error is not None),
        )
        earlier = await self._earlier(attempt)
        if isinstance(earlier, Finished):
            return earlier
        if earlier is None:
            attempt.stages.connecting(attempt.tools.clock.monotonic())
            self._submitting = asyncio.create_task(self._connector.submit(call), name=f"submit {lease.job_id}")
            answer = await asyncio.shield(self._submitting)  # who stops the work has to know what became of it
            if isinstance(answer, Finished | Failed):
                return answer
            if isinstance(answer, Progress):
                raise TypeError(f"{self._connector.name}.submit returned progress, no reference and no end")
            self._remote = answer
            if answer.heritable:
                await self._store(attempt, answer)
            earlier = answer
        attempt.stages.submitted(attempt.tools.clock.monotonic())
        async for step in self._connector.observe(call, earlier):
            if isinstance(step, Finished | Failed):
                return step
            attempt.progressed(step)
        raise TypeError(f"{self._connector.name}.observe ended without an outcome")

    async def _earlier(self, attempt: Attempt) -> RemoteRef | Finished | None:
        """Ask the service about work that an earlier attempt handed over; None when it has to run (again).

        Only its own endpoint can know: on another one the work runs again.
        """
        lease = attempt.lease
        if lease.remote is None or lease.remote_endpoint not in (None, self._connector.endpoint):
            return None
        ref = RemoteRef(id=lease.remote, job_id=lease.job_id, fence=lease.fence)
        self._remote, self._stored = ref, True
        state = await self._connector.reconcile(ref)
        _LOG.info("reconciled", job=lease.job_id, remote=lease.remote, state=state.value)
        match state:
            case RemoteState.PENDING | RemoteState.RUNNING:
                return ref
            case RemoteState.SUCCEEDED:
                step = await self._connector.fetch(ref)
                if isinstance(step, Finished):
                    return step
            case RemoteState.FAILED | RemoteState.CANCELLED | RemoteState.LOST | RemoteState.UNKNOWN:
                pass
        self._remote = None
        return None

    async def _store(self, attempt: Attempt, ref: RemoteRef) -> None:
        """Store the service's id before waiting for its work; an engine that is away is not waited for for long."""
        storing = asyncio.ensure_future(attempt.tools.reports.remote(attempt.ref, ref.id, self._connector.endpoint))
        await asyncio.wait({storing}, timeout=STORE_PATIENCE)
        self._stored = True  # from now on another attempt may know of it

    async def stop(self, cause: Cause | None) -> None:
        """Cancel the remote work after a cancel or timeout.

        When the lease is lost or given back, work whose id is stored goes on: the next attempt asks for it.
        What nobody else can know of is cancelled: a submit that is under way is waited for, since the service
        may have taken the work.
        """
        if self._remote is None and self._submitting is not None:
            self._remote = await self._submitted(self._submitting)
        if self._remote is None or (cause in {Cause.LOST, Cause.GIVE_BACK} and self._stored):
            return
        if not await self._connector.cancel(self._remote):
            _LOG.warning("the service did not confirm the cancel", job=self._remote.job_id, endpoint=self.endpoint)

    async def _submitted(self, submitting: asyncio.Task[RemoteRef | Step]) -> RemoteRef | None:
        try:
            answer = await submitting
        except Exception:  # noqa: BLE001 - a submit that broke left nothing that could be stopped
            return None
        return answer if isinstance(answer, RemoteRef) else None

    async def release(self) -> None:
        """Let the service forget the work."""
        if self._remote is not None:
            await self._connector.release(self._remote)


class HandledRun:
    """Runs an attempt in a handler."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler

    @property
    def endpoint(self) -> str | None:
        """Return None: no service has part in it."""
        return None

    async def run(self, attempt: Attempt) -> Finished | Failed:
        """Return the handler's result or failure."""
        lease = attempt.lease
        facts = CallFacts(
            job_id=lease.job_id,
            kind=lease.kind,
            attempt=attempt_of(lease.fence),
            fence=lease.fence,
            history=lease.history,
            deadline=lease.deadline,
            checkpoint=lease.checkpoint or None,
        )
        outlet = LoopOutlet(attempt.progressed, lambda value: attempt.tools.reports.checkpoint(attempt.ref, value))
        payload = await attempt.payload()
        return await HandlerRun(self._handler, payload, facts, outlet, attempt.tools.processes).run()

    async def stop(self, cause: Cause | None) -> None:
        """Do nothing: cancelling `run` has stopped it."""

    async def release(self) -> None:
        """Do nothing."""


def _outcome(work: asyncio.Task[Finished | Failed | Later]) -> Finished | Failed | Later:
    """Return how the work ended; an exception is a defect and becomes `internal`."""
    if work.cancelled():
        return Failed(failure=Failure(class_=FailureClass.INTERNAL, message="the work cancelled itself"))
    error = work.exception()
    return work.result() if error is None else Failed(failure=failure_of(error))
