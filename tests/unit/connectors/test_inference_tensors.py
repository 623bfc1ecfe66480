"""Tensors of the Open Inference Protocol: what is one, what is none, and both encodings."""

import math
import struct
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostler.connectors.services.inference.tensors import (
    FORMATS,
    INTEGERS,
    Datatype,
    Tensor,
    TensorData,
    TensorError,
    base64_of,
    open_tensor,
    open_tensors,
    pack,
    seal_tensor,
    texts_of,
    unpack,
)

D = Datatype
FLOATS = {
    D.FP16: st.floats(width=16, allow_nan=False, allow_infinity=False),
    D.FP32: st.floats(width=32, allow_nan=False, allow_infinity=False),
    D.FP64: st.floats(width=64, allow_nan=False, allow_infinity=False),
}


def given_as(datatype: str, shape: list[int], data: list[Any], **more: Any) -> TensorData:
    return msgspec.convert({"name": "t", "datatype": datatype, "shape": shape, "data": data, **more}, TensorData)


def elements_of(datatype: Datatype) -> st.SearchStrategy[Any]:
    if datatype in INTEGERS:
        return st.integers(*INTEGERS[datatype])
    if datatype in FLOATS:
        return FLOATS[datatype]
    return st.booleans() if datatype is D.BOOL else st.binary(max_size=20)


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    datatype = draw(st.sampled_from(list(D)))
    shape = tuple(draw(st.lists(st.integers(0, 4), max_size=4)))
    count = math.prod(shape)
    return Tensor(
        name="t",
        datatype=datatype,
        shape=shape,
        elements=draw(st.lists(elements_of(datatype), min_size=count, max_size=count)),
    )


def nested(flat: list[Any], shape: tuple[int, ...]) -> list[Any]:
    if len(shape) <= 1:
        return flat
    step = math.prod(shape[1:])
    return [nested(flat[n * step : (n + 1) * step], shape[1:]) for n in range(shape[0])]


@given(tensors())
def test_every_tensor_comes_back_the_same_from_either_encoding(tensor: Tensor) -> None:
    assert unpack(tensor.datatype, tensor.shape, pack(tensor)) == tensor.elements
    sealed = seal_tensor(tensor)
    again = msgspec.json.decode(msgspec.json.encode(sealed), type=TensorData)
    assert open_tensor(again) == tensor
    assert open_tensor(msgspec.structs.replace(again, data=tuple(nested(list(again.data), tensor.shape)))) == tensor


@given(tensors(), st.integers(-3, 3).filter(bool))
def test_raw_bytes_of_another_length_are_no_tensor(tensor: Tensor, change: int) -> None:
    raw = pack(tensor)
    broken = raw[:change] if change < 0 else raw + bytes(change)
    if broken != raw:
        with pytest.raises(TensorError):
            unpack(tensor.datatype, tensor.shape, broken)


def test_raw_elements_are_little_endian_and_bytes_have_their_length_before_them() -> None:
    assert pack(open_tensor(given_as("INT32", [2], [1, -2]))) == b"\x01\0\0\0\xfe\xff\xff\xff"
    assert pack(open_tensor(given_as("FP16", [1], [1.5]))) == b"\x00\x3e"
    assert pack(open_tensor(given_as("BOOL", [2], [True, False]))) == b"\x01\x00"
    assert pack(open_tensor(given_as("BYTES", [2], ["é", ""]))) == b"\x02\0\0\0\xc3\xa9\0\0\0\0"
    assert set(FORMATS) == set(D) - {D.BYTES}


@pytest.mark.parametrize(
    ("datatype", "shape", "data"),
    [
        ("FP32", [3], [1.0, 2.0]),
        ("FP32", [2, 2], [[1.0, 2.0], [3.0]]),
        ("FP32", [2, 2], [[1.0, 2.0], 3.0, 4.0]),
        ("FP32", [4], [[1.0, 2.0], [3.0, 4.0]]),
        ("FP32", [2], [1.0, None]),
        ("FP32", [1], ["1.0"]),
        ("FP32", [1], [1e39]),
        ("FP16", [1], [65_520]),
        ("FP32", [], []),
        ("INT8", [1], [128]),
        ("UINT8", [1], [-1]),
        ("UINT64", [1], [2**64]),
        ("INT32", [1], [1.5]),
        ("INT32", [1], [True]),
        ("BOOL", [1], [1]),
        ("BYTES", [1], [7]),
        ("BYTES", [1], [{"b64": "no base64!"}]),
        ("BYTES", [1], [{"b64": "AA==", "more": 1}]),
        ("FP32", [2**40], [1.0]),
        ("FP32", [2**62, 2**62], []),
    ],
)
def test_data_that_does_not_fit_its_type_or_shape_is_no_tensor(datatype: str, shape: list[int], data: Any) -> None:
    with pytest.raises(TensorError, match="tensor 't'"):
        open_tensor(given_as(datatype, shape, data))


@pytest.mark.parametrize(
    "change", [{"datatype": "FP99"}, {"shape": [-1]}, {"shape": [1] * 33}, {"name": ""}, {"size": 4}, {"data": "1"}]
)
def test_what_has_not_the_fields_of_a_tensor_is_none(change: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"name": "t", "datatype": "FP32", "shape": [1], "data": [1.0], **change}, TensorData)


def test_the_largest_values_fit() -> None:
    for datatype, (low, high) in INTEGERS.items():
        assert open_tensor(given_as(datatype, [2], [low, high])).elements == [low, high]
    assert open_tensor(given_as("FP32", [1], [3.4028235e38])).elements == [3.4028235e38]
    assert open_tensor(given_as("FP16", [1], [65_504])).elements == [65_504.0]


def test_the_elements_of_a_message_are_bounded_together_and_no_name_comes_twice() -> None:
    one = given_as("INT8", [3], [1, 2, 3])
    other = msgspec.structs.replace(one, name="u")
    assert len(open_tensors([one, other], limit=6)) == 2
    with pytest.raises(TensorError, match="more than 2 elements"):
        open_tensors([one, other], limit=5)
    with pytest.raises(TensorError, match="two tensors named 't'"):
        open_tensors([one, one])


def test_bytes_are_text_where_they_can_be_and_base64_where_not() -> None:
    mixed = open_tensor(given_as("BYTES", [2], ["søk", {"b64": "AP8="}]))
    assert mixed.elements == ["søk".encode(), b"\x00\xff"]
    assert seal_tensor(mixed).data == ("søk", {"b64": "AP8="})
    assert texts_of(mixed) is None
    assert base64_of(mixed) == ["c8O4aw==", "AP8="]
    coded = open_tensor(given_as("BYTES", [1], ["AP8="], parameters={"content_type": "base64"}))
    assert coded.elements == [b"\x00\xff"]
    assert seal_tensor(coded).parameters == {}


def test_a_result_writes_null_for_what_json_cannot() -> None:
    raw = struct.pack("<4f", math.nan, math.inf, -math.inf, 0.5)
    tensor = Tensor(name="t", datatype=D.FP32, shape=(4,), elements=unpack(D.FP32, [4], raw))
    assert seal_tensor(tensor).data == (None, None, None, 0.5)
    assert open_tensor(given_as("FP32", [2], [None, 1.0]), nulls=True).elements == [None, 1.0]
