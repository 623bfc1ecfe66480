"""Drives the simulated service over HTTP."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from types import TracebackType
from typing import Final, Self

import msgspec
from msgspec import Struct

from hostler.connectors.config import ConnectorConfig
from hostler.connectors.faults import ServiceFaultError, off_protocol
from hostler.connectors.follow import Follower, Signal
from hostler.connectors.health import probe_failure, service_unavailable
from hostler.connectors.schemas import parse_options
from hostler.connectors.services.simulation.messages import CapabilitiesView, HealthView, RunEnd, RunView
from hostler.connectors.services.simulation.terms import ALIVE, CODES, kinds_of
from hostler.connectors.services.simulation.views import (
    capabilities_of,
    end_of,
    probe_of,
    signal_of,
    submission_of,
)
from hostler.connectors.stages import Stages
from hostler.connectors.transports.http import HttpTransport, segment
from hostler.contracts.failure import Stage
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
from hostler.kernel.units import Seconds


class SimulationHttpOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of `simulation-http`."""

    poll: Seconds = 1.0
    """A silent stream is checked by a status query this often."""
    timeout: Seconds = 5.0
    """Limit of each call that is no stream."""


class SimulationHttpConnector:
    """Connector `simulation-http`: submit, follow by stream and status, take over, cancel, release."""

    name: str = "simulation-http"
    service: str = "simulation"

    def __init__(self, config: ConnectorConfig) -> None:
        """Take one endpoint; `InvalidError` for a URL or options that cannot work."""
        self.endpoint = config.endpoint
        self._config = config
        self._options = parse_options(config.options, SimulationHttpOptions, connector=self.name)
        self._http = HttpTransport(
            config.url, settings=config.http, api_key=config.api_key, connect=self._options.timeout
        )

    async def __aenter__(self) -> Self:
        await self._http.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.__aexit__(kind, value, trace)

    def kinds(self) -> tuple[KindSpec, ...]:
        """Return `image.generate` and `sim.echo`."""
        return kinds_of(self.name)

    async def probe(self) -> Probe:
        """Ask `/health`; work is never touched by the answer."""
        try:
            answer = await self._http.call("GET", "/health", within=self._options.timeout)
            view = answer.json(HealthView)
        except ServiceFaultError as error:
            return probe_failure(error)
        return probe_of(view, self._config)

    async def capabilities(self) -> ServiceCapabilities:
        """Ask `/capabilities`."""
        try:
            answer = await self._http.call("GET", "/capabilities", within=self._options.timeout)
            view = answer.expect(CODES).json(CapabilitiesView)
        except ServiceFaultError as error:
            raise service_unavailable(self.endpoint, error) from error
        return capabilities_of(view, self._config)

    async def submit(self, call: ServiceCall) -> RemoteRef | Failed:
        """Hand the work over with its fence; idempotent by job and fence."""
        try:
            body = submission_of(call, connector=self.name)
            limit, _, _ = Stages.of(call).left(Stage.CONNECT)
            within = self._options.timeout if limit is None else limit
            answer = await self._http.call("POST", "/jobs", body=body, within=within)
            view = answer.expect(CODES).json(RunView)
        except ServiceFaultError as error:
            return Failed(failure=error.failure)
        return RemoteRef(id=view.id, job_id=call.job_id, fence=call.fence)

    def observe(self, call: ServiceCall, ref: RemoteRef) -> AsyncGenerator[Step]:
        """Follow the stream, and the status where the stream is silent or broken."""
        work = SimulatedRun(self._http, ref, within=self._options.timeout)
        return Follower(work, Stages.of(call), poll=self._options.poll).steps()

    async def reconcile(self, ref: RemoteRef) -> RemoteState:
        """Ask for the run, and take it over when it was started under a lower fence."""
        try:
            work = SimulatedRun(self._http, ref, within=self._options.timeout)
            view = await work.view()
            if view is None:
                return RemoteState.LOST
            if view.fence < ref.fence and view.state in ALIVE:
                await work.take_over()
        except ServiceFaultError:
            return RemoteState.UNKNOWN
        return view.state

    async def fetch(self, ref: RemoteRef) -> Finished | Failed:
        """Return how the run ended."""
        try:
            return await SimulatedRun(self._http, ref, within=self._options.timeout).outcome()
        except ServiceFaultError as error:
            return Failed(failure=error.failure)

    async def cancel(self, ref: RemoteRef) -> bool:
        """Stop the run unless a higher fence holds it; True when it has ended."""
        try:
            return await SimulatedRun(self._http, ref, within=self._options.timeout).stop()
        except ServiceFaultError:
            return False

    async def release(self, ref: RemoteRef) -> None:
        """Let the service forget the run."""
        try:
            path = f"/jobs/{segment(ref.id)}?fence={ref.fence}"
            await self._http.call("DELETE", path, within=self._options.timeout)
        except ServiceFaultError:
            return


class SimulatedRun:
    """One run in the service, as `RemoteWork`."""

    def __init__(self, http: HttpTransport, ref: RemoteRef, *, within: Seconds) -> None:
        self._http = http
        self._ref = ref
        self._within = within
        self._path = f"/jobs/{segment(ref.id)}"

    async def signals(self, cursor: str | None) -> AsyncGenerator[Signal]:
        """Read `/jobs/{id}/events`."""
        headers = {"Accept": "text/event-stream", **({"Last-Event-ID": cursor} if cursor else {})}
        async with self._http.stream(
            "GET", f"{self._path}/events", headers=headers, first_byte=self._within, silence=None
        ) as stream:
            if stream.status == _NOT_FOUND:
                yield Signal(state=RemoteState.LOST)
                return
            await stream.expect("text/event-stream", CODES)
            async with aclosing(stream.sse()) as events:
                async for event in events:
                    yield signal_of(_run_view(event.data.encode()), cursor=event.id)

    async def view(self) -> RunView | None:
        """Return how the run is; None when the service knows nothing of it."""
        answer = await self._http.call("GET", self._path, within=self._within)
        if answer.status == _NOT_FOUND:
            return None
        return answer.expect(CODES).json(RunView)

    async def status(self) -> Signal:
        """Ask how the run is."""
        view = await self.view()
        return Signal(state=RemoteState.LOST) if view is None else signal_of(view)

    async def outcome(self) -> Finished | Failed:
        """Fetch `/jobs/{id}/result`."""
        answer = await self._http.call("GET", f"{self._path}/result", within=self._within)
        return end_of(answer.expect(CODES).json(RunEnd))

    async def take_over(self) -> None:
        """Make the run ours: holders of lower fences are refused from now on."""
        await self._tell("takeover")

    async def stop(self) -> bool:
        """Cancel the run; True when it has ended."""
        view = await self._tell("cancel")
        return view is None or view.state not in {RemoteState.PENDING, RemoteState.RUNNING}

    async def _tell(self, verb: str) -> RunView | None:
        body = msgspec.json.encode({"fence": self._ref.fence})
        answer = await self._http.call("POST", f"{self._path}/{verb}", body=body, within=self._within)
        if answer.status == _NOT_FOUND:
            return None
        return answer.expect(CODES).json(RunView)


_NOT_FOUND: Final = 404


def _run_view(data: bytes) -> RunView:
    try:
        return msgspec.json.decode(data, type=RunView)
    except msgspec.MsgspecError as error:
        raise off_protocol(f"the service sent an event that is not its protocol: {error}") from None
