"""Tensors of the Open Inference Protocol: judged against their shape and type, and their two encodings.

As JSON a tensor is a list, flat in row-major order or nested by its shape. Raw it is its elements one after
the other, little-endian, without padding; an element of BYTES has its length before it (4 bytes). FP16
has no field of its own in gRPC and no JSON on Triton, so there it is always raw.
"""

import base64
import binascii
import math
import struct
from collections.abc import Mapping, Sequence
from enum import StrEnum
from itertools import chain
from typing import Annotated, Any, Final, cast

import msgspec
from msgspec import Meta, Struct

from hostler.kernel.units import Json

ELEMENTS_LIMIT: Final = 4_194_304
"""Elements that all tensors of one message may have together, unless an option says otherwise."""
RANK_MAX: Final = 32
TENSORS_MAX: Final = 1_024
"""Tensors of one message."""
LENGTH_BYTES: Final = 4
"""Bytes of the length that stands before each raw element of BYTES."""
BASE64: Final = "base64"
"""What `parameters.content_type` says of BYTES whose JSON strings are base64 (MLServer's word)."""


class Datatype(StrEnum):
    """Types of elements."""

    BOOL = "BOOL"
    UINT8 = "UINT8"
    UINT16 = "UINT16"
    UINT32 = "UINT32"
    UINT64 = "UINT64"
    INT8 = "INT8"
    INT16 = "INT16"
    INT32 = "INT32"
    INT64 = "INT64"
    FP16 = "FP16"
    FP32 = "FP32"
    FP64 = "FP64"
    BYTES = "BYTES"


FORMATS: Final[Mapping[Datatype, str]] = {
    Datatype.BOOL: "?",
    Datatype.UINT8: "B",
    Datatype.UINT16: "H",
    Datatype.UINT32: "I",
    Datatype.UINT64: "Q",
    Datatype.INT8: "b",
    Datatype.INT16: "h",
    Datatype.INT32: "i",
    Datatype.INT64: "q",
    Datatype.FP16: "e",
    Datatype.FP32: "f",
    Datatype.FP64: "d",
}
"""Code of one raw element for `struct`; BYTES has none."""
INTEGERS: Final[Mapping[Datatype, tuple[int, int]]] = {
    Datatype.UINT8: (0, 2**8 - 1),
    Datatype.UINT16: (0, 2**16 - 1),
    Datatype.UINT32: (0, 2**32 - 1),
    Datatype.UINT64: (0, 2**64 - 1),
    Datatype.INT8: (-(2**7), 2**7 - 1),
    Datatype.INT16: (-(2**15), 2**15 - 1),
    Datatype.INT32: (-(2**31), 2**31 - 1),
    Datatype.INT64: (-(2**63), 2**63 - 1),
}
"""Smallest and largest value."""
FLOATS: Final[Mapping[Datatype, float]] = {
    Datatype.FP16: 65_520.0,
    Datatype.FP32: 3.4028235677973366e38,
    Datatype.FP64: math.inf,
}
"""First magnitude that would round to infinity."""

Scalar = bool | int | float | str
"""Value of a parameter."""
Shape = Annotated[tuple[Annotated[int, Meta(ge=0)], ...], Meta(max_length=RANK_MAX)]
TensorName = Annotated[str, Meta(min_length=1, max_length=256)]
Element = bool | int | float | bytes | None
"""None stands for a float that is no number, or infinite: JSON has neither."""


class TensorError(ValueError):
    """A tensor is not what it says; whoever catches it knows whether ours or the service's."""


