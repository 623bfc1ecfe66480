"""Servers of the Open Inference Protocol byte by byte: Triton's and KServe's ways, raw tensors, answers that are none.

Neither Triton nor KServe runs here; what they say is taken from their documents and sources.
"""

import asyncio
import json
import struct
from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest

from hostler.connectors.catalogue import build
from hostler.contracts.failure import Failure, FailureClass, Stage
from hostler.contracts.job import Progress
from hostler.contracts.service import EndpointState, Finished
from hostler.contracts.timeouts import Timeouts
from hostler.kernel.errors import InvalidError, ServiceUnavailableError
from hostler.ports.connector import Connector
from hostler.testing.connectors import Work, call_of, failure_of, steps_of

C = FailureClass
Serve = Callable[[Any], Awaitable[str]]
TRITON = {"name": "triton", "version": "2.55.0", "extensions": ["model_repository", "binary_tensor_data"]}
KSERVE = {"name": "kserve", "version": "0.15.0", "extensions": ["model_repository_extension"]}
OUTPUT = {"name": "y", "datatype": "FP32", "shape": [2], "data": [0.5, -1]}
INPUT = {"name": "x", "datatype": "FP32", "shape": [2], "data": [1.0, 2.0]}


class Server:
    """Answers by a table of `METHOD path`, and keeps what it was sent; what is not in the table is 404."""

    def __init__(self, **table: Any) -> None:
        self.table: dict[str, Any] = {"GET /v2": KSERVE, "GET /v2/models/m/ready": b"", **table}
        self.seen: list[tuple[str, dict[str, str], bytes]] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        first, *lines = head.strip().split("\r\n")
        headers = {name.lower(): value.strip() for name, value in (line.split(":", 1) for line in lines)}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        what = first.rpartition(" ")[0]
        self.seen.append((what, headers, body))
        said: Any = self.table.get(what, (404, {"error": "not found"}))
        status, content, *more = cast("tuple[Any, ...]", said if isinstance(said, tuple) else (200, said))
        kind = "text/plain" if isinstance(content, bytes) else "application/json"
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        extra = "".join(f"{line}\r\n" for line in more) or f"Content-Type: {kind}\r\n"
        writer.write(f"HTTP/1.1 {status} X\r\n{extra}Content-Length: {len(data)}\r\nConnection: close\r\n\r\n".encode())
        writer.write(data)
        await writer.drain()

    def sent(self, what: str) -> list[bytes]:
        return [body for name, _, body in self.seen if name == what]


INFER = "POST /v2/models/m/infer"
INDEX = "POST /v2/repository/index"


def work(kind: str = "infer", **more: Any) -> Work:
    return Work(kind=f"inference.{kind}", payload={"model": "m", "inputs": [INPUT], **more})


def answer(*outputs: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"model_name": "m", "id": "conformance.1/1", "outputs": list(outputs or (OUTPUT,)), **more}


def connector_to(url: str, **options: Any) -> Connector:
    return build("inference-http", url=url, options=options)


async def failed(url: str, asked: Work | None = None, **options: Any) -> Failure:
    async with connector_to(url, **options) as connector:
        return await failure_of(connector, call_of(asked or work()))


async def result(url: str, asked: Work | None = None, **options: Any) -> dict[str, Any]:
    async with connector_to(url, **options) as connector:
        end = (await steps_of(connector, call_of(asked or work())))[-1]
    assert isinstance(end, Finished), end
    return json.loads(bytes(end.result))


async def test_a_request_is_what_the_protocol_says(serve: Serve) -> None:
    server = Server(**{INFER: answer(id="conformance.1/1", model_version="3", parameters={"headers": {}, "k": 1})})
    asked = work(outputs=["y"], parameters={"priority": 2})
    found = await result(await serve(server), asked)
    assert json.loads(server.sent(INFER)[0]) == {
        "id": "conformance.1/1",
        "parameters": {"priority": 2},
        "inputs": [{"name": "x", "shape": [2], "datatype": "FP32", "data": [1.0, 2.0]}],
        "outputs": [{"name": "y"}],
    }
    assert found["outputs"][0]["data"] == [0.5, -1.0]
    assert (found["version"], found["parameters"]) == ("3", {"k": 1})


