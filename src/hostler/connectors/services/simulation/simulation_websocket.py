"""Drives the simulated service over one WebSocket."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import msgspec
from msgspec import Raw, Struct

from hostler.connectors.config import ConnectorConfig
from hostler.connectors.faults import ServiceFaultError, fault, off_protocol
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
from hostler.connectors.shared import Request, SharedDialogue
from hostler.connectors.stages import Stages
from hostler.connectors.transports.conversation import Limits
from hostler.connectors.transports.websocket import WebsocketTransport
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

TARGET: Final = "/socket"
T = TypeVar("T")


class SimulationWebsocketOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of `simulation-websocket`."""

    poll: Seconds = 1.0
    """Silent work is checked by a status query this often."""
    timeout: Seconds = 5.0
    """Limit of each request, the opening of the socket included."""


class SocketErrorView(Struct, frozen=True, kw_only=True):
    """Why the service says no."""

    code: str
    message: str = ""
    retry_after: Seconds | None = None


class SocketReply(Struct, frozen=True, kw_only=True):
    """One message of the service: an answer, an error, or something that happened to a run that is followed."""

    id: int
    answer: Raw = Raw()
    error: SocketErrorView | None = None
    run: RunView | None = None
    cursor: str | None = None


class SimulationWebsocketConnector:
    """Connector `simulation-websocket`: requests and streams share one socket, which is opened again when it breaks."""

    name: str = "simulation-websocket"
    service: str = "simulation"

    def __init__(self, config: ConnectorConfig) -> None:
        """Take one endpoint, its URL beginning with ws or http; `InvalidError` for what cannot work."""
        self.endpoint = config.endpoint
        self._config = config
        self._options = parse_options(config.options, SimulationWebsocketOptions, connector=self.name)
        within = self._options.timeout
        self._sockets = WebsocketTransport(config.url, settings=config.http, api_key=config.api_key, connect=within)
        limits = Limits(opening=within, total=None)
        dialogue = SharedDialogue(lambda: self._sockets.conversation(TARGET, limits=limits), number_of=_number_of)
        self._desk = RemoteDesk(dialogue, within=within)

    async def __aenter__(self) -> Self:
        await self._sockets.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._desk.close()
        await self._sockets.__aexit__(kind, value, trace)

    def kinds(self) -> tuple[KindSpec, ...]:
        """Return `image.generate` and `sim.echo`."""
        return kinds_of(self.name)

    async def probe(self) -> Probe:
        """Ask for its health; work is never touched by the answer."""
        try:
            return probe_of(await self._desk.ask("health", HealthView), self._config)
        except ServiceFaultError as error:
            return probe_failure(error)

    async def capabilities(self) -> ServiceCapabilities:
        """Ask for its capabilities."""
        try:
            return capabilities_of(await self._desk.ask("capabilities", CapabilitiesView), self._config)
        except ServiceFaultError as error:
            raise service_unavailable(self.endpoint, error) from error

    async def submit(self, call: ServiceCall) -> RemoteRef | Failed:
        """Hand the work over with its fence; idempotent by job and fence, so that it may be said over two sockets."""
        try:
            body = Raw(submission_of(call, connector=self.name))
            limit, blame, _ = Stages.of(call).left(Stage.CONNECT)
            told = pass_on(allowance())
            left = {} if told is None else {"seconds_left": told}
            view = await self._desk.ask("submit", RunView, within=limit, stage=blame, body=body, **left)
        except ServiceFaultError as error:
            return Failed(failure=error.failure)
        return RemoteRef(id=view.id, job_id=call.job_id, fence=call.fence)

    async def observe(self, call: ServiceCall, ref: RemoteRef) -> AsyncGenerator[Step]:
        """Follow the run, and ask for its status where the socket is silent or broken."""
        async with aclosing(
            Follower(SimulatedRun(self._desk, ref), Stages.of(call), poll=self._options.poll).steps()
        ) as steps:
            async for step in steps:
                yield step

    async def reconcile(self, ref: RemoteRef) -> RemoteState:
        """Ask for the run, and take it over when it was started under a lower fence."""
        try:
            run = SimulatedRun(self._desk, ref)
            view = await run.view()
            if view is None:
                return RemoteState.LOST
            if view.fence < ref.fence and view.state in ALIVE:
                await run.take_over()
        except ServiceFaultError:
            return RemoteState.UNKNOWN
        return view.state

    async def fetch(self, ref: RemoteRef) -> Finished | Failed:
        """Return how the run ended."""
        try:
            return await SimulatedRun(self._desk, ref).outcome()
        except ServiceFaultError as error:
            return Failed(failure=error.failure)

    async def cancel(self, ref: RemoteRef) -> bool:
        """Stop the run unless a higher fence holds it; True when it has ended."""
        try:
            return await SimulatedRun(self._desk, ref).stop()
        except ServiceFaultError:
            return False

    async def release(self, ref: RemoteRef) -> None:
        """Let the service forget the run."""
        try:
            await self._desk.ask("release", Raw, job=ref.id, body={"fence": ref.fence})
        except ServiceFaultError:
            return


