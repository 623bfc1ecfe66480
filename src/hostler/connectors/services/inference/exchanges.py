"""The requests that are work: inference, a stream of it, loading and unloading a model."""

import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Final, Literal, TypeVar

import msgspec
from msgspec import Struct

from hostler.connectors.direct import Report
from hostler.connectors.faults import ServiceFaultError, off_protocol
from hostler.connectors.services.inference.directory import ModelDirectory, model_path, says, state_failure
from hostler.connectors.services.inference.messages import (
    InferPayload,
    LoadPayload,
    UnloadPayload,
)
from hostler.connectors.services.inference.tensors import (
    ELEMENTS_LIMIT,
    Tensor,
)
from hostler.connectors.services.inference.terms import MLSERVER
from hostler.connectors.services.inference.wire import HEADER_LENGTH, Answer, Request, read_answer, write_request
from hostler.connectors.services.inference.work import first_text, infer_result, stream_result, understood
from hostler.connectors.stages import Stages
from hostler.connectors.transports.http import HttpStream, HttpTransport, segment
from hostler.contracts.failure import Failure, FailureClass, Stage
from hostler.contracts.job import Progress
from hostler.contracts.service import Finished
from hostler.kernel.units import Bytes

T = TypeVar("T")

BINARY: Final = "binary_tensor_data"
"""Extension that a server lists when it takes raw tensors."""
ANSWERS_MAX: Final = 100_000
"""Answers of one stream."""
OWN_CONNECTION: Final[Mapping[str, str]] = {"Connection": "close"}
"""Work shares no connection: uvicorn closes one after a 500 without saying so, under whoever sends next."""
AMBIGUOUS: Final = frozenset({400, 404, 500, 503})
"""Statuses by which servers say that a model is unknown, not ready, or that the request is bad: each its own way."""
REFUSED: Final = frozenset({400, 404})


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
            return infer_result(self._payload, await self._understood(self._answer))

    async def streamed(self, report: Report) -> Finished:
        """Do it, and take the answers as they come; texts are reported."""
        async with self._stages.within(Stage.RUN):
            return stream_result(self._payload, await self._understood(lambda: self._answers(report)))

    async def _understood(self, send: Callable[[], Awaitable[T]]) -> T:
        return await understood(send, self._directory, self._payload, ambiguous=AMBIGUOUS, refused=REFUSED)

    async def _request(self) -> Request:
        binary = self._bounds.binary
        server = await self._directory.known_server()
        return write_request(
            self._payload,
            self._tensors,
            id_=self._id,
            binary=BINARY in server.extensions if binary is None else binary,
            base64=server.name == MLSERVER,  # it takes BYTES as base64 texts, told by `content_type`
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

    async def _answers(self, report: Report) -> list[Answer]:
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
                        report(Progress(stage="streaming", text=first_text(answer) or None))
            except ServiceFaultError as error:
                raise error if heard else await self._nothing(error.failure) from error
        if not heard:
            raise await self._nothing(off_protocol("the service ended its stream without an answer").failure)
        return heard

    async def _events(self, stream: HttpStream, *, since: float) -> AsyncGenerator[Answer]:
        """Yield answers until the last; the protocol has no word for it but the proper end of the body."""
        stage = Stage.FIRST_BYTE
        elements = self._bounds.elements_limit
        async with aclosing(stream.sse(limit=self._bounds.answer_limit)) as events:
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


async def tell(http: HttpTransport, verb: Literal["load", "unload"], payload: LoadPayload | UnloadPayload) -> None:
    """Tell a server to load or unload, on a connection of its own: nothing waits behind a model that takes minutes."""
    body = msgspec.json.encode({"parameters": payload.parameters} if payload.parameters else {})
    path = f"/v2/repository/models/{segment(payload.model)}/{verb}"
    async with http.stream("POST", path, body=body, headers=OWN_CONNECTION, first_byte=None, silence=None) as stream:
        if not says(await stream.read(), verb):
            raise off_protocol(f"the service answered {stream.status}, and that it did not {verb}")