@pytest.mark.parametrize("told", [{}, {"binary": True}])
async def test_tensors_go_raw_to_a_server_that_takes_them_so(serve: Serve, told: dict[str, Any]) -> None:
    outputs = [
        {"name": "y", "datatype": "FP16", "shape": [2], "parameters": {"binary_data_size": 4}},
        {"name": "z", "datatype": "INT8", "shape": [1], "data": [7]},
        {"name": "w", "datatype": "BYTES", "shape": [2], "parameters": {"binary_data_size": 11, "k": 1}},
    ]
    head = json.dumps(answer(*outputs)).encode()
    raw = struct.pack("<2e", 1.5, float("inf")) + b"\x02\0\0\0\x00\xff" + b"\x01\0\0\0a"
    reply = (200, head + raw, "Content-Type: application/octet-stream", f"Inference-Header-Content-Length: {len(head)}")
    server = Server(**{INFER: reply, "GET /v2": KSERVE if told else TRITON})
    text = {"name": "t", "datatype": "BYTES", "shape": [2], "data": ["é", {"b64": "AP8="}]}
    found = await result(await serve(server), work(inputs=[INPUT, text]), **told)
    _, headers, body = next(seen for seen in server.seen if seen[0] == INFER)
    size = int(headers["inference-header-content-length"])
    assert headers["content-type"] == "application/octet-stream"
    assert json.loads(body[:size]) == {
        "id": "conformance.1/1",
        "parameters": {"binary_data_output": True},
        "inputs": [
            {"name": "x", "shape": [2], "datatype": "FP32", "parameters": {"binary_data_size": 8}},
            {"name": "t", "shape": [2], "datatype": "BYTES", "parameters": {"binary_data_size": 12}},
        ],
    }
    assert body[size:] == struct.pack("<2f", 1.0, 2.0) + b"\x02\0\0\0\xc3\xa9" + b"\x02\0\0\0\x00\xff"
    assert [(tensor["name"], tensor["data"]) for tensor in found["outputs"]] == [
        ("y", [1.5, None]),
        ("z", [7]),
        ("w", [{"b64": "AP8="}, "a"]),
    ]
    assert found["outputs"][2]["parameters"] == {"k": 1}


async def test_bytes_that_are_no_text_are_not_sent_to_a_server_that_takes_only_text(serve: Serve) -> None:
    server = Server(**{INFER: answer()})
    blob = {"name": "t", "datatype": "BYTES", "shape": [1], "data": [{"b64": "AP8="}]}
    failure = await failed(await serve(server), work(inputs=[blob]))
    assert failure.class_ is C.CAPABILITY_MISMATCH
    assert server.sent(INFER) == []


@pytest.mark.parametrize(
    ("reply", "head"),
    [
        ({"error": "the batch was dropped"}, None),
        ({"error": {"message": "the batch was dropped"}}, None),
        (answer(error="the batch was dropped"), None),
        ({"model_name": "m"}, None),
        ([], None),
        (b"<html>Sign in</html>", None),
        (b"", None),
        (answer(id="another/1"), None),
        (answer({**OUTPUT, "shape": [3]}), None),
        (answer({**OUTPUT, "shape": [-1]}), None),
        (answer({**OUTPUT, "shape": [2**40]}), None),
        (answer({**OUTPUT, "datatype": "FP99"}), None),
        (answer({**OUTPUT, "data": "1,2"}), None),
        (answer({**OUTPUT, "data": [1, "2"]}), None),
        (answer({"name": "y", "datatype": "FP32", "shape": [2]}), None),
        (answer(OUTPUT, OUTPUT), None),
        (answer({**OUTPUT, "shape": [30], "data": [1.0] * 30}, {**OUTPUT, "name": "z"}), None),
        (b"{}", "99999999999999999999"),
        (b"{}", "-1"),
        (b"{}", "two"),
        (json.dumps(answer()).encode() + b"more", str(len(json.dumps(answer())))),
    ],
)
async def test_no_answer_off_the_protocol_becomes_a_success(serve: Serve, reply: Any, head: str | None) -> None:
    lines = ("Content-Type: application/json", *(() if head is None else (f"Inference-Header-Content-Length: {head}",)))
    failure = await failed(await serve(Server(**{INFER: (200, reply, *lines)})), elements_limit=31)
    assert failure.class_ is C.TRANSIENT
    assert failure.message


@pytest.mark.parametrize("size", [3, 5, -1, True, "4", None, 2**70])
async def test_raw_bytes_that_are_not_what_they_are_said_to_be_are_no_tensor(serve: Serve, size: Any) -> None:
    head = json.dumps(answer({"name": "y", "datatype": "FP32", "shape": [1], "parameters": {"binary_data_size": size}}))
    reply = (200, head.encode() + bytes(4), f"Inference-Header-Content-Length: {len(head)}")
    assert (await failed(await serve(Server(**{INFER: reply})), binary=True)).class_ is C.TRANSIENT


