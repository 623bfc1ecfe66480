"""Ollama: the simulator that its own client drives, a third-party mock, and servers that misbehave byte by byte."""

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from msgspec import structs

from hostler.connectors.catalogue import build
from hostler.contracts.failure import Failure, FailureClass, Stage
from hostler.contracts.job import Progress
from hostler.contracts.service import EndpointState, Finished, Step
from hostler.contracts.timeouts import Timeouts
from hostler.ports.connector import Connector
from hostler.testing.connectors import Work, call_of, failure_of, steps_of, submitted
from hostler.testing.eventually import eventually
from hostler.testing.sims.ollama import OllamaHTTPService
from hostler.testing.sims.ollama_knobs import OllamaKnobs, Trouble

C = FailureClass
Serve = Callable[[Any], Awaitable[str]]
Script = Callable[..., Any]
LINES = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n\r\n"
JSON = b"HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=utf-8\r\n\r\n"
STUCK = b'{"status": "pulling", "digest": "d", "total": 9, "completed": 1}\n'
QUICK = OllamaKnobs(load=0.0, first_token=0.001, token=0.001, tokens=6, pull=0.02)


def chat(text: str = "hello", **more: Any) -> Work:
    payload = {"model": "sim-chat", "messages": [{"role": "user", "content": text}], **more}
    return Work(kind="chat.complete", payload=payload)


def generate(text: str = "hello", **more: Any) -> Work:
    return Work(kind="text.generate", payload={"model": "sim-chat", "prompt": text, **more})


def connector_to(url: str, **options: Any) -> Connector:
    return build("ollama-http", url=url, options=options)


def line(text: str | None = None, *, done: bool = False, model: str = "sim-chat", **more: Any) -> bytes:
    message = {} if text is None else {"message": {"role": "assistant", "content": text}}
    return (
        json.dumps({"model": model, "created_at": "2026-01-01T00:00:00Z", **message, "done": done, **more}).encode()
        + b"\n"
    )


def progress_of(steps: list[Step]) -> list[Progress]:
    return [step for step in steps if isinstance(step, Progress)]


def result_of(steps: list[Step]) -> dict[str, Any]:
    end = steps[-1]
    assert isinstance(end, Finished), end
    return json.loads(bytes(end.result))


async def answered(url: str, work: Work | None = None, **limits: float) -> Failure:
    async with connector_to(url) as connector:
        found = {"connect": 5.0, "load": 5.0, "first_byte": 5.0, "idle": 5.0, "run": 20.0, **limits}
        return await failure_of(connector, call_of(work or chat(), timeouts=Timeouts(**found)))


@pytest.fixture
async def server() -> AsyncGenerator[OllamaHTTPService]:
    async with OllamaHTTPService(QUICK) as service:
        yield service


@pytest.mark.row("002:84")
async def test_a_model_is_loaded_in_the_stage_load_and_then_its_tokens_stream(server: OllamaHTTPService) -> None:
    server.knobs = structs.replace(server.knobs, load=0.2, token=0.02)
    limits = Timeouts(connect=5.0, load=5.0, first_byte=0.15, idle=5.0, run=20.0)  # a load is no first byte
    async with connector_to(server.url) as connector:
        cold = await steps_of(connector, call_of(chat(), timeouts=limits, job="c.1"))
        warm = await steps_of(connector, call_of(chat(), timeouts=limits, job="c.2"))
    stages = [step.stage for step in progress_of(cold)]
    assert stages[0] == "load"
    assert stages.count("generating") > 1
    assert "load" not in [step.stage for step in progress_of(warm)]
    for steps in (cold, warm):
        result = result_of(steps)
        assert "".join(step.text or "" for step in progress_of(steps)) == result["text"] != ""
        assert (result["model"], result["finish_reason"]) == ("sim-chat", "stop")
        assert (result["usage"]["prompt_tokens"], result["usage"]["completion_tokens"]) == (1, 6)
    assert result_of(cold)["timings"]["load"] >= 0.2 > result_of(warm)["timings"]["load"]


@pytest.mark.row("002:84")
async def test_a_load_that_takes_too_long_is_a_timeout_of_the_stage_load(server: OllamaHTTPService) -> None:
    server.knobs = structs.replace(server.knobs, load=30.0)
    failure = await answered(server.url, load=0.2, first_byte=0.1)
    assert (failure.class_, failure.stage) == (C.TIMEOUT, Stage.LOAD)
    assert server.effects.effects == []
    await eventually(lambda: server.work.memory.held() == {})


