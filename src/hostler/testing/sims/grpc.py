"""The simulated service over gRPC; its methods are described in `simulation.proto`.

The HTTP service's codes travel as `google.rpc.ErrorInfo`, its `Retry-After` as `google.rpc.RetryInfo`.
"""

import asyncio
import contextlib
import errno
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NoReturn, Self

import grpc
import grpc.aio
import msgspec
from msgspec import Raw, Struct

from hostler.connectors.faults import ServiceFaultError
from hostler.connectors.services.simulation.descriptor import SIMULATION
from hostler.connectors.transports.descriptor import GRPC_STATUS
from hostler.connectors.transports.protobuf import Messages
from hostler.kernel.units import Seconds
from hostler.testing.sims.desk import SimulatedDesk, StreamCutError
from hostler.testing.sims.knobs import SimKnobs
from hostler.testing.sims.work import RequestRefusedError

MESSAGES: Final = Messages("hostler.simulation.v1", SIMULATION)
RICH: Final = Messages("google.rpc", GRPC_STATUS)
MESSAGE_LIMIT: Final = 1_048_576
STATUSES: Final = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    404: grpc.StatusCode.NOT_FOUND,
    409: grpc.StatusCode.FAILED_PRECONDITION,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    500: grpc.StatusCode.INTERNAL,
    502: grpc.StatusCode.UNAVAILABLE,
    503: grpc.StatusCode.UNAVAILABLE,
}

Context = grpc.aio.ServicerContext[bytes, bytes]


class SubmissionMessage(Struct, frozen=True, kw_only=True):
    """`Submission`."""

    id: str
    fence: int
    kind: str
    input_json: bytes
    seconds_left: Seconds | None = None


class RunMessage(Struct, frozen=True, kw_only=True):
    """`RunRequest` and `WatchRequest`."""

    id: str
    cursor: str = ""


class FencedMessage(Struct, frozen=True, kw_only=True):
    """`FencedRequest`."""

    id: str
    fence: int


class EffectsMessage(Struct, frozen=True, kw_only=True):
    """`EffectsRequest`."""

    after: int


class KnobsMessage(Struct, frozen=True, kw_only=True):
    """`Knobs`."""

    json: bytes


class Methods:
    """What the service answers, message by message."""

    def __init__(self, desk: SimulatedDesk) -> None:
        self.desk = desk

    def table(self) -> dict[str, Callable[[bytes], Awaitable[bytes]]]:
        """Return the methods that answer once."""
        return {
            "Health": self._health,
            "Capabilities": self._capabilities,
            "Submit": self._submit,
            "Status": self._status,
            "Result": self._result,
            "TakeOver": self._take_over,
            "Cancel": self._cancel,
            "Release": self._release,
            "Effects": self._effects,
            "GetKnobs": self._get_knobs,
            "SetKnobs": self._set_knobs,
        }

    async def _health(self, _request: bytes) -> bytes:
        return MESSAGES.encode("HealthView", self.desk.health())

    async def _capabilities(self, _request: bytes) -> bytes:
        return MESSAGES.encode("CapabilitiesView", self.desk.capabilities())

    async def _submit(self, request: bytes) -> bytes:
        asked = MESSAGES.decode("Submission", request, SubmissionMessage)
        fields = {"id": asked.id, "fence": asked.fence, "kind": asked.kind, "input": Raw(asked.input_json)}
        view, _ = await self.desk.submit(msgspec.json.encode(fields), seconds_left=asked.seconds_left)
        return _view(view)

    async def _status(self, request: bytes) -> bytes:
        return _view(self.desk.status(MESSAGES.decode("RunRequest", request, RunMessage).id))

    async def _result(self, request: bytes) -> bytes:
        found = self.desk.result(MESSAGES.decode("RunRequest", request, RunMessage).id)
        end: dict[str, Any] = {"state": found["state"]}
        if found["state"] == "succeeded":
            end["result_json"] = msgspec.json.encode(found["result"])
        if found["error"] is not None:
            end["error"] = found["error"]
        return MESSAGES.encode("RunEnd", end)

    async def _take_over(self, request: bytes) -> bytes:
        asked = MESSAGES.decode("FencedRequest", request, FencedMessage)
        return _view((await self.desk.work.take_over(asked.id, asked.fence)).view())

    async def _cancel(self, request: bytes) -> bytes:
        asked = MESSAGES.decode("FencedRequest", request, FencedMessage)
        return _view((await self.desk.work.cancel(asked.id, asked.fence)).view())

    async def _release(self, request: bytes) -> bytes:
        asked = MESSAGES.decode("FencedRequest", request, FencedMessage)
        await self.desk.work.release(asked.id, asked.fence)
        return MESSAGES.encode("Released", {})

    async def _effects(self, request: bytes) -> bytes:
        page = self.desk.page(MESSAGES.decode("EffectsRequest", request, EffectsMessage).after)
        lines = [msgspec.json.encode(effect) for effect in page["effects"]]
        return MESSAGES.encode("EffectsPage", {"effects_json": lines, "next": page["next"]})

    async def _get_knobs(self, _request: bytes) -> bytes:
        return MESSAGES.encode("Knobs", {"json": msgspec.json.encode(self.desk.knobs)})

    async def _set_knobs(self, request: bytes) -> bytes:
        self.desk.change(MESSAGES.decode("Knobs", request, KnobsMessage).json)
        return await self._get_knobs(request)