@pytest.mark.parametrize(
    ("table", "class_", "code"),
    [
        # Triton: 400 for everything; only its repository tells.
        ({INFER: (400, {"error": "e"})}, C.INVALID_INPUT, None),
        ({INFER: (400, {"error": "e"}), "ready": 400, INDEX: []}, C.CAPABILITY_MISMATCH, "model_absent"),
        (
            {INFER: (400, {"error": "e"}), "ready": 400, INDEX: [{"name": "m", "version": "1", "state": "LOADING"}]},
            C.OVERLOADED,
            "model_loading",
        ),
        (
            {INFER: (400, {"error": "e"}), "ready": 400, INDEX: [{"name": "m", "state": "UNAVAILABLE", "reason": "x"}]},
            C.CAPABILITY_MISMATCH,
            "model_unavailable",
        ),
        # KServe: 503 for a model that is not ready, 404 for one that is unknown, no repository, versions are 501.
        ({INFER: (503, {"error": "e"}), "ready": 503}, C.OVERLOADED, "model_loading"),
        ({INFER: (404, {"error": "e"}), "ready": 404}, C.CAPABILITY_MISMATCH, "model_absent"),
        ({INFER: (501, {"error": "e"})}, C.CAPABILITY_MISMATCH, None),
        ({INFER: (500, {"error": "RuntimeError : e"})}, C.TRANSIENT, None),
        ({INFER: (500, {"error": "e"}), "ready": (200, {"name": "m", "ready": False}), INDEX: []}, None, None),
        ({INFER: (422, {"detail": [{"msg": "e"}]})}, C.INVALID_INPUT, None),
        ({INFER: (401, {"error": "e"}), "ready": 401}, C.AUTH, None),
        ({INFER: (429, {"error": "e"}, "Retry-After: 7")}, C.OVERLOADED, None),
        ({INFER: (503, {"error": "e"}, "Retry-After: 7")}, C.OVERLOADED, None),
        ({INFER: (302, b"", "Location: http://127.0.0.1:9/")}, C.TRANSIENT, None),
    ],
)
async def test_a_status_means_what_the_state_of_the_model_makes_of_it(
    serve: Serve, table: dict[str, Any], class_: C | None, code: str | None
) -> None:
    ready = table.pop("ready", b"")
    ready = (ready, b"") if isinstance(ready, int) else ready
    failure = await failed(await serve(Server(**table, **{"GET /v2/models/m/ready": ready})))
    assert failure.class_ is (class_ or C.CAPABILITY_MISMATCH)
    assert code is None or failure.details["code"] == code
    assert failure.retry_after == (7.0 if "Retry-After: 7" in table[INFER] else None)


async def test_a_model_that_becomes_ready_between_refusal_and_question_is_asked_again(serve: Serve) -> None:
    server = Server()
    replies = [(400, {"error": "not ready"}), answer()]

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server.table[INFER] = replies[min(len(server.sent(INFER)), 1)]
        await server(reader, writer)

    assert (await result(await serve(script)))["outputs"][0]["data"] == [0.5, -1.0]
    assert len(server.sent(INFER)) == 2


@pytest.mark.parametrize(
    ("table", "state"),
    [
        ({"GET /v2/health/live": b"", "GET /v2/health/ready": b""}, EndpointState.READY),
        ({"GET /v2/health/live": {"live": True}, "GET /v2/health/ready": {"ready": True}}, EndpointState.READY),
        ({"GET /v2/health/live": b"", "GET /v2/health/ready": (400, b"")}, EndpointState.LOADING),
        ({"GET /v2/health/live": b"", "GET /v2/health/ready": {"ready": False}}, EndpointState.LOADING),
        (
            {"GET /v2/health/live": b"", "GET /v2/health/ready": (503, b""), INDEX: [{"name": "m", "state": "READY"}]},
            EndpointState.DEGRADED,
        ),
        ({"GET /v2/health/live": {"live": False}, "GET /v2/health/ready": b""}, EndpointState.UNHEALTHY),
        ({"GET /v2/health/live": (500, b"")}, EndpointState.UNHEALTHY),
        (
            {"GET /v2/health/live": b"<html>", "GET /v2/health/ready": b"<html>", "GET /v2": b"<html>"},
            EndpointState.UNHEALTHY,
        ),
    ],
)
async def test_health_is_what_live_and_ready_say(serve: Serve, table: dict[str, Any], state: EndpointState) -> None:
    async with connector_to(await serve(Server(**table))) as connector:
        assert (await connector.probe()).state is state


