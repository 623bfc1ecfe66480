"""OpenAI-compatible servers: a real llama.cpp, a third-party mock, and servers that misbehave byte by byte."""

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest

from hostler.connectors.catalogue import build
from hostler.contracts.failure import Failure, FailureClass, Stage
from hostler.contracts.job import Progress
from hostler.contracts.service import EndpointState, Failed, Finished, RemoteRef, Step
from hostler.contracts.timeouts import Timeouts
from hostler.kernel.errors import MissingExtraError
from hostler.ports.connector import Connector
from hostler.testing.connectors import Work, call_of, failure_of, steps_of, submitted
from hostler.testing.eventually import eventually
from hostler.testing.llama import ALIAS, LlamaServer, require_extra

C = FailureClass
Serve = Callable[[Any], Awaitable[str]]
Script = Callable[..., Any]
SSE = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
JSON = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n"


def chat(text: str = "hello", **more: Any) -> Work:
    return Work(kind="chat.complete", payload={"messages": [{"role": "user", "content": text}], **more})


def connector_to(url: str, **more: Any) -> Connector:
    return build("openai-http", url=url, **more)


def delta(content: str | None = None, finish: str | None = None, **more: Any) -> bytes:
    choice = {"index": 0, "delta": {"content": content, **more}, "finish_reason": finish}
    return b"data: " + json.dumps({"id": "x", "model": "m", "choices": [choice]}).encode() + b"\n\n"


def text_of(steps: list[Step]) -> str:
    return "".join(step.text or "" for step in steps if isinstance(step, Progress))


def result_of(steps: list[Step]) -> dict[str, Any]:
    end = steps[-1]
    assert isinstance(end, Finished), end
    return json.loads(bytes(end.result))


async def answered(url: str, work: Work | None = None, **limits: float) -> Failure:
    async with connector_to(url) as connector:
        found = {"connect": 5.0, "first_byte": 5.0, "idle": 5.0, "run": 20.0, **limits}
        return await failure_of(connector, call_of(work or chat(), timeouts=Timeouts(**found)))


@pytest.fixture
async def llama() -> AsyncGenerator[LlamaServer]:
    try:
        require_extra()
    except MissingExtraError as error:
        pytest.skip(error.message)
    async with LlamaServer(slots=2, embeddings=True, api_key="sk-local") as server:
        yield server


@pytest.mark.row("001:209")
async def test_a_real_llama_cpp_streams_tokens_and_counts_them(llama: LlamaServer) -> None:
    async with connector_to(f"{llama.url}/v1", api_key="sk-local") as connector:
        assert (await connector.probe()).state is EndpointState.READY
        found = await connector.capabilities()
        assert (found.models, found.models_known, found.pools["slots"].total) == ((ALIAS,), True, 2)
        steps = await steps_of(connector, call_of(chat(max_tokens=40)))
        result = result_of(steps)
        whole = result_of(await steps_of(connector, call_of(chat(max_tokens=40, stream=False, n=2), job="c.2")))
    assert text_of(steps) == result["text"] != ""
    assert sum(isinstance(step, Progress) for step in steps) > 1
    assert result["usage"]["completion_tokens"] == 40
    assert (result["finish_reason"], result["model"]) == ("length", ALIAS)
    assert len(whole["text"]) == 40
    assert len(whole["alternatives"]) == 1


async def test_a_real_llama_cpp_embeds_each_input(llama: LlamaServer) -> None:
    work = Work(kind="embed.create", payload={"input": ["a lighthouse", "a boat", "a lighthouse"]})
    async with connector_to(llama.url, api_key="sk-local") as connector:
        result = result_of(await steps_of(connector, call_of(work)))
    first, second, third = result["vectors"]
    assert len(first) == 64
    assert first != second
    assert len(third) == 64
    assert result["usage"]["prompt_tokens"] > 0


async def test_a_real_llama_cpp_says_no_in_ways_that_have_a_class(llama: LlamaServer) -> None:
    async with connector_to(llama.url, api_key="sk-local") as connector, connector_to(llama.url) as nobody:
        long = await failure_of(connector, call_of(chat("x" * 5000), job="c.1"))
        bad = await failure_of(connector, call_of(chat(response_format={"type": "nonsense"}), job="c.2"))
        denied = await failure_of(nobody, call_of(chat(), job="c.3"))
    assert (long.class_, long.details["code"]) == (C.CAPABILITY_MISMATCH, "exceed_context_size_error")
    assert (bad.class_, bad.details["status"]) == (C.INVALID_INPUT, 400)
    assert denied.class_ is C.AUTH


@pytest.mark.row("001:290")
async def test_cancel_frees_the_slot_of_a_real_llama_cpp(llama: LlamaServer) -> None:
    headers = {"Authorization": "Bearer sk-local"}
    async with connector_to(llama.url, api_key="sk-local") as connector, aiohttp.ClientSession() as http:

        async def busy() -> int:
            async with http.get(f"{llama.url}/slots", headers=headers) as answer:
                return sum(slot["is_processing"] for slot in await answer.json())

        refs = [await submitted(connector, call_of(chat(max_tokens=2000), job=f"c.{n}")) for n in range(2)]
        await eventually(lambda: _is(busy, 2))
        assert await connector.cancel(refs[0])
        await eventually(lambda: _is(busy, 1))
        await connector.release(refs[1])
        await eventually(lambda: _is(busy, 0))