class RemoteDesk:
    """The service's requests and replies over the socket that all share."""

    def __init__(self, dialogue: SharedDialogue, *, within: Seconds) -> None:
        self._dialogue = dialogue
        self._within = within

    async def ask(
        self, verb: str, shape: type[T], *, within: Seconds | None = None, stage: Stage = Stage.CONNECT, **fields: Any
    ) -> T:
        """Return the answer to a request; raises the fault of one that is refused or off the protocol."""
        message = await self._dialogue.ask(
            _request(verb, **fields), within=self._within if within is None else within, stage=stage
        )
        return _decoded(_granted(message).answer, shape)

    async def follow(self, job: str, cursor: str | None) -> AsyncGenerator[SocketReply]:
        """Yield what happens to a run after `cursor`."""
        request = _request("follow", job=job, cursor=cursor or "")
        async with aclosing(self._dialogue.follow(request, leave=_request("leave"), within=self._within)) as messages:
            async for message in messages:
                yield _granted(message)

    async def close(self) -> None:
        """Close the socket."""
        await self._dialogue.close()


class SimulatedRun:
    """One run in the service, as `RemoteWork`."""

    def __init__(self, desk: RemoteDesk, ref: RemoteRef) -> None:
        self._desk = desk
        self._ref = ref

    async def signals(self, cursor: str | None) -> AsyncGenerator[Signal]:
        """Follow it; what only shows that the service is there is no signal."""
        try:
            async with aclosing(self._desk.follow(self._ref.id, cursor)) as replies:
                async for reply in replies:
                    if reply.run is not None:
                        yield signal_of(reply.run, cursor=reply.cursor)
        except ServiceFaultError as error:
            if not _unknown(error):
                raise
            yield Signal(state=RemoteState.LOST)

    async def view(self) -> RunView | None:
        """Return how the run is; None when the service knows nothing of it."""
        return await self._of_run("status")

    async def status(self) -> Signal:
        """Ask how the run is."""
        view = await self.view()
        return Signal(state=RemoteState.LOST) if view is None else signal_of(view)

    async def outcome(self) -> Finished | Failed:
        """Ask how it ended."""
        return end_of(await self._desk.ask("result", RunEnd, job=self._ref.id))

    async def take_over(self) -> None:
        """Make the run ours: holders of lower fences are refused from now on."""
        await self._of_run("take_over", body={"fence": self._ref.fence})

    async def stop(self) -> bool:
        """Cancel the run; True when it has ended."""
        view = await self._of_run("cancel", body={"fence": self._ref.fence})
        return view is None or view.state not in {RemoteState.PENDING, RemoteState.RUNNING}

    async def _of_run(self, verb: str, **fields: Any) -> RunView | None:
        try:
            return await self._desk.ask(verb, RunView, job=self._ref.id, **fields)
        except ServiceFaultError as error:
            if _unknown(error):
                return None
            raise


def _request(verb: str, **fields: Any) -> Request:
    return lambda number: msgspec.json.encode({"id": number, "verb": verb, **fields})


def _number_of(message: bytes) -> int:
    return _decoded(message, SocketReply).id


def _granted(message: bytes) -> SocketReply:
    reply = _decoded(message, SocketReply)
    if reply.error is not None:
        class_ = CODES.get(reply.error.code, FailureClass.TRANSIENT)
        raise fault(class_, reply.error.message, retry_after=reply.error.retry_after, code=reply.error.code)
    return reply


def _decoded(data: bytes | Raw, shape: type[T]) -> T:
    try:
        return msgspec.json.decode(data, type=shape)
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise off_protocol(f"the service sent a message that is not its protocol: {error}") from None


def _unknown(error: ServiceFaultError) -> bool:
    return error.failure.details.get("code") == "unknown_job"
