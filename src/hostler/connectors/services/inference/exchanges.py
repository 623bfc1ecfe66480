"""The requests that are work: inference, a stream of it, loading and unloading a model."""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Final, Literal, TypeVar

import msgspec
from msgspec import Raw, Struct, structs

from hostler.connectors.direct import Report
from hostler.connectors.faults import ServiceFaultError, fault, off_protocol
from hostler.connectors.services.inference.directory import ModelDirectory, model_path, says, state_failure
from hostler.connectors.services.inference.messages import (
    InferPayload,
    InferResult,
    LoadPayload,
    ModelResult,
    ModelState,
    StreamResult,
    UnloadPayload,
)
from hostler.connectors.services.inference.tensors import (
    ELEMENTS_LIMIT,
    Datatype,
    Tensor,
    TensorData,
    seal_tensor,
    texts_of,
)
from hostler.connectors.services.inference.wire import HEADER_LENGTH, Answer, Request, read_answer, write_request
from hostler.connectors.stages import Stages
from hostler.connectors.transports.http import HttpStream, HttpTransport, segment
from hostler.contracts.failure import Failure, FailureClass, Stage
from hostler.contracts.job import Progress
from hostler.contracts.service import Finished
from hostler.kernel.units import Bytes, Seconds

T = TypeVar("T")

BINARY: Final = "binary_tensor_data"
"""Extension that a server lists when it takes raw tensors."""
MLSERVER: Final = "mlserver"
"""The server that takes BYTES as base64 texts, told by `content_type`."""
ANSWERS_MAX: Final = 100_000
"""Answers of one stream."""
OWN_CONNECTION: Final[Mapping[str, str]] = {"Connection": "close"}
"""Work shares no connection: uvicorn closes one after a 500 without saying so, under whoever sends next."""
_AMBIGUOUS: Final = frozenset({400, 404, 500, 503})
"""Statuses by which servers say that a model is unknown, not ready, or that the request is bad: each its own way."""
_REFUSED: Final = frozenset({400, 404})


class Bounds(Struct, frozen=True, kw_only=True):
    """What the options say about requests and answers."""

    binary: bool | None
    answer_limit: Bytes
    elements_limit: int = ELEMENTS_LIMIT


class Inference:
    """One request whose tensors were judged; what its failure means is asked of the server, never read from text."""

    def __init__(
        self,
        http: HttpTransport,
        directory: ModelDirectory,
        stages: Stages,
        payload: InferPayload,
        tensors: Sequence[Tensor],
        *,
        id_: str,
        bounds: Bounds,
    ) -> None:
        """Take what to send; `id_` names the request, and its answer must name the same."""
        self._http = http
        self._directory = directory
        self._stages = stages
        self._payload = payload
        self._tensors = tensors
        self._id = id_
        self._bounds = bounds
        self._path = model_path(payload.model, payload.version)

    async def whole(self, _: Report) -> Finished:
        """Do it, and take the answer whole."""
        async with self._stages.within(Stage.RUN):
            answer = await self._understood(self._answer)
        found = InferResult(
            model=answer.model or self._payload.model,
            version=answer.version or None,
            outputs=self._outputs(answer),
            parameters=answer.parameters,
        )
        return Finished(result=Raw(msgspec.json.encode(found)))

    async def streamed(self, report: Report) -> Finished:
        """Do it, and take the answers as they come; texts are reported."""
        async with self._stages.within(Stage.RUN):
            found = await self._understood(lambda: self._answers(report))
        return Finished(result=Raw(msgspec.json.encode(found)))

    async def _understood(self, send: Callable[[], Awaitable[T]]) -> T:
        """Send; a refusal by a model that is ready is believed the second time: it may just have become so."""
        try:
            return await send()
        except ServiceFaultError as error:
            said = error.failure
            if (meaning := await self._meaning(said)) is not None:
                raise ServiceFaultError(meaning) from error
            if said.details.get("status") not in _REFUSED:
                raise
        return await send()

    async def _meaning(self, said: Failure) -> Failure | None:
        """Return what a failure means by the state of the model; None when that explains nothing."""
        if said.details.get("status") not in _AMBIGUOUS:
            return None
        try:
            state = await self._directory.state(self._payload.model, self._payload.version)
        except ServiceFaultError:
            return None
        return state_failure(state, self._payload.model, said)

    async def _request(self) -> Request:
        binary = self._bounds.binary
        server = await self._directory.known_server()
        return write_request(
            self._payload,
            self._tensors,
            id_=self._id,
            binary=BINARY in server.extensions if binary is None else binary,
            base64=server.name == MLSERVER,
        )

    async def _answer(self) -> Answer:
        request = await self._request()
        first_byte, _, _ = self._stages.left(Stage.FIRST_BYTE)
        idle, _, _ = self._stages.left(Stage.IDLE)
        async with self._http.stream(
            "POST",
            f"{self._path}/infer",
            body=request.body,
            headers={**request.headers, **OWN_CONNECTION},
            first_byte=first_byte,
            silence=idle,
            limit=self._bounds.answer_limit,
        ) as stream:
            body = await stream.read()
            head = stream.headers.get(HEADER_LENGTH)
        return read_answer(body, head=head, id_=self._id, limit=self._bounds.elements_limit)

    async def _answers(self, report: Report) -> StreamResult:
        since = time.monotonic()
        first_byte, _, _ = self._stages.left(Stage.FIRST_BYTE)
        request = write_request(self._payload, self._tensors, id_=self._id, binary=False, base64=True)
        heard: list[Answer] = []
        async with self._http.stream(
            "POST",
            f"{self._path}/infer_stream",
            body=request.body,
            headers={**request.headers, **OWN_CONNECTION, "Accept": "text/event-stream"},
            first_byte=first_byte,
            silence=None,
            limit=self._bounds.answer_limit,
        ) as stream:
            await stream.expect("text/event-stream")
            try:
                async with aclosing(self._events(stream, since=since)) as answers:
                    async for answer in answers:
                        heard.append(answer)
                        report(Progress(stage="streaming", text=_first_text(answer) or None))
            except ServiceFaultError as error:
                raise error if heard else await self._nothing(error.failure) from error
        if not heard:
            raise await self._nothing(off_protocol("the service ended its stream without an answer").failure)
        return StreamResult(
            model=heard[0].model or self._payload.model,
            version=heard[0].version or None,
            answers=tuple(self._outputs(answer) for answer in heard),
            text="".join(map(_first_text, heard)),
        )

    async def _events(self, stream: HttpStream, *, since: float) -> AsyncGenerator[Answer]:
        """Yield answers until the last; the protocol has no word for it but the proper end of the body."""
        stage = Stage.FIRST_BYTE
        elements = self._bounds.elements_limit
        async with aclosing(stream.sse()) as events:
            for _ in range(ANSWERS_MAX):
                async with self._stages.within(stage, since=since):
                    event = await anext(events, None)
                if event is None:
                    return
                answer = read_answer(event.data.encode(), head=None, id_=self._id, limit=elements)
                elements -= sum(len(tensor.elements) for tensor in answer.tensors)
                stage, since = Stage.IDLE, time.monotonic()
                yield answer
        raise off_protocol(f"the service sent more than {ANSWERS_MAX} answers")

    async def _nothing(self, said: Failure) -> ServiceFaultError:
        """Return the fault of a stream without an answer: MLServer's only word, under status 200, for any failure."""
        if said.class_ is not FailureClass.TRANSIENT:
            return ServiceFaultError(said)
        state = await self._directory.state(self._payload.model, self._payload.version)
        return ServiceFaultError(state_failure(state, self._payload.model, said) or said)

    def _outputs(self, answer: Answer) -> tuple[TensorData, ...]:
        """Return the tensors that were asked for; raises the fault of an answer that lacks one."""
        wanted = self._payload.outputs
        missing = set(wanted) - {tensor.name for tensor in answer.tensors}
        if missing:
            raise off_protocol(f"the service's answer lacks the tensors {', '.join(sorted(missing))}")
        return tuple(seal_tensor(tensor) for tensor in answer.tensors if not wanted or tensor.name in wanted)


