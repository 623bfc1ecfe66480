"""Drives the simulated service over gRPC."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from types import TracebackType
from typing import Any, Final, Self

import msgspec
from msgspec import Raw, Struct

from hostler.connectors.config import ConnectorConfig
from hostler.connectors.faults import ServiceFaultError, failure, off_protocol
from hostler.connectors.follow import Follower, Signal
from hostler.connectors.health import probe_failure, service_unavailable
from hostler.connectors.schemas import open_payload, parse_options
from hostler.connectors.services.simulation.descriptor import SIMULATION
from hostler.connectors.services.simulation.messages import CapabilitiesView, ErrorView, HealthView, RunView
from hostler.connectors.services.simulation.terms import ALIVE, CODES, PAYLOADS, kinds_of
from hostler.connectors.services.simulation.views import capabilities_of, probe_of, signal_of
from hostler.connectors.stages import Stages
from hostler.connectors.transports.conversation import Limits
from hostler.connectors.transports.grpc import CONVERSATION_MOST, GrpcTransport
from hostler.connectors.transports.protobuf import Messages, Method
from hostler.contracts.failure import FailureClass, Stage
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
from hostler.kernel.allowance import allowance
from hostler.kernel.units import Seconds
from hostler.policy.deadline import pass_on


class SimulationGrpcOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of `simulation-grpc`."""

    poll: Seconds = 1.0
    """A silent stream is checked by a status query this often."""
    timeout: Seconds = 5.0
    """Limit of each call that is no stream."""


class RunEnd(Struct, frozen=True, kw_only=True):
    """How a run ended."""

    state: RemoteState
    result_json: bytes | None = None
    error: ErrorView | None = None


class RunEvent(Struct, frozen=True, kw_only=True):
    """One message of the stream."""

    cursor: str
    run: RunView


MESSAGES: Final = Messages("hostler.simulation.v1", SIMULATION)
HEALTH: Final = MESSAGES.method("Simulation/Health", "HealthRequest", "HealthView", HealthView)
CAPABILITIES: Final = MESSAGES.method(
    "Simulation/Capabilities", "CapabilitiesRequest", "CapabilitiesView", CapabilitiesView
)
SUBMIT: Final = MESSAGES.method("Simulation/Submit", "Submission", "RunView", RunView)
STATUS: Final = MESSAGES.method("Simulation/Status", "RunRequest", "RunView", RunView)
RESULT: Final = MESSAGES.method("Simulation/Result", "RunRequest", "RunEnd", RunEnd)
WATCH: Final = MESSAGES.method("Simulation/Watch", "WatchRequest", "RunEvent", RunEvent)
TAKE_OVER: Final = MESSAGES.method("Simulation/TakeOver", "FencedRequest", "RunView", RunView)
CANCEL: Final = MESSAGES.method("Simulation/Cancel", "FencedRequest", "RunView", RunView)
RELEASE: Final = MESSAGES.method("Simulation/Release", "FencedRequest", "Released", dict[str, Any])


class SimulationGrpcConnector:
    """Connector `simulation-grpc`: submit, follow by stream and status, take over, cancel, release."""

    name: str = "simulation-grpc"
    service: str = "simulation"

    def __init__(self, config: ConnectorConfig) -> None:
        """Take one endpoint; `InvalidError` for a URL or options that cannot work."""
        self.endpoint = config.endpoint
        self._config = config
        self._options = parse_options(config.options, SimulationGrpcOptions, connector=self.name)
        self._grpc = GrpcTransport(config.url, api_key=config.api_key)

    async def __aenter__(self) -> Self:
        await self._grpc.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._grpc.__aexit__(kind, value, trace)

    def kinds(self) -> tuple[KindSpec, ...]:
        """Return `image.generate` and `sim.echo`."""
        return kinds_of(self.name)

    async def probe(self) -> Probe:
        """Ask `Health`; work is never touched by the answer."""
        try:
            view = await self._grpc.call(HEALTH, {}, within=self._options.timeout)
        except ServiceFaultError as error:
            return probe_failure(error)
        return probe_of(view, self._config)

    async def capabilities(self) -> ServiceCapabilities:
        """Ask `Capabilities`."""
        try:
            view = await self._grpc.call(CAPABILITIES, {}, within=self._options.timeout)
        except ServiceFaultError as error:
            raise service_unavailable(self.endpoint, error) from error
        return capabilities_of(view, self._config)

    async def submit(self, call: ServiceCall) -> RemoteRef | Failed:
        """Hand the work over with its fence and the time that it has; idempotent by job and fence."""
        try:
            shape = PAYLOADS.get(call.kind)
            if shape is None:
                return Failed(failure=failure(FailureClass.INVALID_INPUT, f"{self.name} has no kind {call.kind}"))
            submission: dict[str, Any] = {
                "id": call.job_id,
                "fence": call.fence,
                "kind": call.kind,
                "input_json": msgspec.json.encode(open_payload(call.payload, shape)),
            }
            told = pass_on(allowance())
            if told is not None:
                submission["seconds_left"] = told
            limit, blame, _ = Stages.of(call).left(Stage.CONNECT)
            within = self._options.timeout if limit is None else limit
            view = await self._grpc.call(SUBMIT, submission, within=within, stage=blame, codes=CODES)
        except ServiceFaultError as error:
            return Failed(failure=error.failure)
        return RemoteRef(id=view.id, job_id=call.job_id, fence=call.fence)

    async def observe(self, call: ServiceCall, ref: RemoteRef) -> AsyncGenerator[Step]:
        """Follow the stream, and the status where the stream is silent or broken."""
        stages = Stages.of(call)
        work = SimulatedRun(self._grpc, ref, within=self._options.timeout, stages=stages)
        async with aclosing(Follower(work, stages, poll=self._options.poll).steps()) as steps:
            async for step in steps:
                yield step

    async def reconcile(self, ref: RemoteRef) -> RemoteState:
        """Ask for the run, and take it over when it was started under a lower fence."""
        try:
            work = SimulatedRun(self._grpc, ref, within=self._options.timeout)
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
            return await SimulatedRun(self._grpc, ref, within=self._options.timeout).outcome()
        except ServiceFaultError as error:
            return Failed(failure=error.failure)

    async def cancel(self, ref: RemoteRef) -> bool:
        """Stop the run unless a higher fence holds it; True when it has ended."""
        try:
            return await SimulatedRun(self._grpc, ref, within=self._options.timeout).stop()
        except ServiceFaultError:
            return False

    async def release(self, ref: RemoteRef) -> None:
        """Let the service forget the run."""
        request = {"id": ref.id, "fence": ref.fence}
        try:
            await self._grpc.call(RELEASE, request, within=self._options.timeout)
        except ServiceFaultError:
            return