async def test_a_server_without_a_repository_is_asked_for_its_list(serve: Serve) -> None:
    server = Server(
        **{
            "GET /v2/models": {"models": ["m", "n"]},
            "GET /v2/models/m": {"name": "m", "versions": ["2"]},
            "GET /v2/models/n/ready": (503, {"error": "Model with name n is not ready."}),
        }
    )
    async with connector_to(await serve(server)) as connector:
        found = await connector.capabilities()
    assert (found.models, found.models_known, found.kinds) == (("m", "m:2"), True, ("inference.infer",))


async def test_a_server_that_lists_nothing_says_so_and_one_that_lists_too_much_is_cut(serve: Serve) -> None:
    async with connector_to(await serve(Server())) as connector:
        found = await connector.capabilities()
    assert (found.models, found.models_known) == ((), False)
    rows = [{"name": f"m{n}", "state": "READY"} for n in range(2_000)] + [{"name": "x" * 200, "state": "READY"}]
    async with connector_to(await serve(Server(**{INDEX: rows}))) as connector:
        found = await connector.capabilities()
    assert len(found.models) == 1_000
    assert found.kinds == ("inference.infer", "inference.load", "inference.unload")
    with pytest.raises(ServiceUnavailableError):
        async with connector_to(await serve(Server(**{INDEX: b"<html>"}))) as connector:
            await connector.capabilities()


async def test_a_load_that_a_server_takes_back_or_explains_is_no_success(serve: Serve) -> None:
    load, asked = "POST /v2/repository/models/m/load", Work(kind="inference.load", payload={"model": "m"})
    no = await failed(await serve(Server(**{load: {"name": "m", "load": False}})), asked)
    rows = [{"name": "m", "state": "UNAVAILABLE", "reason": "no such file"}]
    table = {load: (200, b""), INDEX: rows, "GET /v2/models/m/ready": (400, b"")}
    explained = await failed(await serve(Server(**table)), asked)
    refused = await failed(await serve(Server(**{**table, load: (400, {"error": "failed to load"})})), asked)
    assert no.class_ is C.TRANSIENT
    assert (explained.class_, "no such file" in explained.message) == (C.CAPABILITY_MISMATCH, True)
    assert (refused.class_, refused.details["code"]) == (C.CAPABILITY_MISMATCH, "model_unavailable")


SSE = "Content-Type: text/event-stream"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b": nothing but a comment\n\n",
        b"data: {not json\n\n",
        b'data: {"error": "the engine died"}\n\n',
        b"data: " + json.dumps(answer()).encode() + b'\n\ndata: {"error": "the engine died"}\n\n',
        b"data: " + json.dumps(answer(id="another/1")).encode() + b"\n\n",
    ],
)
async def test_a_stream_off_the_protocol_is_no_success(serve: Serve, body: bytes) -> None:
    server = Server(**{"POST /v2/models/m/infer_stream": (200, body, SSE)})
    assert (await failed(await serve(server), work("stream"))).class_ is C.TRANSIENT


async def test_a_stream_is_bounded_in_elements_and_bytes(serve: Serve) -> None:
    body = (b"data: " + json.dumps(answer()).encode() + b"\n\n") * 10
    url = await serve(Server(**{"POST /v2/models/m/infer_stream": (200, body, SSE)}))
    assert len((await result(url, work("stream"), elements_limit=20))["answers"]) == 10
    assert "more than 1 elements" in (await failed(url, work("stream"), elements_limit=19)).message
    assert "500 bytes" in (await failed(url, work("stream"), answer_limit=500)).message


async def test_one_answer_of_a_stream_may_be_large(serve: Serve) -> None:
    large = {"name": "y", "datatype": "BYTES", "shape": [1], "data": ["x" * 2_000_000]}
    body = b"data: " + json.dumps(answer(large)).encode() + b"\n\n"
    url = await serve(Server(**{"POST /v2/models/m/infer_stream": (200, body, SSE)}))
    assert len((await result(url, work("stream")))["text"]) == 2_000_000


