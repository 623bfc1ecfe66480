"""A payload in the words of the OpenAI API becomes a request in Ollama's."""

import json
from typing import Any

import pytest
from msgspec import Raw

from hostler.connectors.faults import ServiceFaultError
from hostler.connectors.services.ollama.lines import PullMeter
from hostler.connectors.services.ollama.messages import PullLine, all_names, full_name
from hostler.connectors.services.ollama.requests import load_request, request_of
from hostler.contracts.failure import FailureClass

HELLO = [{"role": "user", "content": "hello"}]


def request(kind: str = "chat.complete", **payload: Any) -> dict[str, Any]:
    fields = {"messages": HELLO, **payload} if kind == "chat.complete" else payload
    return request_of(kind, Raw(json.dumps(fields).encode()), model="m", keep_alive=None, num_ctx=None)


def test_what_has_another_name_is_translated_and_the_rest_passes_through() -> None:
    body = request(
        max_tokens=7, temperature=0.5, stop=["\n"], seed=2**60, think=True, stream=False, stream_options={"x": 1}
    )
    options = {"num_predict": 7, "temperature": 0.5, "stop": ["\n"], "seed": 2**60}
    assert body == {"model": "m", "messages": HELLO, "options": options, "think": True, "stream": True}


def test_ollamas_own_words_come_first() -> None:
    body = request_of(
        "chat.complete",
        Raw(json.dumps({"messages": HELLO, "max_tokens": 7, "keep_alive": 0, "options": {"num_predict": 9}}).encode()),
        model="m",
        keep_alive="5m",
        num_ctx=4096,
    )
    assert body["options"] == {"num_ctx": 4096, "num_predict": 9}
    assert body["keep_alive"] == 0


def test_images_stand_apart_and_arguments_are_objects() -> None:
    said = {
        "role": "user",
        "content": [
            {"type": "text", "text": "What is this?"},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGVsbG8="}},
        ],
    }
    called = {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": '{"a": 1}'}}],
    }
    body = request(messages=[said, called])
    assert body["messages"] == [
        {"role": "user", "content": "What is this?", "images": ["aGVsbG8="]},
        {"role": "assistant", "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": {"a": 1}}}]},
    ]


@pytest.mark.parametrize(
    ("wanted", "format_"),
    [
        ({"type": "json_object"}, "json"),
        ({"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}}, {"type": "object"}),
    ],
)
def test_a_response_format_is_a_format(wanted: dict[str, Any], format_: Any) -> None:
    assert request(response_format=wanted)["format"] == format_
    assert "response_format" not in request(response_format=wanted)


@pytest.mark.parametrize(
    "payload",
    [
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x/a.png"}}]}]},
        {"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]},
        {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}]},
        {"response_format": {"type": "nonsense"}},
        {"options": "fast"},
    ],
)
def test_what_ollama_cannot_be_told_is_invalid_input(payload: dict[str, Any]) -> None:
    with pytest.raises(ServiceFaultError) as caught:
        request(**payload)
    assert caught.value.failure.class_ is FailureClass.INVALID_INPUT


def test_a_load_asks_for_the_same_model_in_the_same_way_and_for_nothing_else() -> None:
    body = {**request(max_tokens=7, format="json"), "keep_alive": "5m"}
    loaded = {"model": "m", "options": {"num_predict": 7}, "keep_alive": "5m"}
    assert load_request("chat.complete", body) == {**loaded, "messages": [], "stream": False}
    assert load_request("embed.create", body) == {**loaded, "input": []}


@pytest.mark.parametrize(
    ("name", "full"),
    [("llama3", "llama3:latest"), ("llama3:8b", "llama3:8b"), ("host:5000/a/b", "host:5000/a/b:latest")],
)
def test_a_model_without_a_tag_is_the_latest(name: str, full: str) -> None:
    assert full_name(name) == full
    assert name in all_names(full)


def test_a_new_layer_never_takes_back_what_has_arrived() -> None:
    meter = PullMeter()
    assert meter.add(PullLine(status="pulling manifest")) is None
    assert meter.add(PullLine(status="p", digest="a", total=10)) == 0.0
    assert meter.add(PullLine(status="p", digest="a", total=10, completed=10)) == 1.0
    assert meter.add(PullLine(status="p", digest="b", total=90)) == 1.0
    assert meter.add(PullLine(status="p", digest="b", total=90, completed=900)) == 1.0
