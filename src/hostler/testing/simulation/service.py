"""The simulated service behind a path, and a connector that asks it for news: no socket, the same rules of fences."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from inspect import iscoroutine
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import msgspec
from msgspec import Raw

from hostler.connectors.config import ConnectorConfig
from hostler.connectors.faults import ServiceFaultError, fault
from hostler.connectors.health import probe_failure, service_unavailable
from hostler.connectors.services.simulation.messages import CapabilitiesView, HealthView, RunEnd, RunView
from hostler.connectors.services.simulation.terms import ALIVE, CODES, kinds_of
from hostler.connectors.services.simulation.views import capabilities_of, end_of, probe_of, signal_of, submission_of
from hostler.contracts.failure import FailureClass
from hostler.contracts.queue import KindSpec, RetryPolicy
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
from hostler.kernel.units import Seconds
from hostler.testing.sims.desk import SimulatedDesk
from hostler.testing.sims.knobs import SimKnobs
from hostler.testing.sims.work import RequestRefusedError
from hostler.testing.simulation.network import NoAnswerError, Path, RefusedError

T = TypeVar("T")

POLL: Final[Seconds] = 0.5
LIMIT: Final[Seconds] = 2.0
STRIKES: Final = 5
"""Questions in a row without an answer after which the way to the service has failed."""
KINDS: Final = kinds_of("simulation-http")
_ENDED: Final = frozenset({RemoteState.SUCCEEDED, RemoteState.FAILED, RemoteState.CANCELLED, RemoteState.LOST})


class Service:
    """One simulated service, which may be started anew and then knows nothing of before."""

    def __init__(self, knobs: SimKnobs, *, attempts: int) -> None:
        retry = RetryPolicy(attempts=attempts)
        self.kinds = tuple(msgspec.structs.replace(kind, retry=retry) for kind in KINDS)
        """Its kinds, of which each job has so many attempts."""
        self._knobs = knobs
        self.desk = SimulatedDesk(knobs)
        self.desks = [self.desk]
        """Every process that it has been, the present one last."""

    def be_well(self) -> None:
        """Neither fail nor hang in any run that begins from now on."""
        self._knobs = msgspec.structs.replace(self._knobs, hang_rate=0.0, failures={})
        self.desk.knobs = self._knobs

    async def begin_anew(self) -> None:
        """End what runs, without a word, and begin with nothing."""
        before, self.desk = self.desk, SimulatedDesk(self._knobs)
        self.desks.append(self.desk)
        await before.stop()


class SimulatedConnector:
    """Drives one `Service` over a `Path`."""

    name = "simulation-http"
    service = "simulation"

    def __init__(self, endpoint: str, service: Service, path: Path) -> None:
        self.endpoint = endpoint
        self._config = ConnectorConfig(url=f"http://{endpoint}", endpoint=endpoint)
        self._service = service
        self._path = path

    @property
    def _desk(self) -> SimulatedDesk:
        return self._service.desk

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is open."""

    def kinds(self) -> tuple[KindSpec, ...]:
        """Return the kinds of the simulated service."""
        return self._service.kinds

    async def probe(self) -> Probe:
        """Ask for its health."""
        try:
            return probe_of(await self._ask(HealthView, self._desk.health), self._config)
        except ServiceFaultError as error:
            return probe_failure(error)

    async def capabilities(self) -> ServiceCapabilities:
        """Ask what it has."""
        try:
            return capabilities_of(await self._ask(CapabilitiesView, self._desk.capabilities), self._config)
        except ServiceFaultError as error:
            raise service_unavailable(self.endpoint, error) from error

    async def submit(self, call: ServiceCall) -> RemoteRef | Failed:
        """Hand the work over; idempotent by job and fence."""
        try:
            body = submission_of(call, connector=self.name)

            async def there() -> object:
                return (await self._desk.submit(body))[0]

            view = await self._ask(RunView, there)
        except ServiceFaultError as error:
            return Failed(failure=error.failure)
        return RemoteRef(id=view.id, job_id=call.job_id, fence=call.fence)

    async def observe(self, call: ServiceCall, ref: RemoteRef) -> AsyncGenerator[Step]:
        """Ask for news until the work has ended."""
        del call
        strikes = 0
        while True:
            await asyncio.sleep(POLL)
            try:
                signal = signal_of(await self._ask(RunView, lambda: self._desk.status(ref.id)))
                if signal.state in _ENDED:
                    yield await self._end(ref)
                    return
            except ServiceFaultError as error:
                strikes += 1
                if strikes > STRIKES or error.failure.class_ is not FailureClass.TRANSIENT:
                    yield Failed(failure=error.failure)
                    return
                continue
            strikes = 0
            if signal.progress is not None:
                yield signal.progress

    async def reconcile(self, ref: RemoteRef) -> RemoteState:
        """Ask for the run, and take it over when it was started under a lower fence."""
        try:
            view = await self._ask(RunView, lambda: self._desk.status(ref.id))
            if view.fence < ref.fence and view.state in ALIVE:
                fence = msgspec.json.encode({"fence": ref.fence})
                await self._ask(RunView, lambda: self._desk.take_over(ref.id, fence))
        except ServiceFaultError as error:
            return RemoteState.LOST if error.failure.class_ is FailureClass.LOST else RemoteState.UNKNOWN
        return view.state

    async def fetch(self, ref: RemoteRef) -> Finished | Failed:
        """Return how the run ended."""
        try:
            return await self._end(ref)
        except ServiceFaultError as error:
            return Failed(failure=error.failure)

    async def cancel(self, ref: RemoteRef) -> bool:
        """Stop the run unless a higher fence holds it."""
        fence = msgspec.json.encode({"fence": ref.fence})
        try:
            view = await self._ask(RunView, lambda: self._desk.cancel(ref.id, fence))
        except ServiceFaultError as error:
            return error.failure.class_ is FailureClass.LOST
        return view.state in _ENDED

    async def release(self, ref: RemoteRef) -> None:
        """Let the service forget the run."""
        fence = msgspec.json.encode({"fence": ref.fence})
        try:
            await self._ask(Raw, lambda: self._desk.release(ref.id, fence))
        except ServiceFaultError:
            return

    async def _end(self, ref: RemoteRef) -> Finished | Failed:
        return end_of(await self._ask(RunEnd, lambda: self._desk.result(ref.id)))

    async def _ask(self, shape: type[T], what: Callable[[], Any]) -> T:
        def there() -> bytes | asyncio.Task[bytes]:
            answer = what()
            return asyncio.create_task(_written(answer)) if iscoroutine(answer) else msgspec.json.encode(answer)

        try:
            return msgspec.json.decode(await self._path.exchange(there, limit=LIMIT), type=shape)
        except RequestRefusedError as error:
            class_ = CODES.get(error.code, FailureClass.TRANSIENT)
            raise fault(class_, error.message, retry_after=error.retry_after) from None
        except (NoAnswerError, RefusedError):
            raise fault(FailureClass.TRANSIENT, f"{self.endpoint} does not answer") from None


async def _written(answer: Coroutine[Any, Any, object]) -> bytes:
    return msgspec.json.encode(await answer)