async def _is(count: Callable[[], Awaitable[int]], wanted: int) -> bool:
    return await count() == wanted


async def chaos(url: str, **rates: float) -> None:
    async with aiohttp.ClientSession() as http, http.post(f"{url}/__aimock/chaos", json=rates) as answer:
        assert answer.status == 200


@pytest.mark.row("001:209", "001:198")
async def test_a_third_party_server_is_understood(aimock: str) -> None:
    async with connector_to(aimock) as connector:
        assert (await connector.probe()).state is EndpointState.READY
        assert "gpt-4o" in (await connector.capabilities()).models
        steps = await steps_of(connector, call_of(chat(model="gpt-4o"), job="c.1"))
        tools = result_of(await steps_of(connector, call_of(chat("weather", model="gpt-4o"), job="c.2")))
        whole = result_of(await steps_of(connector, call_of(chat(model="gpt-4o", stream=False), job="c.3")))
        called = result_of(await steps_of(connector, call_of(chat("weather", model="gpt-4o", stream=False), job="c.4")))
    assert text_of(steps) == result_of(steps)["text"] == "Hello there, I am a mock of the protocol." == whole["text"]
    assert tools["finish_reason"] == called["finish_reason"] == "tool_calls"
    for found in (tools, called):
        assert found["tool_calls"][0]["function"]["name"] == "get_weather"
        assert json.loads(found["tool_calls"][0]["function"]["arguments"]) == {"city": "Bergen", "unit": "°C"}


@pytest.mark.row("001:209", "001:198")
async def test_a_third_party_429_is_overload_that_says_when_to_come_back(aimock: str) -> None:
    await chaos(aimock, rateLimitRate=1)
    failure = await answered(aimock, chat(model="gpt-4o"))
    assert (failure.class_, failure.retry_after, failure.details["status"]) == (C.OVERLOADED, 1.0, 429)


@pytest.mark.parametrize("mood", ["dropRate", "malformedRate", "disconnectRate"])
async def test_a_third_party_server_that_breaks_is_a_passing_failure(aimock: str, mood: str) -> None:
    await chaos(aimock, **{mood: 1})
    async with connector_to(aimock) as connector:
        failure = await failure_of(connector, call_of(chat(model="gpt-4o")))
        assert failure.class_ is C.TRANSIENT
        await chaos(aimock, **{mood: 0})
        assert isinstance((await steps_of(connector, call_of(chat(model="gpt-4o"), fence=2)))[-1], Finished)


async def test_a_third_party_stream_that_is_cut_is_no_success(aimock: str) -> None:
    assert (await answered(aimock, chat("break", model="gpt-4o"))).class_ is C.TRANSIENT


async def test_a_third_party_no_is_a_refusal_or_an_empty_account(aimock: str) -> None:
    assert (await answered(aimock, chat("filter", model="gpt-4o"))).class_ is C.REFUSED
    assert (await answered(aimock, chat("limit", model="gpt-4o"))).class_ is C.QUOTA


