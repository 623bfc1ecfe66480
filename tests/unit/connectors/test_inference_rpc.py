"""Requests and answers of the Open Inference Protocol over gRPC: what is written, what is believed."""

from typing import Any

import msgspec
import pytest

from hostler.connectors.faults import ServiceFaultError
from hostler.connectors.services.inference.messages import InferPayload
from hostler.connectors.services.inference.rpc import (
    CONTENTS,
    MESSAGES,
    MODEL_INFER,
    InferAnswer,
    answer_of,
    parameters_of,
    request_of,
)
from hostler.connectors.services.inference.tensors import Datatype, open_tensors
from hostler.contracts.failure import FailureClass

FLOATS = {"name": "x", "datatype": "FP32", "shape": [2], "data": [0.5, 1.5]}
BYTES = {"name": "t", "datatype": "BYTES", "shape": [2], "data": ["é", {"b64": "AP8="}]}
HALF = {"name": "h", "datatype": "FP16", "shape": [1], "data": [1.5]}
OUTPUT = {"name": "y", "datatype": "INT8", "shape": [2], "contents": {"int_contents": [1, -1]}}


def written(*tensors: dict[str, Any], raw: bool, **more: Any) -> dict[str, Any]:
    """What a server reads of a request, as its own stubs would."""
    payload = msgspec.convert({"model": "m", "inputs": tensors, **more}, InferPayload)
    fields = request_of(payload, open_tensors(payload.inputs), id_="j.1/1", raw=raw, doubles=True)
    return MESSAGES.decode("ModelInferRequest", MODEL_INFER.encode(fields), dict[str, Any])


def read(answer: dict[str, Any], *, limit: int = 100) -> list[list[Any]]:
    fields = {"model_name": "m", "id": "j.1/1", **answer}
    said: InferAnswer = MODEL_INFER.decode(MESSAGES.encode("ModelInferResponse", fields))
    return [tensor.elements for tensor in answer_of(said, id_="j.1/1", limit=limit).tensors]


def test_tensors_go_raw_one_for_each_input() -> None:
    request = written(FLOATS, BYTES, raw=True, version="2", outputs=["y"])
    assert (request["model_name"], request["model_version"], request["id"]) == ("m", "2", "j.1/1")
    assert [tensor["shape"] for tensor in request["inputs"]] == [[2], [2]]
    assert all("contents" not in tensor for tensor in request["inputs"])
    assert request["raw_input_contents"] == [
        b"\0\0\0\x3f\0\0\xc0\x3f",
        b"\x02\0\0\0" + "é".encode() + b"\x02\0\0\0\x00\xff",
    ]
    assert request["outputs"] == [{"name": "y"}]


def test_tensors_go_in_the_field_of_their_type_unless_one_has_none() -> None:
    request = written(FLOATS, BYTES, raw=False)
    fields = [{name: data for name, data in tensor["contents"].items() if data} for tensor in request["inputs"]]
    assert fields == [{"fp32_contents": [0.5, 1.5]}, {"bytes_contents": ["é".encode(), b"\x00\xff"]}]
    assert request["raw_input_contents"] == []
    assert len(written(FLOATS, HALF, raw=False)["raw_input_contents"]) == 2
    assert set(Datatype) - set(CONTENTS) == {Datatype.FP16}


def test_parameters_have_the_field_of_their_type_and_fractions_go_as_text_where_there_is_none() -> None:
    values = {"a": True, "b": 7, "c": "x", "d": 0.25}
    typed = {"a": {"bool_param": True}, "b": {"int64_param": 7}, "c": {"string_param": "x"}}
    assert parameters_of(values, doubles=True) == typed | {"d": {"double_param": 0.25}}
    assert parameters_of(values, doubles=False) == typed | {"d": {"string_param": "0.25"}}
    with pytest.raises(ServiceFaultError) as caught:
        written(FLOATS, raw=True, parameters={"seed": 2**63})
    assert caught.value.failure.class_ is FailureClass.INVALID_INPUT


def test_base64_is_undone_and_not_said_since_bytes_are_bytes_here() -> None:
    coded = {**BYTES, "shape": [1], "data": ["AP8="], "parameters": {"content_type": "base64", "k": "v"}}
    (tensor,) = written(coded, raw=False)["inputs"]
    assert tensor["contents"]["bytes_contents"] == [b"\x00\xff"]
    assert list(tensor["parameters"]) == ["k"]


def test_answers_are_read_raw_or_from_their_fields() -> None:
    assert read({"outputs": [OUTPUT]}) == [[1, -1]]
    assert read({"outputs": [{**OUTPUT, "contents": {}}], "raw_output_contents": [b"\x01\xff"]}) == [[1, -1]]
    assert read({"outputs": [{"name": "e", "datatype": "FP32", "shape": [0, 3]}]}) == [[]]
    assert read({"id": "", "outputs": [OUTPUT]}) == [[1, -1]]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"id": "other/1", "outputs": [OUTPUT]}, "another request"),
        ({"outputs": [{**OUTPUT, "shape": [3]}]}, "its shape 3"),
        ({"outputs": [{**OUTPUT, "contents": {"fp32_contents": [1.0, 2.0]}}]}, "0 elements"),
        ({"outputs": [{**OUTPUT, "contents": {"int_contents": [1, 128]}}]}, "from -128 to 127"),
        ({"outputs": [{**OUTPUT, "datatype": "INT5"}]}, "unknown type"),
        ({"outputs": [{**OUTPUT, "datatype": "FP16"}]}, "0 elements"),
        ({"outputs": [OUTPUT, OUTPUT]}, "two tensors"),
        ({"outputs": [OUTPUT], "raw_output_contents": [b"\x01"]}, "raw bytes"),
        ({"outputs": [OUTPUT], "raw_output_contents": [b"\x01\x02", b""]}, "1 tensors and 2 raw"),
        ({"outputs": [{**OUTPUT, "shape": [-1]}]}, "protocol"),
        ({"outputs": [{**OUTPUT, "shape": [2**40, 2**40]}]}, "more than 100 elements"),
        ({"outputs": [OUTPUT] * 2_000}, "protocol"),
    ],
    ids=lambda value: value.replace(" ", "-") if isinstance(value, str) else "answer",
)
def test_an_answer_that_is_none_is_off_the_protocol(answer: dict[str, Any], words: str) -> None:
    with pytest.raises(ServiceFaultError, match=words) as caught:
        read(answer)
    assert caught.value.failure.class_ is FailureClass.TRANSIENT
    assert caught.value.failure.details["protocol"] is True


def test_the_limit_of_elements_holds_for_all_tensors_together() -> None:
    two = {"outputs": [OUTPUT, {**OUTPUT, "name": "z"}]}
    assert len(read(two, limit=4)) == 2
    with pytest.raises(ServiceFaultError, match="more than 1 elements"):
        read(two, limit=3)