async def test_an_endpoint_says_what_it_has_and_what_is_in_its_memory(server: OllamaHTTPService) -> None:
    async with connector_to(server.url) as connector:
        look = await connector.probe()
        before = await connector.capabilities()
        await steps_of(connector, call_of(chat()))
        found = await connector.capabilities()
        again = await connector.probe()
    assert (look.state, look.version) == (EndpointState.READY, found.versions["ollama"])
    assert (look.loaded, again.loaded) == (before.loaded, found.loaded)
    assert (before.loaded, found.loaded) == ((), ("sim-chat:latest", "sim-chat"))
    assert {"sim-chat", "sim-chat:latest", "sim-embed"} <= set(found.models)
    assert found.models_known
    assert found.model_sizes["sim-chat"] == found.model_sizes["sim-chat:latest"] == 400_000_000


async def test_keep_alive_says_how_long_a_model_stays(server: OllamaHTTPService) -> None:
    async with connector_to(server.url, keep_alive="0s") as brief, connector_to(server.url, keep_alive=0) as other:
        await steps_of(brief, call_of(chat(keep_alive="10m"), job="c.1"))
        assert list(server.work.memory.held()) == ["sim-chat:latest"]
        await steps_of(brief, call_of(chat(), job="c.2"))
        assert server.work.memory.held() == {}
        await steps_of(other, call_of(generate(), job="c.3"))
        assert server.work.memory.held() == {}


async def test_text_goes_on_from_a_prompt_and_is_cut_where_it_was_asked_to_be(server: OllamaHTTPService) -> None:
    async with connector_to(server.url, model="sim-large") as connector:
        steps = await steps_of(connector, call_of(generate(max_tokens=3), job="c.1"))
        silent = await steps_of(connector, call_of(generate(model=None, stream=False), job="c.2"))
    result = result_of(steps)
    assert (result["finish_reason"], len(result["text"].split()), result["usage"]["completion_tokens"]) == (
        "length",
        3,
        3,
    )
    assert "".join(step.text or "" for step in progress_of(steps)) == result["text"]
    assert all(step.text is None for step in progress_of(silent))
    assert result_of(silent)["model"] == "sim-large"


async def test_thoughts_and_tool_calls_stand_apart_from_the_text(server: OllamaHTTPService) -> None:
    tool = {
        "type": "function",
        "function": {"name": "weather", "parameters": {"properties": {"city": {"type": "string"}}}},
    }
    async with connector_to(server.url) as connector:
        thought = result_of(await steps_of(connector, call_of(chat(think=True), job="c.1")))
        called = result_of(await steps_of(connector, call_of(chat(tools=[tool]), job="c.2")))
    assert thought["reasoning"] == "Let me think."
    assert thought["reasoning"] not in thought["text"]
    assert called["finish_reason"] == "tool_calls"
    function = called["tool_calls"][0]["function"]
    assert (function["name"], json.loads(function["arguments"])) == ("weather", {"city": "sim"})


async def test_each_text_gets_its_vector(server: OllamaHTTPService) -> None:
    async with connector_to(server.url, model="sim-embed") as connector:
        many = await steps_of(connector, call_of(Work(kind="embed.create", payload={"input": ["a", "b"]}), job="c.1"))
        one = await steps_of(
            connector, call_of(Work(kind="embed.create", payload={"input": "a", "dimensions": 4}), job="c.2")
        )
    assert [len(vector) for vector in result_of(many)["vectors"]] == [16, 16]
    assert [len(vector) for vector in result_of(one)["vectors"]] == [4]
    assert progress_of(many)[0].stage == "load"


async def test_a_pull_reports_how_much_has_arrived_and_never_goes_back(server: OllamaHTTPService) -> None:
    server.knobs = structs.replace(server.knobs, pull=0.3)
    work = Work(kind="model.pull", payload={"model": "sim-extra"})
    async with connector_to(server.url) as connector:
        steps = await steps_of(connector, call_of(work, job="c.1"))
        assert "sim-extra" in (await connector.capabilities()).models
        absent = await failure_of(connector, call_of(Work(kind="model.pull", payload={"model": "nobody"}), job="c.2"))
    fractions = [step.fraction for step in progress_of(steps) if step.fraction is not None]
    assert len(fractions) > 3
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    assert result_of(steps) == {
        "model": "sim-extra:latest",
        "digest": server.work.view("sim-extra:latest")["digest"],
        "size": 400_000_000,
    }
    assert (absent.class_, absent.message) == (C.INVALID_INPUT, "pull model manifest: file does not exist")


