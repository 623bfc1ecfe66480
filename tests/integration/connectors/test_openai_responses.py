"""Responses, images and limits of OpenAI-compatible servers: real ones, a third-party mock, and ones that misbehave."""

import base64
import json
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest

from hostler.connectors.catalogue import build
from hostler.contracts.failure import Failure, FailureClass, Stage
from hostler.contracts.job import Progress
from hostler.contracts.rates import RateHint, Room
from hostler.contracts.service import Finished, Step
from hostler.contracts.timeouts import Timeouts
from hostler.kernel.errors import InvalidError, MissingExtraError
from hostler.ports.connector import Connector
from hostler.testing.connectors import Work, call_of, failure_of, steps_of
from hostler.testing.llama import LlamaServer, require_extra
from hostler.testing.sims.work import preview

C = FailureClass
Serve = Callable[[Any], Awaitable[str]]
Script = Callable[..., Any]
SSE = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
JSON = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n"
PICTURE = preview(1, "a lighthouse")


def respond(text: str = "hello", **more: Any) -> Work:
    return Work(kind="openai.response", payload={"model": "gpt-4o", "input": text, **more})


def draw(**more: Any) -> Work:
    return Work(kind="openai.image", payload={"prompt": "a lighthouse", **more})


def connector_to(url: str, **more: Any) -> Connector:
    return build(
        "openai-http", url=url, options={"kinds": ["chat.complete", "openai.response", "openai.image"]}, **more
    )


def event(type_: str, **more: Any) -> bytes:
    return f"event: {type_}\ndata: {json.dumps({'type': type_, 'sequence_number': 1, **more})}\n\n".encode()


def message(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"type": "message", "id": "m", "role": "assistant", "status": "completed", "content": list(parts)}


def text_part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": []}


def response(status: str = "completed", *items: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"id": "r", "object": "response", "model": "m", "status": status, "output": list(items), **more}


def delta(text: str) -> bytes:
    return event("response.output_text.delta", delta=text)


def result_of(steps: list[Step]) -> dict[str, Any]:
    end = steps[-1]
    assert isinstance(end, Finished), end
    return json.loads(bytes(end.result))


def text_of(steps: list[Step]) -> str:
    return "".join(step.text or "" for step in steps if isinstance(step, Progress))


async def answered(url: str, work: Work, **limits: float) -> Failure:
    async with connector_to(url) as connector:
        found = {"connect": 5.0, "first_byte": 5.0, "idle": 5.0, "run": 20.0, **limits}
        return await failure_of(connector, call_of(work, timeouts=Timeouts(**found)))


async def test_a_third_party_server_responds_in_a_stream_and_at_once(aimock: str) -> None:
    async with connector_to(aimock) as connector:
        streamed = await steps_of(connector, call_of(respond(), job="c.1"))
        whole = result_of(await steps_of(connector, call_of(respond(stream=False), job="c.2")))
        called = result_of(await steps_of(connector, call_of(respond("weather"), job="c.3")))
    assert text_of(streamed) == result_of(streamed)["text"] == whole["text"]
    assert whole["text"] == "Hello there, I am a mock of the protocol."
    assert whole["finish_reason"] == "stop"
    assert called["finish_reason"] == "tool_calls"
    function = called["tool_calls"][0]["function"]
    assert (function["name"], json.loads(function["arguments"])) == ("get_weather", {"city": "Bergen", "unit": "°C"})
    assert called["output"][0]["type"] == "function_call"


async def test_a_third_party_server_in_each_of_its_moods_is_no_success(aimock: str) -> None:
    async def chaos(**rates: float) -> None:
        calm = {"dropRate": 0, "malformedRate": 0, "disconnectRate": 0, "rateLimitRate": 0}
        async with aiohttp.ClientSession() as http:
            await http.post(f"{aimock}/__aimock/chaos", json={**calm, **rates})

    for mood, class_ in (
        ("dropRate", C.TRANSIENT),
        ("malformedRate", C.TRANSIENT),
        ("disconnectRate", C.TRANSIENT),
        ("rateLimitRate", C.OVERLOADED),
    ):
        await chaos(**{mood: 1})
        assert (await answered(aimock, respond())).class_ is class_
    await chaos()
    assert (await answered(aimock, respond("break"))).class_ is C.TRANSIENT
    assert (await answered(aimock, respond("limit"))).class_ is C.QUOTA