class Base64(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bytes that are no UTF-8 text."""

    b64: str


class TensorData(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A tensor in a payload or a result."""

    name: TensorName
    datatype: Datatype
    shape: Shape
    data: tuple[Json, ...]
    """Flat in row-major order (so are results), or nested by the shape.

    BYTES are texts, or `{"b64": …}` where they are no UTF-8. In a result null is a float that is no number or infinite.
    """
    parameters: dict[str, Json] = {}
    """Passed to the service as they are; with `content_type` base64, BYTES in `data` are base64 texts."""


class Tensor(Struct, frozen=True, kw_only=True):
    """A tensor that was judged: as many elements as its shape says, each of its type."""

    name: str
    datatype: Datatype
    shape: tuple[int, ...]
    elements: list[Any]
    """`Element`s in row-major order."""
    parameters: dict[str, Json] = {}


def count_of(shape: Sequence[int], *, limit: int = ELEMENTS_LIMIT) -> int:
    """Return how many elements a shape has; raises `TensorError` above the limit or below zero."""
    if len(shape) > RANK_MAX or any(size < 0 for size in shape):
        raise TensorError(f"shape {list(shape[:RANK_MAX])} is not of at most {RANK_MAX} sizes from 0")
    count = math.prod(shape)
    if count > limit:
        raise TensorError(f"shape {list(shape)} has more than {limit} elements")
    return count


def open_tensors(tensors: Sequence[TensorData], *, limit: int = ELEMENTS_LIMIT) -> tuple[Tensor, ...]:
    """Judge the tensors of one message; `limit` bounds their elements together."""
    if len(tensors) > TENSORS_MAX:
        raise TensorError(f"there are more than {TENSORS_MAX} tensors")
    found: list[Tensor] = []
    for tensor in tensors:
        if any(tensor.name == other.name for other in found):
            raise TensorError(f"there are two tensors named {tensor.name!r}")
        opened = open_tensor(tensor, limit=limit)
        limit -= len(opened.elements)
        found.append(opened)
    return tuple(found)


def open_tensor(tensor: TensorData, *, limit: int = ELEMENTS_LIMIT, nulls: bool = False) -> Tensor:
    """Judge one tensor; with `nulls` a float may be null, as servers write one that is no number."""
    try:
        count = count_of(tensor.shape, limit=limit)
        flat = _flat(list(tensor.data), tensor.shape, count)
        elements = _elements(tensor, flat, nulls=nulls)
    except (TensorError, msgspec.ValidationError, UnicodeError) as error:
        raise TensorError(f"tensor {tensor.name!r} ({tensor.datatype}): {error}") from None
    return Tensor(
        name=tensor.name,
        datatype=tensor.datatype,
        shape=tensor.shape,
        elements=elements,
        parameters=tensor.parameters,
    )


def seal_tensor(tensor: Tensor) -> TensorData:
    """Return a tensor as a result shows it: flat, BYTES as text where they are UTF-8, floats that are none as null."""
    parameters, elements = tensor.parameters, tensor.elements
    if tensor.datatype is Datatype.BYTES:
        parameters = without_base64(parameters)
        elements = [_text_or_base64(element) for element in elements]
    elif tensor.datatype in FLOATS:
        elements = [element if element is None or math.isfinite(element) else None for element in elements]
    return TensorData(
        name=tensor.name,
        datatype=tensor.datatype,
        shape=tensor.shape,
        data=tuple(elements),
        parameters=parameters,
    )


def texts_of(tensor: Tensor) -> list[str] | None:
    """Return the elements of BYTES as texts; None when one is no UTF-8."""
    try:
        return [element.decode() for element in tensor.elements]
    except UnicodeDecodeError:
        return None


def base64_of(tensor: Tensor) -> list[str]:
    """Return the elements of BYTES as base64 texts."""
    return [base64.b64encode(element).decode() for element in tensor.elements]


def is_base64(parameters: Mapping[str, Json]) -> bool:
    """Tell whether parameters say that texts of BYTES are base64."""
    return parameters.get("content_type") == BASE64


def without_base64(parameters: dict[str, Json]) -> dict[str, Json]:
    """Return parameters that do not call BYTES base64: raw ones are what they are."""
    if not is_base64(parameters):
        return parameters
    return {name: value for name, value in parameters.items() if name != "content_type"}


def pack(tensor: Tensor) -> bytes:
    """Return the elements raw."""
    if tensor.datatype is Datatype.BYTES:
        return b"".join(len(element).to_bytes(LENGTH_BYTES, "little") + element for element in tensor.elements)
    return struct.pack(f"<{len(tensor.elements)}{FORMATS[tensor.datatype]}", *tensor.elements)


def unpack(datatype: Datatype, shape: Sequence[int], raw: bytes, *, limit: int = ELEMENTS_LIMIT) -> list[Any]:
    """Return the elements that `raw` holds; raises `TensorError` unless it is as long as the shape says."""
    count = count_of(shape, limit=limit)
    if datatype is Datatype.BYTES:
        return _unpack_bytes(count, raw)
    code = f"<{count}{FORMATS[datatype]}"
    if struct.calcsize(code) != len(raw):
        raise TensorError(f"{len(raw)} raw bytes are not {count} elements of {datatype}")
    return list(struct.unpack(code, raw))


def _unpack_bytes(count: int, raw: bytes) -> list[bytes]:
    found: list[bytes] = []
    place = 0
    for _ in range(count):
        begin = place + LENGTH_BYTES
        place = begin + int.from_bytes(raw[place:begin], "little")
        if begin > len(raw) or place > len(raw):
            raise TensorError(f"{len(raw)} raw bytes end within element {len(found)} of {count}")
        found.append(raw[begin:place])
    if place != len(raw):
        raise TensorError(f"{len(raw) - place} raw bytes follow the last of {count} elements")
    return found


def _flat(data: list[Any], shape: Sequence[int], count: int) -> list[Any]:
    """Return data flat; nested data must nest exactly as the shape says."""
    nested = any(isinstance(item, list | tuple) for item in data)
    for depth, size in enumerate(shape[1:] if nested else (), 1):
        if not all(isinstance(item, list | tuple) and len(cast("list[Any]", item)) == size for item in data):
            raise TensorError(f"data does not nest as shape {list(shape)} at depth {depth}")
        data = list(chain.from_iterable(data))
    if len(data) != count:
        raise TensorError(f"data has {len(data)} elements, shape {list(shape)} has {count}")
    return data


def _elements(tensor: TensorData, flat: list[Any], *, nulls: bool) -> list[Any]:
    datatype = tensor.datatype
    match datatype:
        case Datatype.BOOL:
            return msgspec.convert(flat, list[bool])
        case Datatype.BYTES:
            coded = is_base64(tensor.parameters)
            return [_bytes(item, coded=coded) for item in msgspec.convert(flat, list[str | Base64])]
        case Datatype.FP16 | Datatype.FP32 | Datatype.FP64:
            if nulls and None in flat:
                floats = [item for item in msgspec.convert(flat, list[float | None]) if item is not None]
            else:
                floats = flat = msgspec.convert(flat, list[float])
            edge = FLOATS[datatype]
            if floats and not (max(floats) < edge and min(floats) > -edge):
                raise TensorError(f"a value is no finite {datatype}")
            return flat
        case _:
            numbers = msgspec.convert(flat, list[int])
            low, high = INTEGERS[datatype]
            if numbers and (min(numbers) < low or max(numbers) > high):
                raise TensorError(f"a value is not from {low} to {high}")
            return numbers


def _bytes(item: str | Base64, *, coded: bool) -> bytes:
    text = item.b64 if isinstance(item, Base64) else item
    if not (coded or isinstance(item, Base64)):
        return text.encode()
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise TensorError(f"not base64: {error}") from None


def _text_or_base64(element: bytes) -> Json:
    try:
        return element.decode()
    except UnicodeDecodeError:
        return {"b64": base64.b64encode(element).decode()}
