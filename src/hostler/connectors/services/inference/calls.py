"""The requests that are work, over gRPC: inference, a stream of it, loading and unloading a model."""

import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Any, Final, Literal, TypeVar

from hostler.connectors.direct import Report
from hostler.connectors.faults import off_protocol
from hostler.connectors.services.inference.exchanges import ANSWERS_MAX
from hostler.connectors.services.inference.messages import InferPayload, LoadPayload, UnloadPayload
from hostler.connectors.services.inference.repository import ModelRepository
from hostler.connectors.services.inference.rpc import (
    MODEL_INFER,
    MODEL_LOAD,
    MODEL_STREAM,
    MODEL_UNLOAD,
    InferAnswer,
    answer_of,
    parameters_of,
    request_of,
)
from hostler.connectors.services.inference.tensors import Tensor
from hostler.connectors.services.inference.terms import MLSERVER
from hostler.connectors.services.inference.wire import Answer
from hostler.connectors.services.inference.work import first_text, infer_result, stream_result, understood
from hostler.connectors.stages import Stages
from hostler.connectors.transports.conversation import Limits
from hostler.connectors.transports.grpc import CONVERSATION_MOST, GrpcConversation, GrpcTransport
from hostler.contracts.failure import Stage
from hostler.contracts.job import Progress
from hostler.contracts.service import Finished
from hostler.kernel.units import Bytes, Seconds

T = TypeVar("T")
_AMBIGUOUS: Final = frozenset(
    {"INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION", "UNAVAILABLE", "INTERNAL", "UNKNOWN"}
)
"""Statuses by which servers say that a model is unknown, not ready, or that the request is bad: each its own way."""
_REFUSED: Final = frozenset({"INVALID_ARGUMENT", "NOT_FOUND"})


class RpcInference:
    """One request whose tensors were judged; what its failure means is asked of the server, never read from text."""

    def __init__(
        self,
        grpc: GrpcTransport,
        repository: ModelRepository,
        stages: Stages,
        payload: InferPayload,
        tensors: Sequence[Tensor],
        *,
        id_: str,
        raw: bool,
        elements_limit: int,
        answer_limit: Bytes,
    ) -> None:
        """Take what to send; `id_` names the request, and its answer must name the same."""
        self._grpc = grpc
        self._repository = repository
        self._stages = stages
        self._payload = payload
        self._tensors = tensors
        self._id = id_
        self._raw = raw
        self._elements_limit = elements_limit
        self._answer_limit = answer_limit

    async def whole(self, _: Report) -> Finished:
        """Do it, and take the answer whole."""
        return infer_result(self._payload, await self._understood(self._answer))

    async def streamed(self, report: Report) -> Finished:
        """Do it, and take the answers as they come; texts are reported."""
        return stream_result(self._payload, await self._understood(lambda: self._answers(report)))

    async def _understood(self, send: Callable[[], Awaitable[T]]) -> T:
        return await understood(send, self._repository, self._payload, ambiguous=_AMBIGUOUS, refused=_REFUSED)

    async def _request(self) -> dict[str, Any]:
        server = await self._repository.known_server()
        doubles = server.name != MLSERVER
        return request_of(self._payload, self._tensors, id_=self._id, raw=self._raw, doubles=doubles)

    async def _answer(self) -> Answer:
        request = await self._request()
        within, stage = time_for(self._stages, Stage.FIRST_BYTE)
        said = await self._grpc.call(MODEL_INFER, request, within=within, stage=stage)
        return answer_of(said, id_=self._id, limit=self._elements_limit)

    async def _answers(self, report: Report) -> list[Answer]:
        request = await self._request()
        within, stage = time_for(self._stages, Stage.RUN)
        opening, _, _ = self._stages.left(Stage.FIRST_BYTE)
        limits = Limits(opening=opening, message=self._answer_limit, total=self._answer_limit)
        heard: list[Answer] = []
        async with (
            self._grpc.stream(MODEL_STREAM, request, within=within, stage=stage, limits=limits) as stream,
            aclosing(self._heard(stream)) as answers,
        ):
            async for answer in answers:
                heard.append(answer)
                report(Progress(stage="streaming", text=first_text(answer) or None))
        if not heard:
            raise off_protocol("the service ended its stream without an answer")
        return heard

    async def _heard(self, stream: GrpcConversation[InferAnswer]) -> AsyncGenerator[Answer]:
        stage, since, elements = Stage.FIRST_BYTE, time.monotonic(), self._elements_limit
        async with aclosing(stream.messages()) as messages:
            for _ in range(ANSWERS_MAX):
                async with self._stages.within(stage, since=since):
                    said = await anext(messages, None)
                if said is None:
                    return
                answer = answer_of(said, id_=self._id, limit=elements)
                elements -= sum(len(tensor.elements) for tensor in answer.tensors)
                stage, since = Stage.IDLE, time.monotonic()
                yield answer
        raise off_protocol(f"the service sent more than {ANSWERS_MAX} answers")


async def tell_rpc(
    grpc: GrpcTransport, verb: Literal["load", "unload"], payload: LoadPayload | UnloadPayload, stages: Stages
) -> None:
    """Tell a server to load or unload; it is told how long that may take."""
    method, own = (MODEL_LOAD, Stage.LOAD) if verb == "load" else (MODEL_UNLOAD, Stage.FIRST_BYTE)
    within, stage = time_for(stages, own)
    # No parameter of a repository is a fraction: the protocol has no field for one.
    request = {"model_name": payload.model, "parameters": parameters_of(payload.parameters, doubles=False)}
    await grpc.call(method, request, within=within, stage=stage)


def time_for(stages: Stages, stage: Stage) -> tuple[Seconds, Stage]:
    """Return how long a call of a stage may take, and which stage is to blame when it takes longer."""
    left, blame, _ = stages.left(stage)
    return (CONVERSATION_MOST if left is None else left), blame
