"""Requests and answers of the Open Inference Protocol over gRPC: tensors raw, or in the field of their type."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

from msgspec import Meta, Struct

from hostler.connectors.faults import off_protocol
from hostler.connectors.services.inference.descriptor import INFERENCE
from hostler.connectors.services.inference.messages import IndexRow, InferPayload, ModelView, ServerView
from hostler.connectors.services.inference.tensors import (
    INTEGERS,
    TENSORS_MAX,
    Datatype,
    Scalar,
    Shape,
    Tensor,
    TensorError,
    TensorName,
    count_of,
    pack,
    unpack,
    without_base64,
)
from hostler.connectors.services.inference.wire import Answer, without_headers
from hostler.connectors.transports.protobuf import Messages, Method
from hostler.kernel.units import Json

MESSAGES: Final = Messages("inference", INFERENCE)
CONTENTS: Final[Mapping[Datatype, str]] = {
    Datatype.BOOL: "bool_contents",
    Datatype.INT8: "int_contents",
    Datatype.INT16: "int_contents",
    Datatype.INT32: "int_contents",
    Datatype.INT64: "int64_contents",
    Datatype.UINT8: "uint_contents",
    Datatype.UINT16: "uint_contents",
    Datatype.UINT32: "uint_contents",
    Datatype.UINT64: "uint64_contents",
    Datatype.FP32: "fp32_contents",
    Datatype.FP64: "fp64_contents",
    Datatype.BYTES: "bytes_contents",
}
"""Field of the elements of each type that are not raw; FP16 has none."""


class Said(Struct, frozen=True, kw_only=True):
    """Answer of `ServerLive`, `ServerReady` and `ModelReady`."""

    live: bool = False
    ready: bool = False


class Index(Struct, frozen=True, kw_only=True):
    """Answer of `RepositoryIndex`."""

    models: tuple[IndexRow, ...]


class OutputTensor(Struct, frozen=True, kw_only=True):
    """A tensor of an answer; without contents it is raw."""

    name: TensorName
    datatype: str
    shape: Shape
    parameters: dict[str, dict[str, Json]]
    contents: dict[str, list[Any]] = {}


class InferAnswer(Struct, frozen=True, kw_only=True):
    """Answer of `ModelInfer`, or one of `ModelStreamInfer`."""

    model_name: str
    model_version: str
    id: str
    parameters: dict[str, dict[str, Json]]
    outputs: Annotated[tuple[OutputTensor, ...], Meta(max_length=TENSORS_MAX)]
    raw_output_contents: tuple[bytes, ...]


def _method(name: str, shape: type[Any], *, message: str | None = None) -> Method[Any]:
    words = message or name
    return MESSAGES.method(f"GRPCInferenceService/{name}", f"{words}Request", f"{words}Response", shape)


SERVER_LIVE: Final[Method[Said]] = _method("ServerLive", Said)
SERVER_READY: Final[Method[Said]] = _method("ServerReady", Said)
SERVER_METADATA: Final[Method[ServerView]] = _method("ServerMetadata", ServerView)
MODEL_READY: Final[Method[Said]] = _method("ModelReady", Said)
MODEL_METADATA: Final[Method[ModelView]] = _method("ModelMetadata", ModelView)
MODEL_INFER: Final[Method[InferAnswer]] = _method("ModelInfer", InferAnswer)
MODEL_STREAM: Final[Method[InferAnswer]] = _method("ModelStreamInfer", InferAnswer, message="ModelInfer")
REPOSITORY_INDEX: Final[Method[Index]] = _method("RepositoryIndex", Index)
MODEL_LOAD: Final[Method[dict[str, Any]]] = _method("RepositoryModelLoad", dict[str, Any])
MODEL_UNLOAD: Final[Method[dict[str, Any]]] = _method("RepositoryModelUnload", dict[str, Any])


def request_of(
    payload: InferPayload, tensors: Sequence[Tensor], *, id_: str, raw: bool, doubles: bool
) -> dict[str, Any]:
    """Return the fields of a request whose tensors were judged.

    `raw` puts all tensors raw (or none: the protocol knows no mixture), and FP16 always wants it; `doubles` says that
    the server knows parameters that are no whole numbers: to one that does not they go as text.
    """
    raw = raw or any(tensor.datatype is Datatype.FP16 for tensor in tensors)
    fields: dict[str, Any] = {
        "model_name": payload.model,
        "model_version": payload.version or "",
        "id": id_,
        "parameters": parameters_of(payload.parameters, doubles=doubles),
        "inputs": [_input(tensor, raw=raw, doubles=doubles) for tensor in tensors],
        "outputs": [{"name": name} for name in payload.outputs],
    }
    if raw:
        fields["raw_input_contents"] = [pack(tensor) for tensor in tensors]
    return fields


def parameters_of(parameters: Mapping[str, Json], *, doubles: bool) -> dict[str, dict[str, Scalar]]:
    """Return parameters as the protocol writes them; what is no scalar is left out."""
    found: dict[str, dict[str, Scalar]] = {}
    for name, value in parameters.items():
        match value:
            case bool():
                found[name] = {"bool_param": value}
            case int():
                found[name] = {"int64_param": value}
            case float() if doubles:
                found[name] = {"double_param": value}
            case float():
                found[name] = {"string_param": repr(value)}
            case str():
                found[name] = {"string_param": value}
            case _:
                pass
    return found


def _input(tensor: Tensor, *, raw: bool, doubles: bool) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "name": tensor.name,
        "datatype": tensor.datatype,
        "shape": tensor.shape,
        "parameters": parameters_of(without_base64(tensor.parameters), doubles=doubles),
    }
    if not raw:
        fields["contents"] = {CONTENTS[tensor.datatype]: tensor.elements}
    return fields


def answer_of(said: InferAnswer, *, id_: str, limit: int) -> Answer:
    """Judge an answer; `limit` bounds its elements together.

    Raises the fault of one that answers another request or is off the protocol.
    """
    if said.id and said.id != id_:
        raise off_protocol(f"the service answered another request: {said.id[:100]!r}, not {id_!r}")
    if said.raw_output_contents and len(said.raw_output_contents) != len(said.outputs):
        raise off_protocol(f"the service sent {len(said.outputs)} tensors and {len(said.raw_output_contents)} raw ones")
    found: list[Tensor] = []
    try:
        for place, output in enumerate(said.outputs):
            if any(output.name == other.name for other in found):
                raise TensorError(f"there are two tensors named {output.name!r}")  # noqa: TRY301 - one list of reasons
            raw = said.raw_output_contents[place] if said.raw_output_contents else None
            tensor = _output(output, raw, limit=limit)
            limit -= len(tensor.elements)
            found.append(tensor)
    except TensorError as error:
        raise off_protocol(f"the service sent tensors that are none: {error}") from None
    return Answer(
        model=said.model_name or None,
        version=said.model_version or None,
        tensors=tuple(found),
        parameters=without_headers(_values(said.parameters)),
    )


def _output(output: OutputTensor, raw: bytes | None, *, limit: int) -> Tensor:
    try:
        datatype = Datatype(output.datatype)
    except ValueError:
        raise TensorError(f"tensor {output.name!r} has the unknown type {output.datatype[:40]!r}") from None
    if raw is not None:
        elements = unpack(datatype, output.shape, raw, limit=limit)
    else:
        elements = _contents(output, datatype, limit=limit)
    parameters = without_base64(without_headers(_values(output.parameters)))
    return Tensor(name=output.name, datatype=datatype, shape=output.shape, elements=elements, parameters=parameters)


def _contents(output: OutputTensor, datatype: Datatype, *, limit: int) -> list[Any]:
    count = count_of(output.shape, limit=limit)
    elements = output.contents.get(CONTENTS.get(datatype, ""), [])
    if len(elements) != count:
        raise TensorError(f"tensor {output.name!r} has {len(elements)} elements of {datatype}, its shape {count}")
    if datatype in INTEGERS and elements:
        low, high = INTEGERS[datatype]
        if min(elements) < low or max(elements) > high:
            raise TensorError(f"a value of tensor {output.name!r} is not from {low} to {high}")
    return elements


def _values(parameters: Mapping[str, Mapping[str, Json]]) -> dict[str, Json]:
    return {name: next(iter(choice.values()), None) for name, choice in parameters.items()}