@pytest.mark.parametrize(
    ("trouble", "class_"),
    [
        ("server_error", C.TRANSIENT),
        ("server_busy", C.OVERLOADED),
        ("out_of_memory", C.OUT_OF_MEMORY),
        ("error_line", C.TRANSIENT),
        ("cut", C.TRANSIENT),
        ("unended", C.TRANSIENT),
        ("garbage", C.TRANSIENT),
        ("html", C.TRANSIENT),
    ],
)
async def test_each_trouble_of_the_server_is_a_failure_with_its_class(
    server: OllamaHTTPService, trouble: Trouble, class_: C
) -> None:
    server.knobs = structs.replace(server.knobs, failures={trouble: 1.0})
    for work in (chat(), generate()):
        failure = await answered(server.url, work)
        assert failure.class_ is class_
        assert failure.message


async def test_what_a_model_cannot_do_or_nobody_named_is_told_apart(server: OllamaHTTPService) -> None:
    absent = await answered(server.url, chat(model="nobody"))
    mute = await answered(server.url, chat(model="sim-embed"))
    nameless = await answered(server.url, chat(model=None))
    assert (absent.class_, absent.message) == (C.CAPABILITY_MISMATCH, "model 'nobody' not found")
    assert (mute.class_, mute.details["status"]) == (C.INVALID_INPUT, 400)
    assert nameless.class_ is C.INVALID_INPUT
    assert server.effects.effects == []


@pytest.mark.row("001:290")
async def test_cancel_stops_the_answer_in_the_server(server: OllamaHTTPService) -> None:
    server.knobs = structs.replace(server.knobs, tokens=100_000)
    async with connector_to(server.url) as connector:
        ref = await submitted(connector, call_of(chat()))
        await eventually(lambda: [effect.type for effect in server.effects.effects] == ["started"])
        assert await connector.cancel(ref)
        await eventually(lambda: [effect.type for effect in server.effects.effects] == ["started", "cancelled"])


