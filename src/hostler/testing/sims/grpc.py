"""The simulated service over gRPC; its methods are described in `simulation.proto`.

The HTTP service's codes travel as `google.rpc.ErrorInfo`, its `Retry-After` as `google.rpc.RetryInfo`.
"""

import asyncio
import contextlib
import errno
import math
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
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
from hostler.testing.sims.effects import EffectLog
from hostler.testing.sims.knobs import SimKnobs, chance
from hostler.testing.sims.work import ENDED, INPUTS, RequestRefusedError, Run, SimulatedWork, Submission

VERSION: Final = "1.0"
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


class Deadlines:
    """Ends of runs whose time is over, whoever watches."""

    def __init__(self, work: SimulatedWork) -> None:
        self._work = work
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def set(self, seconds: Seconds | None, run: Run) -> None:
        """Stop a run when its time is over, whoever watches; a later submit of the same run says it anew."""
        known = self._tasks.pop(run.job, None)
        if known is not None:
            known.cancel()
        if seconds is not None and math.isfinite(seconds):
            task = asyncio.create_task(self._end(max(0.0, seconds), run), name=f"deadline of {run.job}")
            self._tasks[run.job] = task

    async def _end(self, seconds: Seconds, run: Run) -> None:
        deadline = time.monotonic() + seconds
        while run.state not in ENDED and (left := deadline - time.monotonic()) > 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(run.changed.wait(), left)
        self._tasks.pop(run.job, None)
        if run.state not in ENDED and self._work.runs.get(run.job) is run:
            await self._work.cancel(run.job, run.fence, why="deadline")

    async def close(self) -> None:
        """Forget them all."""
        tasks = tuple(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Methods:
    """What the service answers, message by message."""

    def __init__(self, work: SimulatedWork) -> None:
        self.work = work
        self.deadlines = Deadlines(work)
        self.started = time.monotonic()
        self._requests = self._checks = self._burst = 0

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

    def burst(self) -> None:
        """Refuse while a burst of server errors goes on."""
        self._requests += 1
        if not self._burst and chance(self.work.knobs.seed, "burst", self._requests) < self.work.knobs.burst_rate:
            self._burst = self.work.knobs.burst_length
        if self._burst:
            self._burst -= 1
            raise RequestRefusedError((500, 502, 503)[self._burst % 3], "burst", "simulated server error")

    @property
    def _loads(self) -> bool:
        return time.monotonic() - self.started < self.work.knobs.loading

    async def _health(self, _request: bytes) -> bytes:
        self._checks += 1
        state = "loading" if self._loads else "ready"
        if chance(self.work.knobs.seed, "health", self._checks) < self.work.knobs.health_failure_rate:
            state = "unhealthy"
        view = {"state": state, "version": VERSION, "slots": self.work.knobs.slots, "busy": self.work.busy}
        return MESSAGES.encode("HealthView", view)

    async def _capabilities(self, _request: bytes) -> bytes:
        knobs = self.work.knobs
        view = {
            "version": VERSION,
            "kinds": sorted(INPUTS),
            "models": knobs.models,
            "slots": knobs.slots,
            "labels": knobs.labels,
        }
        return MESSAGES.encode("CapabilitiesView", view)

    async def _submit(self, request: bytes) -> bytes:
        if self._loads:
            raise RequestRefusedError(503, "loading", "not ready yet", retry_after=self.work.knobs.retry_after)
        asked = MESSAGES.decode("Submission", request, SubmissionMessage)
        fields = {"id": asked.id, "fence": asked.fence, "kind": asked.kind, "input": Raw(asked.input_json)}
        run, _ = await self.work.submit(_decode(msgspec.json.encode(fields), Submission))
        self.deadlines.set(asked.seconds_left, run)
        return _view(run)

    async def _status(self, request: bytes) -> bytes:
        return _view(self.work.find(MESSAGES.decode("RunRequest", request, RunMessage).id))

    async def _result(self, request: bytes) -> bytes:
        run = self.work.find(MESSAGES.decode("RunRequest", request, RunMessage).id)
        if run.state not in ENDED:
            raise RequestRefusedError(409, "not_ended", f"the job is {run.state}")
        end: dict[str, Any] = {"state": run.state}
        if run.state == "succeeded":
            end["result_json"] = msgspec.json.encode(run.result)
        if run.error is not None:
            end["error"] = run.error
        return MESSAGES.encode("RunEnd", end)

    async def _take_over(self, request: bytes) -> bytes:
        asked = MESSAGES.decode("FencedRequest", request, FencedMessage)
        return _view(await self.work.take_over(asked.id, asked.fence))

    async def _cancel(self, request: bytes) -> bytes:
        asked = MESSAGES.decode("FencedRequest", request, FencedMessage)
        return _view(await self.work.cancel(asked.id, asked.fence))

    async def _release(self, request: bytes) -> bytes:
        asked = MESSAGES.decode("FencedRequest", request, FencedMessage)
        await self.work.release(asked.id, asked.fence)
        return MESSAGES.encode("Released", {})

    async def _effects(self, request: bytes) -> bytes:
        after = MESSAGES.decode("EffectsRequest", request, EffectsMessage).after
        effects = self.work.effects.after(after)
        lines = [msgspec.json.encode(effect) for effect in effects]
        return MESSAGES.encode("EffectsPage", {"effects_json": lines, "next": after + len(effects)})

    async def _get_knobs(self, _request: bytes) -> bytes:
        return MESSAGES.encode("Knobs", {"json": msgspec.json.encode(self.work.knobs)})

    async def _set_knobs(self, request: bytes) -> bytes:
        change = _decode(MESSAGES.decode("Knobs", request, KnobsMessage).json, dict[str, Any])
        try:
            self.work.knobs = msgspec.convert({**msgspec.structs.asdict(self.work.knobs), **change}, SimKnobs)
        except msgspec.ValidationError as error:
            raise RequestRefusedError(400, "invalid_input", str(error)) from None
        self.work.dispatch()
        return await self._get_knobs(request)


class SimulationGRPCService:
    """One simulated service; `async with` starts it, `url` says where it listens (port 0 takes any free one)."""

    def __init__(
        self, knobs: SimKnobs | None = None, *, host: str = "127.0.0.1", port: int = 0, effects: Path | None = None
    ) -> None:
        self.effects = EffectLog(effects)
        self.work = SimulatedWork(knobs or SimKnobs(), self.effects)
        self.url = ""
        self.watchers = 0
        """Streams that go on now."""
        self._host, self._port = host, port
        self._server: grpc.aio.Server | None = None
        self._methods = Methods(self.work)
        self._closing = False

    @property
    def knobs(self) -> SimKnobs:
        """The knobs as they are now; they may be set at any time and hold for runs that begin after."""
        return self.work.knobs

    @knobs.setter
    def knobs(self, knobs: SimKnobs) -> None:
        self.work.knobs = knobs
        self.work.dispatch()

    async def __aenter__(self) -> Self:
        await self.effects.__aenter__()
        options = (("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", MESSAGE_LIMIT))
        server = grpc.aio.server(options=options)
        server.add_generic_rpc_handlers((self._handlers(),))
        host = f"[{self._host}]" if ":" in self._host else self._host
        try:
            port = _bound(server, f"{host}:{self._port}")
            await server.start()
        except BaseException:  # also when cancelled: nothing may stay open behind a start that failed
            await server.stop(None)
            await self.effects.__aexit__(None, None, None)
            raise
        self.url = f"grpc://{host}:{port}"
        self._server = server
        self._methods.started = time.monotonic()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing = True
        await self._methods.deadlines.close()
        await self.work.close()
        if self._server is not None:
            await self._server.stop(0.5)
            self._server = None
        await self.effects.__aexit__(kind, value, trace)

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
                    self._methods.burst()
                return await method(request)
            except ServiceFaultError as error:
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
            except RequestRefusedError as error:
                await _refuse(context, error)

        return answer

    async def _watch(self, request: bytes, context: Context) -> AsyncIterator[bytes]:
        self.watchers += 1
        try:
            self._methods.burst()
            asked = MESSAGES.decode("WatchRequest", request, RunMessage)
            run = self.work.find(asked.id)
            await context.send_initial_metadata(())  # a run that waits for a slot has no event yet
            async with contextlib.aclosing(self._told(run, asked.cursor)) as events:
                async for event in events:
                    yield event
        except RequestRefusedError as error:
            await _refuse(context, error)
        finally:
            self.watchers -= 1

    async def _told(self, run: Run, cursor: str) -> AsyncGenerator[bytes]:
        sent = _resume(run, cursor)
        while not self._closing:
            changed = run.changed
            while sent < len(run.events):
                event, view = run.events[sent]
                if run.fate.drop_at is not None and not run.dropped and sent >= run.fate.drop_at:
                    run.dropped = True
                    raise RequestRefusedError(503, "", "the connection was reset")
                sent += 1
                yield MESSAGES.encode("RunEvent", {"cursor": f"{run.number}-{sent}", "run": view})
                if event == "done":
                    return
            await changed.wait()


_OF_RUNS: Final = frozenset({"Submit", "Status", "Result", "TakeOver", "Cancel", "Release"})


def _bound(server: grpc.aio.Server, address: str) -> int:
    try:
        return server.add_insecure_port(address)
    except RuntimeError as error:
        raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE), address) from error


def _view(run: Run) -> bytes:
    return MESSAGES.encode("RunView", run.view())


def _resume(run: Run, cursor: str) -> int:
    number, _, sent = cursor.partition("-")
    if number != str(run.number) or not sent.isdecimal():
        return 0
    return min(int(sent), len(run.events))


def _decode(body: bytes, shape: Any) -> Any:
    try:
        return msgspec.json.decode(body, type=shape)
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise RequestRefusedError(400, "invalid_input", str(error)) from None


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
