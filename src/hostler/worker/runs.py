"""How an attempt does its work: on a service, or in a handler."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Protocol

import structlog
from msgspec import Raw

from hostler.contracts.fence import attempt_of
from hostler.contracts.job import Progress
from hostler.contracts.lease import Lease, LeaseRef
from hostler.contracts.needs import Lane
from hostler.contracts.preview import Preview
from hostler.contracts.service import Failed, Finished, RemoteRef, RemoteState, ServiceCall
from hostler.contracts.timeouts import Timeouts
from hostler.kernel.units import Seconds
from hostler.ports.blobs import Blobs
from hostler.ports.clock import Clock, Dice
from hostler.ports.connector import Connector
from hostler.ports.results import Results
from hostler.worker.call import CallFacts
from hostler.worker.handlers import Handler
from hostler.worker.handling import HandlerRun, LoopOutlet
from hostler.worker.processes import ProcessPool
from hostler.worker.reports import Reporters, Reports
from hostler.worker.restraint import Refrained, Restraint
from hostler.worker.settler import Settlers
from hostler.worker.stages import StageWatch

_LOG = structlog.stdlib.get_logger("hostler.worker.attempt")

CANCEL_LIMIT: Seconds = 5.0
"""How long a service may take to confirm that it stopped."""
STORE_PATIENCE: Seconds = 2.0
"""How long following a service's work waits for its id to be stored, while the engine does not answer."""


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
    reporters: Reporters
    settlers: Settlers
    processes: ProcessPool
    blobs: Blobs | None
    clock: Clock
    dice: Dice
    others_fit: Callable[[Lane], Awaitable[bool]]
    """Whether another live worker serves a lane."""
    results: Results | None = None
    """Results that are kept for equal jobs, where there are any."""


class Errand(Protocol):
    """An attempt as those see it who do its work."""

    lease: Lease
    ref: LeaseRef
    tools: Tools
    reports: Reports
    timeouts: Timeouts
    stages: StageWatch

    async def payload(self) -> Raw:
        """Return the payload; `HostlerError` when it is not there."""
        ...

    def progressed(self, news: Progress | Preview) -> None:
        """Take a sign of life, or a picture, which is none."""
        ...


class Run(Protocol):
    """One way to run an attempt."""

    @property
    def endpoint(self) -> str | None:
        """Return the endpoint that it runs on, if any."""
        ...

    async def run(self, attempt: Errand) -> Finished | Failed | Refrained:
        """Do the work; cancelling stops waiting for it."""
        ...

    def interrupt(self) -> bool:
        """End `run` as soon as may be, and return True; False when it may be cancelled now, which the caller does."""
        ...

    async def stop(self, cause: Cause | None) -> None:
        """Stop what goes on elsewhere, as far as it is ours; None is a timeout. Bounded by the caller."""
        ...

    async def release(self) -> None:
        """Let whoever ran it forget it, after its end is recorded."""
        ...