async def test_a_real_llama_cpp_responds() -> None:
    try:
        require_extra()
    except MissingExtraError as error:
        pytest.skip(error.message)
    async with LlamaServer(slots=1) as server, connector_to(server.url) as connector:
        steps = await steps_of(connector, call_of(respond(max_output_tokens=24)))
    result = result_of(steps)
    assert text_of(steps) == result["text"] != ""
    assert result["usage"]["completion_tokens"] == 24


@pytest.mark.parametrize(
    ("end", "finish", "usage"),
    [
        (response("completed", message(text_part("hi"))), "stop", None),
        (
            response(
                "incomplete",
                message(text_part("hi")),
                incomplete_details={"reason": "max_output_tokens"},
                usage={"input_tokens": 3, "output_tokens": 4, "total_tokens": 7},
            ),
            "length",
            {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7},
        ),
    ],
)
async def test_what_counts_is_the_response_at_the_end(
    serve: Serve, answer: Script, end: dict[str, Any], finish: str, usage: dict[str, int] | None
) -> None:
    thought = {"type": "reasoning", "id": "x", "summary": [{"type": "summary_text", "text": "Hm."}]}
    end = {**end, "output": [thought, *end["output"]]}
    stream = event("response.created", response=response("in_progress")) + delta("h") + delta("i")
    url = await serve(answer(SSE + stream + event(f"response.{end['status']}", response=end)))
    async with connector_to(url) as connector:
        steps = await steps_of(connector, call_of(respond()))
    result = result_of(steps)
    assert (text_of(steps), result["text"], result["reasoning"]) == ("hi", "hi", "Hm.")
    assert (result["finish_reason"], result["usage"], result["output"]) == (finish, usage, end["output"])


FILTERED = response("incomplete", message(text_part("I")), incomplete_details={"reason": "content_filter"})
REFUSAL = response("completed", message({"type": "refusal", "refusal": "I cannot help with that"}))


