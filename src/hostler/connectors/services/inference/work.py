"""What is the same of work that a server of the Open Inference Protocol does, whatever carries it."""

import asyncio
from collections.abc import Awaitable, Callable, Container, Sequence
from typing import Protocol, TypeVar

import msgspec
from msgspec import Raw, structs

from hostler.connectors.direct import Report
from hostler.connectors.faults import ServiceFaultError, fault, off_protocol
from hostler.connectors.services.inference.directory import state_failure
from hostler.connectors.services.inference.messages import (
    InferPayload,
    InferResult,
    LoadPayload,
    ModelResult,
    ModelState,
    StreamResult,
    UnloadPayload,
)
from hostler.connectors.services.inference.tensors import Datatype, TensorData, seal_tensor, texts_of
from hostler.connectors.services.inference.wire import Answer
from hostler.connectors.stages import Stages
from hostler.contracts.failure import Failure, FailureClass, Stage
from hostler.contracts.job import Progress
from hostler.contracts.service import Finished
from hostler.kernel.units import Seconds

T = TypeVar("T")
Tell = Callable[[], Awaitable[None]]
"""Tells the server to load or to unload; returns when it said that it will."""


class ModelStates(Protocol):
    """What can be asked of a server about one of its models; raises `ServiceFaultError` when it does not answer."""

    async def state(self, model: str, version: str | None = None) -> ModelState:
        """Ask how it is."""
        ...

    async def reason(self, model: str) -> str:
        """Ask why it is not there; empty when the server does not say."""
        ...


class OfModel(Protocol):
    """A payload that names a model, and perhaps its version."""

    @property
    def model(self) -> str:
        """Its name."""
        ...

    @property
    def version(self) -> str | None:
        """None leaves the choice to the server."""
        ...


async def understood(
    send: Callable[[], Awaitable[T]],
    states: ModelStates,
    payload: OfModel,
    *,
    ambiguous: Container[object],
    refused: Container[object],
) -> T:
    """Send; what a failure of an ambiguous status means is asked of the server, never read from text.

    A refusal by a model that is ready is believed the second time: it may just have become so.
    """
    try:
        return await send()
    except ServiceFaultError as error:
        said = error.failure
        status = said.details.get("status")
        if status in ambiguous and (meaning := await _meaning(said, states, payload)) is not None:
            raise ServiceFaultError(meaning) from error
        if status not in refused:
            raise
    return await send()


async def _meaning(said: Failure, states: ModelStates, payload: OfModel) -> Failure | None:
    """Return what a failure means by the state of the model; None when that explains nothing."""
    try:
        state = await states.state(payload.model, payload.version)
    except ServiceFaultError:
        return None
    return state_failure(state, payload.model, said)


def infer_result(payload: InferPayload, answer: Answer) -> Finished:
    """Return the end of `inference.infer`."""
    found = InferResult(
        model=answer.model or payload.model,
        version=answer.version or None,
        outputs=outputs_of(payload, answer),
        parameters=answer.parameters,
    )
    return Finished(result=Raw(msgspec.json.encode(found)))


def stream_result(payload: InferPayload, heard: Sequence[Answer]) -> Finished:
    """Return the end of `inference.stream`, which has at least one answer."""
    found = StreamResult(
        model=heard[0].model or payload.model,
        version=heard[0].version or None,
        answers=tuple(outputs_of(payload, answer) for answer in heard),
        text="".join(map(first_text, heard)),
    )
    return Finished(result=Raw(msgspec.json.encode(found)))


def outputs_of(payload: InferPayload, answer: Answer) -> tuple[TensorData, ...]:
    """Return the tensors that were asked for; raises the fault of an answer that lacks one."""
    wanted = payload.outputs
    missing = set(wanted) - {tensor.name for tensor in answer.tensors}
    if missing:
        raise off_protocol(f"the service's answer lacks the tensors {', '.join(sorted(missing))}")
    return tuple(seal_tensor(tensor) for tensor in answer.tensors if not wanted or tensor.name in wanted)


def first_text(answer: Answer) -> str:
    """Return the text of the first tensor of an answer; empty when it is none."""
    tensor = answer.tensors[0] if answer.tensors else None
    if tensor is None or tensor.datatype is not Datatype.BYTES:
        return ""
    return "".join(texts_of(tensor) or ())


async def load_model(
    tell: Tell, states: ModelStates, stages: Stages, payload: LoadPayload, report: Report, *, poll: Seconds
) -> Finished:
    """Load a model, and wait until it is ready; a load that takes too long goes on in the server."""
    report(Progress(stage="load", message=f"loading {payload.model}"))
    async with stages.within(Stage.LOAD):
        try:
            await tell()
        except ServiceFaultError as error:
            raise await _not_here(states, payload.model, error) from error
        while (state := await states.state(payload.model)) is not ModelState.READY:
            if state is not ModelState.LOADING and (reason := await states.reason(payload.model)):
                raise fault(FailureClass.CAPABILITY_MISMATCH, f"model {payload.model} did not load: {reason}")
            await asyncio.sleep(poll)
    return _model_result(payload.model, ready=True)


async def unload_model(
    tell: Tell, states: ModelStates, stages: Stages, payload: UnloadPayload, *, poll: Seconds
) -> Finished:
    """Unload a model, and wait until it is not ready; one that is not loaded is what was wanted."""
    async with stages.within(Stage.FIRST_BYTE):
        try:
            await tell()
        except ServiceFaultError as error:
            known = await _not_here(states, payload.model, error)
            if known.failure.details.get("code") != f"model_{ModelState.UNAVAILABLE}":
                raise known from error
        while True:
            if await states.state(payload.model) is not ModelState.READY:
                break
            await asyncio.sleep(poll)
    return _model_result(payload.model, ready=False)


async def _not_here(states: ModelStates, model: str, error: ServiceFaultError) -> ServiceFaultError:
    """Return what a refusal to load or unload means: another server may do it, whatever this one lacks."""
    said = error.failure
    if said.class_ not in {FailureClass.INVALID_INPUT, FailureClass.CAPABILITY_MISMATCH}:
        return error
    state = await states.state(model)
    details = {**said.details, "code": f"model_{state}"}
    return ServiceFaultError(structs.replace(said, class_=FailureClass.CAPABILITY_MISMATCH, details=details))


def _model_result(model: str, *, ready: bool) -> Finished:
    return Finished(result=Raw(msgspec.json.encode(ModelResult(model=model, ready=ready))))
