"""What an answer of A1111's API means, whoever gives it."""

import base64
import json
from typing import Any

import pytest
from multidict import CIMultiDict, CIMultiDictProxy

from hostler.connectors.faults import ServiceFaultError
from hostler.connectors.services.a1111.judge import fault_of, images_of
from hostler.connectors.services.a1111.messages import ModelRow
from hostler.connectors.transports.http import Answer
from hostler.contracts.failure import FailureClass
from hostler.testing.sims.pictures import picture

C = FailureClass
PICTURE = base64.b64encode(picture(1, "x", width=8, height=8)).decode()
NO_HEADERS = CIMultiDictProxy(CIMultiDict[str]())


def answer(images: list[str], **info: Any) -> bytes:
    return json.dumps({"images": images, "parameters": {}, "info": json.dumps(info)}).encode()


@pytest.mark.parametrize(
    "body",
    [
        answer([]),
        answer([PICTURE]),
        answer([PICTURE, PICTURE], index_of_first_image=1),
        answer([PICTURE, "not base64!"]),
        answer([PICTURE, base64.b64encode(b"<html>").decode()]),
        json.dumps({"images": [PICTURE, PICTURE], "info": "not json"}).encode(),
        b'{"detail": "all is well"}',
        b"<html>",
    ],
)
def test_an_answer_without_all_its_pictures_is_no_success(body: bytes) -> None:
    with pytest.raises(ServiceFaultError) as caught:
        images_of(body, count=2, model=None)
    assert caught.value.failure.class_ is C.TRANSIENT


def test_pictures_of_another_checkpoint_are_no_success() -> None:
    model = ModelRow(title="large.safetensors [abc]", model_name="large", hash="abc")
    for info in ({"sd_model_name": "large"}, {"sd_model_name": "renamed", "sd_model_hash": "abc"}, {}):
        images_of(answer([PICTURE], **info), count=1, model=model)
    with pytest.raises(ServiceFaultError) as caught:
        images_of(answer([PICTURE], sd_model_name="small", sd_model_hash="def"), count=1, model=model)
    assert caught.value.failure.class_ is C.CAPABILITY_MISMATCH


@pytest.mark.parametrize(
    ("status", "body", "class_", "words"),
    [
        (500, {"error": "OutOfMemoryError", "detail": "", "errors": "CUDA out of memory."}, C.OUT_OF_MEMORY, "CUDA"),
        (500, {"error": "RuntimeError", "detail": "", "errors": "HIP out of memory"}, C.OUT_OF_MEMORY, "HIP"),
        (500, {"error": "RuntimeError", "message": "CUDA out of memory"}, C.OUT_OF_MEMORY, "CUDA"),
        (500, {"error": "NansException", "detail": "", "errors": "all NaNs"}, C.TRANSIENT, "all NaNs"),
        (500, {"error": "HTTPException", "detail": "Invalid encoded image"}, C.INVALID_INPUT, "Invalid encoded"),
        (500, {"detail": "Invalid encoded image"}, C.INVALID_INPUT, "Invalid encoded"),
        (422, {"detail": [{"loc": ["body", "steps"], "msg": "no integer"}]}, C.INVALID_INPUT, "no integer"),
        (422, {"error": "HTTPException", "detail": "Script 'x' not found"}, C.CAPABILITY_MISMATCH, "Script"),
        (404, {"detail": "Not Found"}, C.CAPABILITY_MISMATCH, "Not Found"),
        (401, {"detail": "Incorrect username or password"}, C.AUTH, "Incorrect"),
        (503, {"detail": ""}, C.OVERLOADED, "503"),
    ],
)
def test_a_refusal_is_judged_by_its_exception_and_status(
    status: int, body: dict[str, Any], class_: FailureClass, words: str
) -> None:
    found = fault_of(Answer(status, NO_HEADERS, json.dumps(body).encode())).failure
    assert found.class_ is class_
    assert words in found.message


def test_a_refusal_in_html_is_judged_by_its_status() -> None:
    assert fault_of(Answer(502, NO_HEADERS, b"<html>Bad Gateway")).failure.class_ is C.TRANSIENT