@pytest.mark.parametrize(
    ("parts", "class_"),
    [
        (SSE, C.TRANSIENT),
        (SSE + delta("half"), C.TRANSIENT),
        (SSE + delta("half") + b"data: [DONE]\n\n", C.TRANSIENT),
        (SSE + b"data: {not json\n\n", C.TRANSIENT),
        (SSE + event("response.completed"), C.TRANSIENT),
        (SSE + event("response.completed", response=response()), C.TRANSIENT),
        (SSE + event("response.completed", response=response("in_progress", message(text_part("a")))), C.TRANSIENT),
        (SSE + event("response.completed", response=REFUSAL), C.REFUSED),
        (SSE + event("response.incomplete", response=FILTERED), C.REFUSED),
        (SSE + event("response.incomplete", response=response("incomplete", message(text_part("a")))), C.TRANSIENT),
        (
            SSE + event("response.failed", response=response("failed", error={"code": "server_error", "message": "m"})),
            C.TRANSIENT,
        ),
        (
            SSE
            + event(
                "response.failed", response=response("failed", error={"code": "rate_limit_exceeded", "message": "m"})
            ),
            C.OVERLOADED,
        ),
        (SSE + event("response.failed", response=response("cancelled")), C.TRANSIENT),
        (SSE + delta("a") + event("error", code="insufficient_quota", message="m", param=None), C.QUOTA),
        (SSE + event("error", error={"code": "context_length_exceeded", "message": "m"}), C.CAPABILITY_MISMATCH),
        (JSON + b'{"error": {"message": "no such thing", "code": "model_not_found"}}', C.CAPABILITY_MISMATCH),
        (JSON + json.dumps(REFUSAL).encode(), C.REFUSED),
        (b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<html>Sign in</html>", C.TRANSIENT),
    ],
)
async def test_no_response_off_the_protocol_becomes_a_success(
    serve: Serve, answer: Script, parts: bytes, class_: C
) -> None:
    failure = await answered(await serve(answer(parts)), respond())
    assert failure.class_ is class_
    assert failure.message


@pytest.mark.parametrize(
    ("script", "limits", "stage"),
    [
        ({"parts": (SSE,), "hold": True}, {"first_byte": 0.3}, Stage.FIRST_BYTE),
        ({"parts": (SSE, delta("a")), "hold": True}, {"idle": 0.3}, Stage.IDLE),
        ({"parts": (SSE,), "repeat": delta("more ")}, {"run": 0.5}, Stage.RUN),
    ],
)
@pytest.mark.row("002:231")
async def test_no_stream_of_events_lasts_longer_than_its_stage_may(
    serve: Serve, answer: Script, script: dict[str, Any], limits: dict[str, float], stage: Stage
) -> None:
    more = {name: value for name, value in script.items() if name != "parts"}
    failure = await answered(await serve(answer(*script["parts"], **more)), respond(), **limits)
    assert (failure.class_, failure.stage) == (C.TIMEOUT, stage)


async def test_pictures_come_as_what_they_are_or_as_where_they_are(serve: Serve, answer: Script) -> None:
    row = {"b64_json": base64.b64encode(PICTURE).decode(), "revised_prompt": "a tall lighthouse"}
    url = await serve(answer(JSON + json.dumps({"created": 1, "data": [row, {"url": "https://x/1.png"}]}).encode()))
    async with connector_to(url) as connector:
        result = result_of(await steps_of(connector, call_of(draw(n=2))))
    assert result == {
        "pictures": [
            {
                "data": base64.b64encode(PICTURE).decode(),
                "media_type": "image/png",
                "revised_prompt": "a tall lighthouse",
            },
            {"url": "https://x/1.png"},
        ]
    }


@pytest.mark.parametrize(
    ("body", "class_"),
    [
        ({"data": []}, C.TRANSIENT),
        ({"data": [dict[str, str]()]}, C.TRANSIENT),
        ({"data": [{"b64_json": "no base64!"}]}, C.TRANSIENT),
        ({"data": [{"b64_json": base64.b64encode(b"<html>").decode()}]}, C.TRANSIENT),
        ({"error": {"message": "no"}}, C.TRANSIENT),
    ],
)
async def test_what_is_no_picture_is_no_success(serve: Serve, answer: Script, body: Any, class_: C) -> None:
    failure = await answered(await serve(answer(JSON + json.dumps(body).encode())), draw())
    assert failure.class_ is class_


async def test_a_picture_that_is_not_allowed_is_refused(serve: Serve, answer: Script) -> None:
    said = b'{"error": {"message": "Your request was rejected", "code": "moderation_blocked"}}'
    failure = await answered(await serve(answer(b"HTTP/1.1 400 No\r\n\r\n" + said)), draw())
    assert failure.class_ is C.REFUSED


async def test_a_third_party_server_draws(aimock: str) -> None:
    async with connector_to(aimock) as connector:
        result = result_of(await steps_of(connector, call_of(draw(model="gpt-image-1"), job="c.1")))
        other = await failure_of(connector, call_of(draw(model="gpt-image-1", prompt="a boat"), job="c.2"))
    (picture,) = result["pictures"]
    assert (base64.b64decode(picture["data"]), picture["media_type"]) == (PICTURE, "image/png")
    assert other.class_ is C.CAPABILITY_MISMATCH


async def test_only_the_kinds_of_the_options_are_served_and_only_true_ones_can_be_named(
    serve: Serve, answer: Script
) -> None:
    async with build("openai-http", url=await serve(answer(SSE))) as connector:
        assert {spec.name for spec in connector.kinds()} == {"chat.complete", "embed.create"}
        assert (await failure_of(connector, call_of(respond()))).class_ is C.INVALID_INPUT
    with pytest.raises(InvalidError):
        build("openai-http", url="http://127.0.0.1:9", options={"kinds": ["chat.complet"]})
    assert (await answered("http://127.0.0.1:9", respond(background=True))).class_ is C.INVALID_INPUT


async def test_each_answer_that_speaks_of_limits_is_told_before_its_body(serve: Serve, answer: Script) -> None:
    hints: list[RateHint] = []
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nx-ratelimit-remaining-requests: 3\r\n"
    url = await serve(answer(head + b"x-ratelimit-reset-requests: 6m0s\r\n\r\n", hold=True))
    async with connector_to(url, on_rate_hint=hints.append) as connector:
        await failure_of(connector, call_of(respond(), timeouts=Timeouts(connect=5.0, first_byte=0.3, run=5.0)))
    assert hints == [RateHint(status=200, requests=Room(remaining=3, reset=360.0))]


async def test_a_third_party_429_says_all_that_is_known_of_the_limit(aimock: str) -> None:
    hints: list[RateHint] = []
    async with aiohttp.ClientSession() as http:
        await http.post(f"{aimock}/__aimock/chaos", json={"rateLimitRate": 1})
    async with connector_to(aimock, on_rate_hint=hints.append) as connector:
        await failure_of(connector, call_of(respond()))
    assert hints == [
        RateHint(
            status=429,
            requests=Room(limit=60, remaining=0, reset=1.0),
            tokens=Room(limit=150_000, remaining=0, reset=360.0),
            retry_after=1.0,
        )
    ]