@pytest.mark.parametrize(
    ("parts", "class_"),
    [
        ((SSE + delta("half an ans"),), C.TRANSIENT),
        ((SSE + delta("half an ans") + b"data: [DONE]\n\n",), C.TRANSIENT),
        ((SSE + b"data: [DONE]\n\n",), C.TRANSIENT),
        ((SSE,), C.TRANSIENT),
        ((SSE + b"data: {not json\n\n",), C.TRANSIENT),
        ((SSE + b'data: {"choices": "none"}\n\n',), C.TRANSIENT),
        ((SSE + b'data: {"hello": "world"}\n\n',), C.TRANSIENT),
        ((SSE + delta("a") + b'data: {"error": {"message": "boom", "type": "server_error"}}\n\n',), C.TRANSIENT),
        ((SSE + b'event: error\ndata: {"error": {"message": "m", "code": "insufficient_quota"}}\n\n',), C.QUOTA),
        (
            (SSE + delta("a") + b'data: {"error": {"message": "big", "type": "exceed_context_size_error"}}\n\n',),
            C.CAPABILITY_MISMATCH,
        ),
        ((SSE + delta(refusal="I cannot help with that") + delta(finish="stop"),), C.REFUSED),
        ((SSE + delta("a") + delta(finish="content_filter"),), C.REFUSED),
        ((JSON + b'{"error": {"message": "no such thing", "code": "model_not_found"}}',), C.CAPABILITY_MISMATCH),
        ((JSON + b"{}",), C.TRANSIENT),
        ((b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<html>Sign in</html>",), C.TRANSIENT),
        ((b"HTTP/1.1 503 Busy\r\nretry-after-ms: 250\r\n\r\n{}",), C.OVERLOADED),
        ((b"HTTP/1.1 503 Busy\r\n\r\n" + b'{"error":{"message":"full","type":"server_error"}}',), C.OVERLOADED),
        ((b"HTTP/1.1 500 Oh\r\n\r\n" + b'{"error":{"message":"oh","type":"server_error"}}',), C.TRANSIENT),
        (
            (b"HTTP/1.1 404 No\r\n\r\n" + b'{"error":{"message":"no model","code":"model_not_found"}}',),
            C.CAPABILITY_MISMATCH,
        ),
        ((b"HTTP/1.1 400 No\r\nx-should-retry: true\r\n\r\n{}",), C.TRANSIENT),
    ],
)
async def test_no_answer_off_the_protocol_becomes_a_success(
    serve: Serve, answer: Script, parts: tuple[bytes, ...], class_: C
) -> None:
    failure = await answered(await serve(answer(*parts)))
    assert failure.class_ is class_
    assert failure.message


@pytest.mark.parametrize(
    ("script", "limits", "stage"),
    [
        ({"hold": True}, {"first_byte": 0.3}, Stage.FIRST_BYTE),
        ({"parts": (SSE,), "hold": True}, {"first_byte": 0.3}, Stage.FIRST_BYTE),
        ({"parts": (SSE, delta("a")), "hold": True}, {"idle": 0.3}, Stage.IDLE),
        ({"parts": (SSE, delta("a")), "repeat": b": ping\n\n"}, {"idle": 0.3}, Stage.IDLE),
        ({"parts": (SSE,), "repeat": delta("more ")}, {"run": 0.5}, Stage.RUN),
    ],
)
@pytest.mark.row("002:231")
async def test_no_stream_lasts_longer_than_its_stage_may(
    serve: Serve, answer: Script, script: dict[str, Any], limits: dict[str, float], stage: Stage
) -> None:
    more = {name: value for name, value in script.items() if name != "parts"}
    failure = await asyncio.wait_for(
        answered(await serve(answer(*script.get("parts", ()), **more)), None, **limits), 10
    )
    assert (failure.class_, failure.stage) == (C.TIMEOUT, stage)


async def test_an_answer_over_the_limit_is_a_failure_and_not_a_full_memory(serve: Serve, answer: Script) -> None:
    url = await serve(answer(SSE, repeat=delta("x" * 10_000)))
    async with connector_to(url, options={"answer_limit": 1_000_000}) as connector:
        failure = await failure_of(connector, call_of(chat()))
    assert failure.class_ is C.TRANSIENT
    assert "1000000 bytes" in failure.message


async def test_what_the_payload_says_passes_through_and_only_that(serve: Serve) -> None:
    bodies: list[dict[str, Any]] = []

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        size = next(
            int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")
        )
        bodies.append(json.loads(await reader.readexactly(size)))
        writer.write(SSE + delta("ok", finish="stop"))
        await writer.drain()

    url = await serve(script)
    async with connector_to(url) as plain, connector_to(url, options={"model": "house"}) as preset:
        await steps_of(plain, call_of(chat(top_k=7, stop=["\n"], seed=2**60), job="c.1"))
        await steps_of(preset, call_of(chat(), job="c.2"))
        await steps_of(preset, call_of(chat(model="own"), job="c.3"))
    assert bodies[0] == {
        "messages": [{"role": "user", "content": "hello"}],
        "top_k": 7,
        "stop": ["\n"],
        "seed": 2**60,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    assert [body.get("model") for body in bodies] == [None, "house", "own"]


@pytest.mark.parametrize(
    ("answers", "state"),
    [
        ({b"/health": b"200 OK"}, EndpointState.READY),
        ({b"/health": b"503 Loading"}, EndpointState.LOADING),
        ({b"/health": b"404 No", b"/v1/models": b"200 OK"}, EndpointState.READY),
        ({b"/health": b"404 No", b"/v1/models": b"401 No"}, EndpointState.UNHEALTHY),
        ({b"/health": b"500 Oh"}, EndpointState.UNHEALTHY),
    ],
)
async def test_health_is_asked_where_the_server_has_it(
    serve: Serve, answers: dict[bytes, bytes], state: EndpointState
) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        path = (await reader.readuntil(b"\r\n\r\n")).split(b" ")[1]
        writer.write(b"HTTP/1.1 " + answers[path] + b"\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
        await writer.drain()

    async with connector_to(await serve(script)) as connector:
        assert (await connector.probe()).state is state


async def test_a_connector_that_closes_ends_its_requests(serve: Serve, answer: Script) -> None:
    url = await serve(answer(SSE, delta("a"), hold=True))
    before = len(asyncio.all_tasks())
    async with connector_to(url) as connector:
        ref = await submitted(connector, call_of(chat()))
        assert isinstance(ref, RemoteRef)
    end = await connector.fetch(ref)
    assert isinstance(end, Failed)
    await eventually(lambda: len(asyncio.all_tasks()) <= before + 1)
