"""A connector whose calls keep to limits that all processes share."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import Final, Protocol, Self, runtime_checkable

from hostler.contracts.failure import Failure, FailureClass
from hostler.contracts.limit import Want
from hostler.contracts.queue import KindSpec
from hostler.contracts.service import (
    Failed,
    Finished,
    Probe,
    RemoteRef,
    RemoteState,
    ServiceCall,
    ServiceCapabilities,
    Step,
)
from hostler.dispatch.hints import Hints
from hostler.dispatch.turns import LEASE, PATIENCE, Turns
from hostler.kernel.units import Seconds
from hostler.policy.limits import gate
from hostler.ports.connector import Connector
from hostler.ports.limiter import Limiter

_HEARD: Final = frozenset({FailureClass.OVERLOADED, FailureClass.QUOTA})


class Purse(Protocol):
    """Says what calls take of which limits: `dispatch.account.Account` for those of an entry."""

    def wants(self, call: ServiceCall) -> tuple[tuple[Want, bool], ...]:
        """Return what a call takes, and of each whether others may have room where it has none."""
        ...

    def used(self, call: ServiceCall, wants: Sequence[Want], ended: Finished | Failed) -> Mapping[str, int]:
        """Return what a call took, by a limit's name, as far as it is known."""
        ...


@runtime_checkable
class Remembering(Protocol):
    """A connector that keeps answers which its service allows to be given again; its `submit` gives them too."""

    def remembered(self, call: ServiceCall) -> Finished | None:
        """Return the result of a call for which the service need not be asked now; never raises, never waits."""
        ...


class Limited:
    """Hands every call on, but takes of the limits before work is handed over; implements `ports.connector.Connector`.

    Work that gets no turn within `patience` fails as `overloaded` with the time to come back, and never reaches the
    service; `Failure.unsent` tells. What the service itself says about its limits (`hints`: 429, headers) holds for
    all processes. While there is no limit and nothing was said, the engine is not asked. What a call holds is leased
    for `lease` seconds, and renewed while its work is followed.
    """

    def __init__(
        self,
        connector: Connector,
        limiter: Limiter,
        purse: Purse,
        *,
        hints: Hints | None = None,
        patience: Seconds = PATIENCE,
        lease: Seconds = LEASE,
    ) -> None:
        self.name = connector.name
        self.service = connector.service
        self.endpoint = connector.endpoint
        self._connector = connector
        self._purse = purse
        self._turns = Turns(limiter, connector.endpoint, patience=patience, lease=lease)
        self._hints = hints or Hints(limiter)
        self._gate = Want(limit=gate(connector.endpoint), units=0)
        self._hints.gate = self._gate.limit.name

    async def __aenter__(self) -> Self:
        await self._connector.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._turns.close()
        self._hints.close()
        await self._connector.__aexit__(kind, value, trace)

    def kinds(self) -> tuple[KindSpec, ...]:
        """Return the connector's kinds."""
        return self._connector.kinds()

    async def probe(self) -> Probe:
        """Look at the endpoint; no limit counts that."""
        return await self._connector.probe()

    async def capabilities(self) -> ServiceCapabilities:
        """Ask the endpoint what it has; no limit counts that."""
        return await self._connector.capabilities()

    async def submit(self, call: ServiceCall) -> RemoteRef | Step:
        """Hand the work over once every limit grants it; what the service need not be asked for takes of none."""
        known = self._connector.remembered(call) if isinstance(self._connector, Remembering) else None
        if known is not None:
            return known
        refused = await self._refused(call)
        if refused is not None:
            return Failed(failure=refused)
        answer = await self._connector.submit(call)
        if isinstance(answer, Finished | Failed):
            await self._ended(call.job_id, call.fence, answer)
        return answer

    async def observe(self, call: ServiceCall, ref: RemoteRef) -> AsyncGenerator[Step]:
        """Follow the work and keep its turn meanwhile; let all hear of it when the service says that it has no room."""
        turn = self._turns.of(call.job_id, call.fence)
        if turn is None and (wants := [want for want, _ in self._purse.wants(call)]):
            await self._turns.resume(call, wants)
            turn = self._turns.of(call.job_id, call.fence)
        if turn is not None:
            turn.followed = True
        try:
            async with aclosing(self._connector.observe(call, ref)) as steps:
                async for step in steps:
                    if isinstance(step, Finished | Failed):
                        await self._ended(call.job_id, call.fence, step)
                    yield step
        finally:
            if turn is not None:
                self._turns.leave(turn)

    async def reconcile(self, ref: RemoteRef) -> RemoteState:
        """Ask the service about its own job."""
        return await self._connector.reconcile(ref)

    async def fetch(self, ref: RemoteRef) -> Step:
        """Return how the work ended."""
        return await self._connector.fetch(ref)

    async def cancel(self, ref: RemoteRef) -> bool:
        """Stop the work; no limit keeps anybody from that. Its turn is free once the service says that it stopped."""
        stopped = await self._connector.cancel(ref)
        turn = self._turns.of(ref.job_id, ref.fence)
        if stopped and turn is not None:
            await self._turns.end(turn, {})
        return stopped

    async def release(self, ref: RemoteRef) -> None:
        """Forget the work."""
        await self._connector.release(ref)

    async def _refused(self, call: ServiceCall) -> Failure | None:
        found = self._purse.wants(call)
        wants = [want for want, _ in found]
        if wants or self._hints.holds:
            wants.append(self._gate)
        if not wants:
            return None
        return await self._turns.take(call, wants, frozenset(want.limit.name for want, narrow in found if narrow))

    async def _ended(self, job: str, fence: int, step: Finished | Failed) -> None:
        if isinstance(step, Failed) and step.failure.class_ in _HEARD and not step.failure.unsent:
            await self._hints.tell(step.failure.retry_after or 0.0)
        turn = self._turns.of(job, fence)
        if turn is not None:
            await self._turns.end(turn, self._purse.used(turn.call, turn.leased, step))