class SimulatedRun:
    """One run in the service, as `RemoteWork`."""

    def __init__(self, grpc: GrpcTransport, ref: RemoteRef, *, within: Seconds, stages: Stages | None = None) -> None:
        self._grpc = grpc
        self._ref = ref
        self._within = within
        self._stages = stages

    async def signals(self, cursor: str | None) -> AsyncGenerator[Signal]:
        """Read `Watch`, for as long as the work may take."""
        request = {"id": self._ref.id, **({"cursor": cursor} if cursor else {})}
        left, blame = None, Stage.RUN
        if self._stages is not None:
            left, blame, _ = self._stages.left(Stage.RUN)
        within = CONVERSATION_MOST if left is None else left
        limits = Limits(opening=self._within)
        try:
            async with (
                self._grpc.stream(WATCH, request, within=within, stage=blame, limits=limits, codes=CODES) as stream,
                aclosing(stream.messages()) as events,
            ):
                async for event in events:
                    yield signal_of(event.run, cursor=event.cursor)
        except ServiceFaultError as error:
            if _unknown(error):
                yield Signal(state=RemoteState.LOST)
            elif left is not None or error.failure.class_ is not FailureClass.TIMEOUT:
                raise

    async def view(self) -> RunView | None:
        """Return how the run is; None when the service knows nothing of it."""
        return await self._of_run(STATUS, {"id": self._ref.id})

    async def status(self) -> Signal:
        """Ask how the run is."""
        view = await self.view()
        return Signal(state=RemoteState.LOST) if view is None else signal_of(view)

    async def outcome(self) -> Finished | Failed:
        """Fetch `Result`."""
        end = await self._grpc.call(RESULT, {"id": self._ref.id}, within=self._within, codes=CODES)
        match end.state:
            case RemoteState.SUCCEEDED if end.result_json is not None:
                return Finished(result=_sealed(end.result_json))
            case RemoteState.CANCELLED:
                return Failed(failure=failure(FailureClass.CANCELLED, "the service says that it was cancelled"))
            case RemoteState.FAILED if end.error is not None:
                class_ = CODES.get(end.error.code, FailureClass.TRANSIENT)
                return Failed(failure=failure(class_, end.error.message, code=end.error.code))
            case _:
                raise off_protocol(f"the service gave a result of work that is {end.state}")

    async def take_over(self) -> None:
        """Make the run ours: holders of lower fences are refused from now on."""
        await self._tell(TAKE_OVER)

    async def stop(self) -> bool:
        """Cancel the run; True when it has ended."""
        view = await self._tell(CANCEL)
        return view is None or view.state not in {RemoteState.PENDING, RemoteState.RUNNING}

    async def _tell(self, method: Method[RunView]) -> RunView | None:
        return await self._of_run(method, {"id": self._ref.id, "fence": self._ref.fence})

    async def _of_run(self, method: Method[RunView], values: dict[str, Any]) -> RunView | None:
        try:
            return await self._grpc.call(method, values, within=self._within, codes=CODES)
        except ServiceFaultError as error:
            if _unknown(error):
                return None
            raise


def _unknown(error: ServiceFaultError) -> bool:
    return error.failure.details.get("code") == "unknown_job"


def _sealed(result: bytes) -> Raw:
    try:
        return msgspec.json.decode(result, type=Raw)
    except msgspec.DecodeError as error:
        raise off_protocol(f"the service gave a result that is no JSON: {error}") from None
