"""What is the same of every connector to servers of the Open Inference Protocol: kinds, versions, first judgement."""

from collections.abc import Container, Mapping
from typing import Any, Final, Literal

import msgspec
from msgspec import Struct

from hostler.connectors.faults import fault
from hostler.connectors.schemas import kind_spec
from hostler.connectors.services.inference.messages import (
    INFER,
    LOAD,
    STREAM,
    UNLOAD,
    InferPayload,
    InferResult,
    LoadPayload,
    ModelResult,
    ServerView,
    StreamResult,
    UnloadPayload,
)
from hostler.connectors.services.inference.tensors import Tensor, TensorError, open_tensors
from hostler.contracts.failure import FailureClass
from hostler.contracts.queue import KindSpec
from hostler.kernel.units import Name

SERVICE: Final = "inference"
MLSERVER: Final = "mlserver"
"""The name of a server that knows things in its own way."""
KindName = Literal["inference.infer", "inference.stream", "inference.load", "inference.unload"]
KINDS: Final[Mapping[str, tuple[str, type[Struct], Any]]] = {
    INFER: ("Put tensors through a model", InferPayload, InferResult),
    STREAM: ("Put tensors through a model that answers piece by piece", InferPayload, StreamResult),
    LOAD: ("Load a model", LoadPayload, ModelResult),
    UNLOAD: ("Unload a model", UnloadPayload, ModelResult),
}


def kinds_of(connector: str, names: Container[str] | None) -> tuple[KindSpec, ...]:
    """Return inference, streams, load and unload, or those that are named."""
    return tuple(
        kind_spec(
            name,
            queue="inference",
            about=about,
            service=SERVICE,
            connector=connector,
            payload=payload,
            result=result,
        )
        for name, (about, payload, result) in KINDS.items()
        if name in (names or KINDS)
    )


def judged(payload: InferPayload, *, limit: int) -> tuple[Tensor, ...]:
    """Judge the tensors of a payload; raises the fault `invalid_input`."""
    try:
        return open_tensors(payload.inputs, limit=limit)
    except TensorError as error:
        raise fault(FailureClass.INVALID_INPUT, f"the payload does not fit its kind: {error}") from None


def versions_of(server: ServerView) -> dict[str, str]:
    """Return the version that a server says it has, under its name; nothing where it has none."""
    try:
        return msgspec.convert({server.name.lower(): server.version} if server.version else {}, dict[Name, str])
    except msgspec.ValidationError:
        return {}
