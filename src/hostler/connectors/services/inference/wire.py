"""Requests and answers of the Open Inference Protocol over HTTP: JSON, and raw tensors behind it where both can."""

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from msgspec import UNSET, Struct

from hostler.connectors.faults import ServiceFaultError, failure, fault, off_protocol
from hostler.connectors.services.inference.messages import InferPayload, WireAnswer, WireTensor
from hostler.connectors.services.inference.tensors import (
    BASE64,
    Datatype,
    Tensor,
    TensorData,
    TensorError,
    base64_of,
    is_base64,
    open_tensor,
    pack,
    texts_of,
    unpack,
    without_base64,
)
from hostler.connectors.transports.http_faults import words_of
from hostler.contracts.failure import FailureClass
from hostler.kernel.units import Json

HEADER_LENGTH: Final = "Inference-Header-Content-Length"
"""Bytes of the JSON that stands before the raw tensors."""
SIZE: Final = "binary_data_size"


class Request(Struct, frozen=True, kw_only=True):
    """A request that is ready to be sent."""

    body: bytes
    headers: dict[str, str] = {}


class Answer(Struct, frozen=True, kw_only=True):
    """An answer that was judged."""

    model: str | None
    version: str | None
    tensors: tuple[Tensor, ...]
    parameters: dict[str, Json]


def write_request(payload: InferPayload, tensors: Sequence[Tensor], *, id_: str, binary: bool, base64: bool) -> Request:
    """Return the request of a payload whose tensors were judged.

    `binary` puts tensors raw behind the JSON and asks for such an answer. `base64` says that the server takes
    BYTES as base64 texts where they are no UTF-8; one that takes neither cannot be given them.
    """
    fields: dict[str, Any] = {"id": id_}
    parameters: dict[str, Json] = dict(payload.parameters)
    if binary:
        parameters["binary_data_output"] = True
    if parameters:
        fields["parameters"] = parameters
    raw = [pack(tensor) for tensor in tensors] if binary else []
    if binary:
        fields["inputs"] = [_raw_input(tensor, len(data)) for tensor, data in zip(tensors, raw, strict=True)]
    else:
        fields["inputs"] = [_json_input(tensor, base64=base64) for tensor in tensors]
    if payload.outputs:
        fields["outputs"] = [{"name": name} for name in payload.outputs]
    head = msgspec.json.encode(fields)
    if not binary:
        return Request(body=head)
    headers = {HEADER_LENGTH: str(len(head)), "Content-Type": "application/octet-stream"}
    return Request(body=b"".join((head, *raw)), headers=headers)


def _input(tensor: Tensor, parameters: dict[str, Json]) -> dict[str, Json]:
    fields: dict[str, Json] = {"name": tensor.name, "shape": tensor.shape, "datatype": tensor.datatype}
    if parameters:
        fields["parameters"] = parameters
    return fields


def _raw_input(tensor: Tensor, size: int) -> dict[str, Json]:
    return _input(tensor, {**without_base64(tensor.parameters), SIZE: size})


def _json_input(tensor: Tensor, *, base64: bool) -> dict[str, Json]:
    if tensor.datatype is not Datatype.BYTES:
        return {**_input(tensor, tensor.parameters), "data": tensor.elements}
    texts = None if is_base64(tensor.parameters) else texts_of(tensor)
    if texts is not None:
        return {**_input(tensor, tensor.parameters), "data": texts}
    if not (base64 or is_base64(tensor.parameters)):
        raise fault(
            FailureClass.CAPABILITY_MISMATCH,
            f"tensor {tensor.name!r} holds bytes that are no UTF-8, and this server takes only text",
            code="binary_tensor_data",
        )
    return {**_input(tensor, {**tensor.parameters, "content_type": BASE64}), "data": base64_of(tensor)}


def read_answer(body: bytes, *, head: str | None, id_: str, limit: int) -> Answer:
    """Judge an answer; `head` is its `Inference-Header-Content-Length`, `limit` bounds its elements together.

    Raises the fault of one that says no whatever its status, answers another request, or is off the protocol.
    """
    length = _length(head, len(body))
    try:
        said = msgspec.json.decode(memoryview(body)[:length], type=WireAnswer)
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise off_protocol(f"the service sent an answer that is not its protocol: {error}") from None
    if said.error is not UNSET and bytes(said.error) != b"null":
        words = words_of(b'{"error":' + bytes(said.error) + b"}")
        raise ServiceFaultError(failure(FailureClass.TRANSIENT, words.message or "the service sent an error"))
    if said.outputs is None:
        raise off_protocol("the service sent an answer without outputs")
    if said.id and said.id != id_:
        raise off_protocol(f"the service answered another request: {said.id[:100]!r}, not {id_!r}")
    try:
        tensors = _tensors(said.outputs, body[length:], limit=limit)
    except TensorError as error:
        raise off_protocol(f"the service sent tensors that are none: {error}") from None
    return Answer(
        model=said.model_name,
        version=said.model_version,
        tensors=tensors,
        parameters=without_headers(said.parameters),
    )


def without_headers(parameters: dict[str, Json] | None) -> dict[str, Json]:
    """Return parameters of an answer without the HTTP headers that MLServer puts there."""
    return {name: value for name, value in (parameters or {}).items() if name != "headers"}


def _length(head: str | None, size: int) -> int:
    if head is None:
        return size
    if not head.isascii() or not head.isdigit() or len(head) > len(str(size)) or int(head) > size:
        raise off_protocol(f"the service sent {size} bytes, of which {head[:40]!r} are to be JSON")
    return int(head)


def _tensors(outputs: Sequence[WireTensor], raw: bytes, *, limit: int) -> tuple[Tensor, ...]:
    found: list[Tensor] = []
    place = 0
    for output in outputs:
        if any(output.name == other.name for other in found):
            raise TensorError(f"there are two tensors named {output.name!r}")
        size = (output.parameters or {}).get(SIZE) if output.data is UNSET else 0
        if not isinstance(size, int) or not 0 <= size <= len(raw) - place:
            raise TensorError(f"tensor {output.name!r} has no data")
        tensor = _tensor(output, raw[place : place + size], limit=limit)
        limit -= len(tensor.elements)
        place += size
        found.append(tensor)
    if place != len(raw):
        raise TensorError(f"{len(raw) - place} raw bytes belong to no tensor")
    return tuple(found)


def _tensor(output: WireTensor, raw: bytes, *, limit: int) -> Tensor:
    try:
        datatype = Datatype(output.datatype)
    except ValueError:
        raise TensorError(f"tensor {output.name!r} has the unknown type {output.datatype[:40]!r}") from None
    parameters = {name: value for name, value in without_headers(output.parameters).items() if name != SIZE}
    if output.data is UNSET:
        return Tensor(
            name=output.name,
            datatype=datatype,
            shape=output.shape,
            elements=unpack(datatype, output.shape, raw, limit=limit),
            parameters=parameters,
        )
    try:
        data = msgspec.json.decode(output.data, type=tuple[Any, ...])
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise TensorError(f"tensor {output.name!r}: {error}") from None
    listed = TensorData(name=output.name, datatype=datatype, shape=output.shape, data=data, parameters=parameters)
    return open_tensor(listed, limit=limit, nulls=True)