async def load_model(
    http: HttpTransport,
    directory: ModelDirectory,
    stages: Stages,
    payload: LoadPayload,
    report: Report,
    *,
    poll: Seconds,
) -> Finished:
    """Load a model, and wait until it is ready; a load that takes too long goes on in the server."""
    report(Progress(stage="load", message=f"loading {payload.model}"))
    async with stages.within(Stage.LOAD):
        try:
            await _tell(http, "load", payload)
        except ServiceFaultError as error:
            raise await _not_here(directory, payload.model, error) from error
        while (state := await directory.state(payload.model)) is not ModelState.READY:
            if state is not ModelState.LOADING and (reason := await directory.reason(payload.model)):
                raise fault(FailureClass.CAPABILITY_MISMATCH, f"model {payload.model} did not load: {reason}")
            await asyncio.sleep(poll)
    return _finished(payload.model, ready=True)


async def unload_model(
    http: HttpTransport, directory: ModelDirectory, stages: Stages, payload: UnloadPayload, *, poll: Seconds
) -> Finished:
    """Unload a model, and wait until it is not ready; one that is not loaded is what was wanted."""
    async with stages.within(Stage.FIRST_BYTE):
        try:
            await _tell(http, "unload", payload)
        except ServiceFaultError as error:
            known = await _not_here(directory, payload.model, error)
            if known.failure.details.get("code") != f"model_{ModelState.UNAVAILABLE}":
                raise known from error
        while True:
            if await directory.state(payload.model) is not ModelState.READY:
                break
            await asyncio.sleep(poll)
    return _finished(payload.model, ready=False)


async def _tell(http: HttpTransport, verb: Literal["load", "unload"], payload: LoadPayload | UnloadPayload) -> None:
    """Send it on a connection of its own: nothing else waits behind a model that takes minutes."""
    body = msgspec.json.encode({"parameters": payload.parameters} if payload.parameters else {})
    path = f"/v2/repository/models/{segment(payload.model)}/{verb}"
    async with http.stream("POST", path, body=body, headers=OWN_CONNECTION, first_byte=None, silence=None) as stream:
        if not says(await stream.read(), verb):
            raise off_protocol(f"the service answered {stream.status}, and that it did not {verb}")


async def _not_here(directory: ModelDirectory, model: str, error: ServiceFaultError) -> ServiceFaultError:
    """Return what a refusal to load or unload means: another server may do it, whatever this one lacks."""
    said = error.failure
    if said.class_ not in {FailureClass.INVALID_INPUT, FailureClass.CAPABILITY_MISMATCH}:
        return error
    state = await directory.state(model)
    details = {**said.details, "code": f"model_{state}"}
    return ServiceFaultError(structs.replace(said, class_=FailureClass.CAPABILITY_MISMATCH, details=details))


def _finished(model: str, *, ready: bool) -> Finished:
    return Finished(result=Raw(msgspec.json.encode(ModelResult(model=model, ready=ready))))


def _first_text(answer: Answer) -> str:
    tensor = answer.tensors[0] if answer.tensors else None
    if tensor is None or tensor.datatype is not Datatype.BYTES:
        return ""
    return "".join(texts_of(tensor) or ())