@pytest.mark.parametrize(
    ("script", "limits", "stage"),
    [
        ({"hold": True}, {"first_byte": 0.3}, Stage.FIRST_BYTE),
        ({"parts": (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{",), "hold": True}, {"idle": 0.3}, Stage.IDLE),
        ({"parts": (b"HTTP/1.1 200 OK\r\n\r\n",), "repeat": b" "}, {"run": 0.5}, Stage.RUN),
    ],
)
@pytest.mark.row("002:231")
async def test_no_answer_lasts_longer_than_its_stage_may(
    serve: Serve, answer: Callable[..., Any], script: dict[str, Any], limits: dict[str, float], stage: Stage
) -> None:
    slow = answer(*script.pop("parts", ()), **script)
    server = Server()

    async def route(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await (slow if server.seen else server)(reader, writer)  # it says what it is, then is slow

    found = Timeouts(**{"connect": 5.0, "first_byte": 5.0, "idle": 5.0, "run": 20.0, **limits})
    async with connector_to(await serve(route)) as connector:
        failure = await failure_of(connector, call_of(work(), timeouts=found))
    assert (failure.class_, failure.stage) == (C.TIMEOUT, stage)


async def test_an_answer_over_the_limit_is_a_failure_and_not_a_full_memory(serve: Serve) -> None:
    server = Server(**{INFER: b" " * 2_000})
    failure = await failed(await serve(server), answer_limit=1_000)
    assert (failure.class_, "1000 bytes" in failure.message) == (C.TRANSIENT, True)


@pytest.mark.parametrize(
    "options", [{"kinds": ["inference.train"]}, {"colour": "blue"}, {"poll": -1}, {"binary": "yes"}]
)
def test_options_that_make_no_sense_are_refused_when_it_is_built(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidError):
        connector_to("http://127.0.0.1:9", **options)


GENERATE = "POST /v2/models/m/generate"


def generate(**more: Any) -> Work:
    return Work(kind="inference.generate", payload={"model": "m", "text_input": "a light", **more})


def piece(text: str, **more: Any) -> bytes:
    said = {"model_name": "m", "model_version": "1", "text_output": text, **more}
    return b"data: " + json.dumps(said).encode() + b"\n\n"


@pytest.mark.row("001:209")
async def test_triton_generates_text_piece_by_piece_or_at_once(serve: Serve) -> None:
    table = {
        f"{GENERATE}_stream": (200, piece("house") + piece(" ß", logprob=-0.5), SSE),
        GENERATE: (
            200,
            {"model_name": "m", "model_version": "1", "text_output": "house"},
            "Content-Type: application/json",
        ),
    }
    server = Server(**table)
    async with connector_to(await serve(server), kinds=["inference.generate"]) as connector:
        asked = generate(parameters={"max_tokens": 2}, inputs={"stop_words": ["."]})
        steps = await steps_of(connector, call_of(asked, job="c.1"))
        whole = await steps_of(connector, call_of(generate(stream=False), job="c.2"))
        assert (await connector.capabilities()).kinds == ("inference.generate",)
    assert "".join(step.text or "" for step in steps if isinstance(step, Progress)) == "house ß"
    assert json.loads(server.sent(f"{GENERATE}_stream")[0]) == {
        "text_input": "a light",
        "parameters": {"max_tokens": 2},
        "stop_words": ["."],
    }
    ends = [json.loads(bytes(end.result)) for end in (steps[-1], whole[-1]) if isinstance(end, Finished)]
    assert [(end["text"], end["version"], end["outputs"]) for end in ends] == [
        ("house ß", "1", {"logprob": -0.5}),
        ("house", "1", {}),
    ]


@pytest.mark.parametrize(
    ("reply", "class_"),
    [
        ((200, piece("half") + b'data: {"error": "the engine died"}\n\n', SSE), C.TRANSIENT),
        ((200, piece("half") + piece("", error="the engine died"), SSE), C.TRANSIENT),
        ((200, piece("half") + b"data: {not json\n\n", SSE), C.TRANSIENT),
        ((200, b'data: {"model_name": "m"}\n\n', SSE), C.TRANSIENT),
        ((200, b"", SSE), C.TRANSIENT),
        ((200, b"<html>"), C.TRANSIENT),
        ((400, {"error": "unexpected inference input 'stop_words'"}), C.INVALID_INPUT),
    ],
)
async def test_generated_text_that_breaks_off_or_is_refused_is_no_success(serve: Serve, reply: Any, class_: C) -> None:
    url = await serve(Server(**{f"{GENERATE}_stream": reply}))
    assert (await failed(url, generate(), kinds=["inference.generate"])).class_ is class_


async def test_a_model_that_is_not_there_generates_nothing(serve: Serve) -> None:
    server = Server(**{f"{GENERATE}_stream": (400, {"error": "e"}), "GET /v2/models/m/ready": (400, b""), INDEX: []})
    failure = await failed(await serve(server), generate(), kinds=["inference.generate"])
    assert (failure.class_, failure.details["code"]) == (C.CAPABILITY_MISMATCH, "model_absent")
