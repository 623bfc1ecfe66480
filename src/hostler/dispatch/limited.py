"""A connector whose calls keep to limits that all processes share."""

import asyncio
import re
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import Final, Self

from hostler.contracts.failure import Failure, FailureClass
from hostler.contracts.limit import Grant, Limit, LimitKind, Want
from hostler.contracts.queue import KindSpec
from hostler.contracts.service import Failed, Probe, RemoteRef, RemoteState, ServiceCall, ServiceCapabilities, Step
from hostler.kernel.errors import EngineError, InvalidError
from hostler.kernel.units import Seconds
from hostler.policy.limits import parse
from hostler.ports.connector import Connector
from hostler.ports.limiter import Limiter

PATIENCE: Final[Seconds] = 1.0
"""How long a call waits for its turn where it is; who has to wait longer goes back to its queue."""
UNASKED: Final[Seconds] = 1.0
"""When a call comes back whose limits could not be asked for, since the engine did not answer."""
_LEAST: Final[Seconds] = 0.001
_HEARD: Final = frozenset({FailureClass.OVERLOADED, FailureClass.QUOTA})


class Limited:
    """Hands every call on, but takes of the limits before work is handed over; implements `ports.connector.Connector`.

    Work that gets no turn within `PATIENCE` fails as `overloaded` with the time to come back, and never reaches the
    service. When the service itself names such a time, all processes keep to it. `InvalidError` for a text that is no
    limit, or is one of an amount or of calls in flight: of these a connector does not say what a call takes, or how
    long.
    """

    def __init__(self, connector: Connector, limiter: Limiter, limits: Sequence[str]) -> None:
        self.name = connector.name
        self.service = connector.service
        self.endpoint = connector.endpoint
        self._connector = connector
        self._limiter = limiter
        self._wants = tuple(Want(limit=rate(text, connector.endpoint)) for text in limits)

    async def __aenter__(self) -> Self:
        await self._connector.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
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
        """Hand the work over once every limit grants it."""
        refused = await self._refused(call)
        if refused is not None:
            return Failed(failure=refused)
        answer = await self._connector.submit(call)
        if isinstance(answer, Failed):
            await self._heed(answer.failure)
        return answer

    async def observe(self, call: ServiceCall, ref: RemoteRef) -> AsyncGenerator[Step]:
        """Follow the work, and let all hear of it when the service says that it has no room."""
        async with aclosing(self._connector.observe(call, ref)) as steps:
            async for step in steps:
                if isinstance(step, Failed):
                    await self._heed(step.failure)
                yield step

    async def reconcile(self, ref: RemoteRef) -> RemoteState:
        """Ask the service about its own job."""
        return await self._connector.reconcile(ref)

    async def fetch(self, ref: RemoteRef) -> Step:
        """Return how the work ended."""
        return await self._connector.fetch(ref)

    async def cancel(self, ref: RemoteRef) -> bool:
        """Stop the work; no limit keeps anybody from that."""
        return await self._connector.cancel(ref)

    async def release(self, ref: RemoteRef) -> None:
        """Forget the work."""
        await self._connector.release(ref)

    async def _refused(self, call: ServiceCall) -> Failure | None:
        left = PATIENCE
        while True:
            try:
                answer = await self._limiter.take(call.job_id, self._wants)
            except EngineError as error:
                words = f"the limits of {self.endpoint} cannot be asked for: {error.message}"
                return _ours(words, UNASKED)
            if isinstance(answer, Grant):
                return None
            pause = max(answer.after, _LEAST)
            if pause > left:
                words = f"limit {answer.limit} is used up for {answer.after:.2f} s"
                return _ours(words, answer.after)
            left -= pause
            await asyncio.sleep(pause)

    async def _heed(self, failure: Failure) -> None:
        if failure.class_ in _HEARD and failure.retry_after is not None:
            try:
                await self._limiter.hold(self._wants[0].limit.name, failure.retry_after)
            except EngineError:
                return  # the endpoint's own gauge cools all the same


def rate(text: str, endpoint: str) -> Limit:
    """Return a limit of one endpoint; whoever writes the same for it shares it."""
    limit = parse(text, name=re.sub(r"[\s{}]", "_", f"{endpoint[:150]}|{text}")[:200])
    if limit.kind is not LimitKind.RATE:
        raise InvalidError(f"{text!r}: an endpoint's limit is of calls in a time, like 3/s", field="limits")
    return limit


def _ours(words: str, after: Seconds) -> Failure:
    """Return a refusal that the service has no part in: `unsent` says that the call never left."""
    return Failure(class_=FailureClass.OVERLOADED, message=words, retry_after=after, details={"unsent": True})