@pytest.mark.parametrize(
    ("parts", "class_"),
    [
        ((LINES,), C.TRANSIENT),
        ((LINES + line("half an ans"),), C.TRANSIENT),
        ((LINES + line(done=True),), C.TRANSIENT),
        ((LINES + line("", done=True, done_reason="load", eval_count=1),), C.TRANSIENT),
        ((LINES + line("", done=True, done_reason="unload", eval_count=1),), C.TRANSIENT),
        ((LINES + line("hi") + b'{"done": "perhaps"}\n',), C.TRANSIENT),
        ((LINES + line("hi") + b'{"error": "boom"}\n' + line(done=True),), C.TRANSIENT),
        ((LINES + line("hi") + b'{"error": "llama runner: CUDA error: out of memory"}\n',), C.OUT_OF_MEMORY),
        ((LINES + b'{"error": {"message": "server busy"}}\n',), C.OVERLOADED),
        ((LINES + line("hi", done=True, model="other"),), C.CAPABILITY_MISMATCH),
        ((JSON + b'{"error": "model \'x\' not found"}',), C.CAPABILITY_MISMATCH),
        ((JSON + b"{}",), C.TRANSIENT),
        ((b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<html>Sign in</html>",), C.TRANSIENT),
        ((b"HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/\r\n\r\n",), C.TRANSIENT),
        ((b"HTTP/1.1 503 Busy\r\nRetry-After: 2\r\n\r\n" + b'{"error":"server busy"}',), C.OVERLOADED),
        ((b"HTTP/1.1 401 No\r\n\r\n" + b'{"error":"unauthorized"}',), C.AUTH),
    ],
)
async def test_no_answer_off_the_protocol_becomes_a_success(
    serve: Serve, answer: Script, parts: tuple[bytes, ...], class_: C
) -> None:
    failure = await answered(await serve(answer(*parts)))
    assert failure.class_ is class_
    assert failure.message


async def test_a_pull_that_only_claims_success_is_none(serve: Serve) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        writer.write(LINES + b'{"status": "success"}\n' if b"/api/pull" in head else JSON + b'{"models": []}')
        await writer.drain()

    failure = await answered(await serve(script), Work(kind="model.pull", payload={"model": "x"}))
    assert failure.class_ is C.TRANSIENT
    assert "does not list it" in failure.message


@pytest.mark.parametrize(
    ("late", "stage"),
    [
        ((chat(), {"hold": True}, {"first_byte": 0.3}), Stage.FIRST_BYTE),
        ((chat(), {"parts": (LINES,), "hold": True}, {"first_byte": 0.3}), Stage.FIRST_BYTE),
        ((chat(), {"parts": (LINES, line("a")), "hold": True}, {"idle": 0.3}), Stage.IDLE),
        ((chat(), {"parts": (LINES, line("a")), "repeat": b"\n"}, {"idle": 0.3}), Stage.IDLE),
        ((chat(), {"parts": (LINES,), "repeat": line("more ") + line("and ")}, {"run": 0.5}), Stage.RUN),
        (
            (Work(kind="model.pull", payload={"model": "x"}), {"parts": (LINES,), "repeat": STUCK}, {"idle": 0.3}),
            Stage.IDLE,
        ),
    ],
)
@pytest.mark.row("002:231")
async def test_no_stream_lasts_longer_than_its_stage_may(
    serve: Serve, answer: Script, late: tuple[Work, dict[str, Any], dict[str, float]], stage: Stage
) -> None:
    work, script, limits = late
    more = {name: value for name, value in script.items() if name != "parts"}
    url = await serve(answer(*script.get("parts", ()), **more))
    async with build("ollama-http", url=url, options={"timeout": 0.1}) as connector:
        found = {"connect": 5.0, "load": 5.0, "first_byte": 5.0, "idle": 5.0, "run": 20.0, **limits}
        failure = await failure_of(connector, call_of(work, timeouts=Timeouts(**found)))
    assert (failure.class_, failure.stage) == (C.TIMEOUT, stage)


async def test_an_answer_over_the_limit_is_a_failure_and_not_a_full_memory(serve: Serve, answer: Script) -> None:
    url = await serve(answer(LINES, repeat=line("x" * 10_000)))
    async with connector_to(url, answer_limit=1_000_000, timeout=0.2) as connector:
        failure = await failure_of(connector, call_of(chat()))
    assert failure.class_ is C.TRANSIENT
    assert "1000000 bytes" in failure.message


async def chaos(url: str, **rates: float) -> None:
    async with aiohttp.ClientSession() as http, http.post(f"{url}/__aimock/chaos", json=rates) as answer:
        assert answer.status == 200


async def test_a_third_party_server_is_understood(aimock: str) -> None:
    async with connector_to(aimock, model="llama3") as connector:
        assert (await connector.probe()).state is EndpointState.READY
        assert (await connector.capabilities()).models_known
        chatted = await steps_of(connector, call_of(chat(model=None), job="c.1"))
        generated = result_of(await steps_of(connector, call_of(generate(model=None), job="c.2")))
        tools = result_of(await steps_of(connector, call_of(chat("weather", model=None), job="c.3")))
    text = "Hello there, I am a mock of the protocol."
    assert "".join(step.text or "" for step in progress_of(chatted)) == result_of(chatted)["text"] == text
    assert generated["text"] == text
    assert tools["finish_reason"] == "tool_calls"
    assert json.loads(tools["tool_calls"][0]["function"]["arguments"]) == {"city": "Bergen", "unit": "°C"}


async def test_a_third_party_server_that_breaks_or_is_full_is_a_passing_failure(aimock: str) -> None:
    for mood in ("dropRate", "malformedRate", "disconnectRate"):
        await chaos(aimock, dropRate=0, malformedRate=0, disconnectRate=0)
        await chaos(aimock, **{mood: 1})
        assert (await answered(aimock)).class_ is C.TRANSIENT
    await chaos(aimock, dropRate=0, malformedRate=0, disconnectRate=0, rateLimitRate=1)
    failure = await answered(aimock)
    assert (failure.class_, failure.retry_after) == (C.OVERLOADED, 1.0)
    await chaos(aimock, rateLimitRate=0)
    assert (await answered(aimock, chat("break"))).class_ is C.TRANSIENT