class ServiceRun:
    """Runs an attempt on a service: reconcile, submit, store the service's id, follow.

    Without `restraint` it is a second call beside the attempt's own, which no other attempt is to know of.
    """

    def __init__(self, connector: Connector, restraint: Restraint | None) -> None:
        self._connector = connector
        self._restraint = restraint
        self._remote: RemoteRef | None = None
        self._submitting = self._interrupted = False
        self._submitted: asyncio.Future[None] | None = None
        """Done when the service has answered a submit that somebody waits for."""
        self._stored = False

    @property
    def endpoint(self) -> str | None:
        """Return the endpoint's id."""
        return self._connector.endpoint

    async def run(self, attempt: Errand) -> Finished | Failed | Refrained:
        """Return the service's result or failure; work that an earlier attempt began is picked up, not repeated."""
        outcome = await self._run(attempt)
        if isinstance(outcome, Finished) and self._restraint is not None:
            (self._restraint.unsent if outcome.kept else self._restraint.went_well)()
        return outcome

    async def _run(self, attempt: Errand) -> Finished | Failed | Refrained:
        lease, clock = attempt.lease, attempt.tools.clock
        left = attempt.stages.to_deadline(clock.monotonic())
        call = ServiceCall(
            job_id=lease.job_id,
            fence=lease.fence,
            tenant=lease.tenant,
            models=lease.lane.needs.models,
            kind=lease.kind,
            payload=await attempt.payload(),
            timeouts=attempt.timeouts,
            deadline=None if left is None else clock.now() + timedelta(seconds=left),  # the engine's clock may differ
            history=tuple(each.error for each in lease.history if each.error is not None),
            beside=self._restraint is None,
        )
        earlier = None if self._restraint is None else await self._earlier(attempt)
        if isinstance(earlier, Finished):
            return earlier
        if earlier is None:
            left = attempt.stages.to_deadline(clock.monotonic())
            refrained = None if self._restraint is None else self._restraint.judge(left)
            if refrained is not None:
                return refrained
            attempt.stages.connecting(clock.monotonic())
            answer = await self._submit(call)
            if isinstance(answer, Finished | Failed):
                if isinstance(answer, Failed) and answer.failure.unsent and self._restraint is not None:
                    self._restraint.unsent()
                return answer
            if answer.heritable and self._restraint is not None:
                await self._store(attempt, answer)
            earlier = answer
        attempt.stages.submitted(clock.monotonic())
        async with aclosing(self._connector.observe(call, earlier)) as steps:
            async for step in steps:
                if isinstance(step, Finished | Failed):
                    return step
                attempt.progressed(step)
        raise TypeError(f"{self._connector.name}.observe ended without an outcome")

    async def _submit(self, call: ServiceCall) -> RemoteRef | Finished | Failed:
        """Hand the work over; who stops it meanwhile waits for the answer, to know what became of it."""
        self._submitting = True
        try:
            answer = await self._connector.submit(call)
            if isinstance(answer, RemoteRef):
                self._remote = answer
        finally:
            self._submitting = False
            if self._submitted is not None and not self._submitted.done():
                self._submitted.set_result(None)
        if self._interrupted:
            raise asyncio.CancelledError
        if isinstance(answer, Progress | Preview):
            raise TypeError(f"{self._connector.name}.submit returned progress, no reference and no end")
        return answer

    async def _earlier(self, attempt: Errand) -> RemoteRef | Finished | None:
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

    async def _store(self, attempt: Errand, ref: RemoteRef) -> None:
        """Store the service's id before waiting for its work; an engine that is away is not waited for for long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(STORE_PATIENCE):  # what was said is sent all the same, only nobody waits for it
                await attempt.reports.remote(attempt.ref, ref.id, self._connector.endpoint)
        self._stored = True  # from now on another attempt may know of it

    def interrupt(self) -> bool:
        """End after the submit that is under way, if one is: the service may have taken the work."""
        self._interrupted = True
        return self._submitting

    async def stop(self, cause: Cause | None) -> None:
        """Cancel the remote work after a cancel or timeout.

        When the lease is lost or given back, work whose id is stored goes on: the next attempt asks for it.
        What nobody else can know of is cancelled: a submit that is under way is waited for, since the service
        may have taken the work.
        """
        if self._submitting:
            self._submitted = self._submitted or asyncio.get_running_loop().create_future()
            await asyncio.shield(self._submitted)
        if self._remote is None or (cause in {Cause.LOST, Cause.GIVE_BACK} and self._stored):
            return
        if not await self._connector.cancel(self._remote):
            _LOG.warning("the service did not confirm the cancel", job=self._remote.job_id, endpoint=self.endpoint)

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

    async def run(self, attempt: Errand) -> Finished | Failed:
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
        outlet = LoopOutlet(attempt.progressed, lambda value: attempt.reports.checkpoint(attempt.ref, value))
        payload = await attempt.payload()
        return await HandlerRun(self._handler, payload, facts, outlet, attempt.tools.processes).run()

    def interrupt(self) -> bool:
        """Return False: a handler is cancelled."""
        return False

    async def stop(self, cause: Cause | None) -> None:
        """Do nothing: cancelling `run` has stopped it."""

    async def release(self) -> None:
        """Do nothing."""