class SimulationGRPCService:
    """One simulated service; `async with` starts it, `url` says where it listens (port 0 takes any free one)."""

    def __init__(
        self, knobs: SimKnobs | None = None, *, host: str = "127.0.0.1", port: int = 0, effects: Path | None = None
    ) -> None:
        self.desk = SimulatedDesk(knobs, effects=effects)
        self.effects, self.work = self.desk.effects, self.desk.work
        self.url = ""
        self.watchers = 0
        """Streams that go on now."""
        self._host, self._port = host, port
        self._server: grpc.aio.Server | None = None
        self._methods = Methods(self.desk)

    @property
    def knobs(self) -> SimKnobs:
        """The knobs as they are now; they may be set at any time and hold for runs that begin after."""
        return self.desk.knobs

    @knobs.setter
    def knobs(self, knobs: SimKnobs) -> None:
        self.desk.knobs = knobs

    async def __aenter__(self) -> Self:
        await self.desk.__aenter__()
        options = (("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", MESSAGE_LIMIT))
        server = grpc.aio.server(options=options)
        server.add_generic_rpc_handlers((self._handlers(),))
        host = f"[{self._host}]" if ":" in self._host else self._host
        try:
            port = _bound(server, f"{host}:{self._port}")
            await server.start()
        except BaseException:  # also when cancelled: nothing may stay open behind a start that failed
            await server.stop(None)
            await self.desk.__aexit__(None, None, None)
            raise
        self.url = f"grpc://{host}:{port}"
        self._server = server
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.desk.stop()
        if self._server is not None:
            await self._server.stop(0.5)
            self._server = None
        await self.desk.__aexit__(kind, value, trace)

    def _handlers(self) -> grpc.GenericRpcHandler:
        handlers: dict[str, Any] = {
            name: grpc.unary_unary_rpc_method_handler(self._answered(name, method))
            for name, method in self._methods.table().items()
        }
        handlers["Watch"] = grpc.unary_stream_rpc_method_handler(self._watch)
        return grpc.method_handlers_generic_handler(f"{MESSAGES.package}.Simulation", handlers)

    def _answered(self, name: str, method: Callable[[bytes], Awaitable[bytes]]) -> Any:
        async def answer(request: bytes, context: Context) -> bytes:
            try:
                if name in _OF_RUNS:
                    self.desk.burst()
                return await method(request)
            except ServiceFaultError as error:
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
            except RequestRefusedError as error:
                await _refuse(context, error)

        return answer

    async def _watch(self, request: bytes, context: Context) -> AsyncIterator[bytes]:
        self.watchers += 1
        try:
            self.desk.burst()
            asked = MESSAGES.decode("WatchRequest", request, RunMessage)
            self.desk.status(asked.id)
            await context.send_initial_metadata(())  # a run that waits for a slot has no event yet
            async with contextlib.aclosing(self.desk.follow(asked.id, asked.cursor)) as events:
                async for found in events:
                    if found is not None:
                        _, cursor, view = found
                        yield MESSAGES.encode("RunEvent", {"cursor": cursor, "run": view})
        except StreamCutError:
            await _refuse(context, RequestRefusedError(503, "", "the connection was reset"))
        except RequestRefusedError as error:
            await _refuse(context, error)
        finally:
            self.watchers -= 1


_OF_RUNS: Final = frozenset({"Submit", "Status", "Result", "TakeOver", "Cancel", "Release"})


def _bound(server: grpc.aio.Server, address: str) -> int:
    try:
        return server.add_insecure_port(address)
    except RuntimeError as error:
        raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE), address) from error


def _view(view: dict[str, Any]) -> bytes:
    return MESSAGES.encode("RunView", view)


async def _refuse(context: Context, error: RequestRefusedError) -> NoReturn:
    details: list[dict[str, Any]] = []
    if error.code:
        info = RICH.encode("ErrorInfo", {"reason": error.code, "domain": MESSAGES.package})
        details.append({"type_url": "type.googleapis.com/google.rpc.ErrorInfo", "value": info})
    if error.retry_after is not None:
        nanos = round(error.retry_after * 1e9)
        delay = {"seconds": nanos // 10**9, "nanos": nanos % 10**9}
        info = RICH.encode("RetryInfo", {"retry_delay": delay})
        details.append({"type_url": "type.googleapis.com/google.rpc.RetryInfo", "value": info})
    status = STATUSES[error.status]
    rich = RICH.encode("Status", {"code": status.value[0], "message": error.message, "details": details})
    await context.abort(status, error.message, (("grpc-status-details-bin", rich),) if details else ())


async def serve_sim_grpc(
    knobs: SimKnobs | None = None,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    effects: Path | None = None,
    ready: Callable[[str], None] | None = None,
    stop: asyncio.Event | None = None,
) -> None:
    """Run the simulated service until `stop` is set (for ever without it); `ready` is told its URL."""
    async with SimulationGRPCService(knobs, host=host, port=port, effects=effects) as service:
        if ready is not None:
            ready(service.url)
        await (stop or asyncio.Event()).wait()
