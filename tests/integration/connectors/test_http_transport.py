"""The HTTP transport against real sockets: pools, limits, redirects, credentials, foreign answers."""

import ast
import asyncio
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec import Struct

import hostler.connectors
from hostler.connectors.faults import ServiceFaultError
from hostler.connectors.transports.http import BODY_LIMIT, HttpPool, HttpTransport, segment
from hostler.contracts.failure import FailureClass, Stage
from hostler.kernel.settings import HttpSettings
from hostler.testing.eventually import eventually

C = FailureClass
Serve = Callable[[Any], Awaitable[str]]
Script = Callable[..., Any]
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


class View(Struct):
    ok: bool


def transport(url: str, **more: Any) -> HttpTransport:
    return HttpTransport(url, settings=more.pop("settings", HttpSettings()), **more)


async def fault_of(
    url: str, *, within: float = 5.0, stage: Stage = Stage.CONNECT, limit: int = BODY_LIMIT
) -> ServiceFaultError:
    async with transport(url) as http:
        with pytest.raises(ServiceFaultError) as caught:
            (await http.call("GET", "/", within=within, stage=stage, limit=limit)).expect().json(View)
        return caught.value


@pytest.mark.row("001:198")
@pytest.mark.parametrize(
    ("parts", "class_"),
    [
        ((b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:9/\r\nContent-Length: 0\r\n\r\n",), C.TRANSIENT),
        ((b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<html>Welcome!</html>",), C.TRANSIENT),
        ((OK + b"\r\n{}",), C.TRANSIENT),
        ((OK + b'\r\n{"ok": "perhaps"}',), C.TRANSIENT),
        ((OK + b"\r\n",), C.TRANSIENT),
        ((OK + b"Content-Length: 100\r\n\r\n{",), C.TRANSIENT),
        ((OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",), C.TRANSIENT),
        ((OK + b"Content-Encoding: gzip\r\nContent-Length: 4\r\n\r\nnope",), C.TRANSIENT),
        ((b"SSH-2.0-OpenSSH_9.2\r\n",), C.TRANSIENT),
        ((b"HTTP/1.1 200 OK\r\n" + b"X: " + b"y" * 70_000 + b"\r\n\r\n",), C.TRANSIENT),
        ((b"",), C.TRANSIENT),
        ((b"HTTP/1.1 429 Slow\r\nRetry-After: 3\r\nContent-Length: 0\r\n\r\n",), C.OVERLOADED),
    ],
)
async def test_an_answer_off_the_protocol_is_a_failure_with_a_class(
    serve: Serve, answer: Script, parts: tuple[bytes, ...], class_: C
) -> None:
    error = await fault_of(await serve(answer(*parts)))
    assert error.failure.class_ is class_
    assert error.failure.message


@pytest.mark.row("002:231")
async def test_a_server_that_says_nothing_ends_as_timeout_of_the_stage(serve: Serve, answer: Script) -> None:
    error = await fault_of(await serve(answer(hold=True)), within=0.2, stage=Stage.FIRST_BYTE)
    assert (error.failure.class_, error.failure.stage) == (C.TIMEOUT, Stage.FIRST_BYTE)


async def test_no_time_left_is_a_timeout_and_never_no_limit(serve: Serve, answer: Script) -> None:
    error = await fault_of(await serve(answer(hold=True)), within=0.0)
    assert error.failure.class_ is C.TIMEOUT


async def test_a_body_over_the_limit_is_cut_off(serve: Serve, answer: Script) -> None:
    error = await fault_of(await serve(answer(OK + b"\r\n", repeat=b"x" * 65_536)), limit=1_000_000)
    assert error.failure.class_ is C.TRANSIENT
    assert "1000000 bytes" in error.failure.message


async def test_a_stream_that_never_ends_does_end(serve: Serve, answer: Script) -> None:
    url = await serve(answer(OK + b"\r\n", repeat=b": x\n\n" * 10_000))
    async with (
        transport(url) as http,
        http.stream("GET", "/", first_byte=5.0, silence=5.0, limit=1_000_000) as stream,
    ):
        with pytest.raises(ServiceFaultError, match="over 1000000 bytes"):
            [event async for event in stream.sse()]


async def test_silence_between_chunks_ends_as_idle_timeout(serve: Serve, answer: Script) -> None:
    url = await serve(answer(OK + b"\r\n", b"data: 1\n\n", hold=True))
    async with transport(url) as http, http.stream("GET", "/", first_byte=5.0, silence=0.2) as stream:
        with pytest.raises(ServiceFaultError) as caught:
            [event async for event in stream.sse()]
    assert (caught.value.failure.class_, caught.value.failure.stage) == (C.TIMEOUT, Stage.IDLE)


async def test_a_status_is_believed_though_the_words_behind_it_are_cut(serve: Serve, answer: Script) -> None:
    url = await serve(answer(b"HTTP/1.1 429 Slow\r\nRetry-After: 3\r\nContent-Length: 100\r\n\r\nslow d"))
    async with transport(url) as http:
        with pytest.raises(ServiceFaultError) as caught:
            async with http.stream("GET", "/", first_byte=5.0, silence=5.0) as stream:
                await stream.read()
    assert (caught.value.failure.class_, caught.value.failure.retry_after) == (C.OVERLOADED, 3.0)


@pytest.mark.row("001:198")
async def test_leaving_a_stream_closes_its_connection(serve: Serve) -> None:
    gone = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK + b"\r\ndata: 1\n\n")
        await writer.drain()
        await reader.read()
        gone.set()

    async with transport(await serve(script)) as http:
        async with http.stream("GET", "/", first_byte=5.0, silence=None) as stream:
            assert (await anext(stream.sse())).data == "1"
            assert not gone.is_set()
        await asyncio.wait_for(gone.wait(), 3)


@pytest.mark.row("001:198")
async def test_the_credential_is_sent_as_bearer_and_never_part_of_a_failure(serve: Serve) -> None:
    seen: list[bytes] = []

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readuntil(b"\r\n\r\n"))
        body = b'{"error": {"message": "Incorrect API key provided: sk-very-secret"}}'
        writer.write(b"HTTP/1.1 401 No\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        await writer.drain()

    async with transport(await serve(script), api_key="sk-very-secret") as http:
        with pytest.raises(ServiceFaultError) as caught:
            (await http.call("GET", "/", within=5.0)).expect()
    assert b"Authorization: Bearer sk-very-secret\r\n" in seen[0]
    assert b"Cookie" not in seen[0]
    assert b"Origin" not in seen[0]
    assert caught.value.failure.class_ is C.AUTH
    assert "sk-very-secret" not in str(caught.value.failure)


class Slow:
    """Answers when it is told to, and counts who waits."""

    def __init__(self) -> None:
        self.waiting = 0
        self.most = 0
        self.go = asyncio.Event()

    async def script(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readuntil(b"\r\n\r\n"):
            self.waiting += 1
            self.most = max(self.most, self.waiting)
            await self.go.wait()
            self.waiting -= 1
            writer.write(OK + b'Content-Length: 11\r\n\r\n{"ok":true}')
            await writer.drain()


@pytest.mark.row("002:51")
async def test_the_fifty_first_call_waits_and_does_not_fail(serve: Serve) -> None:
    assert (HttpSettings().connections, HttpSettings().connections_per_host) == (50, 20)
    hosts = [Slow() for _ in range(3)]
    urls = [await serve(host.script) for host in hosts]
    async with HttpPool(HttpSettings()) as pool:
        clients = [transport(url, pool=pool) for url in urls]
        for client in clients:
            await client.__aenter__()
        calls = [asyncio.create_task(clients[n % 3].call("GET", "/", within=10.0)) for n in range(51)]
        await eventually(lambda: sum(host.waiting for host in hosts) == 50)
        for host in hosts:
            host.go.set()
        assert [answer.json(View).ok for answer in await asyncio.gather(*calls)] == [True] * 51
        for client in clients:
            await client.__aexit__(None, None, None)


@pytest.mark.row("002:51")
async def test_one_host_gets_twenty_connections_at_most(serve: Serve) -> None:
    host = Slow()
    async with transport(await serve(host.script)) as http:
        calls = [asyncio.create_task(http.call("GET", "/", within=10.0)) for _ in range(25)]
        await eventually(lambda: host.waiting == 20)
        host.go.set()
        await asyncio.gather(*calls)
    assert host.most == 20


async def test_streams_do_not_keep_calls_from_a_host(serve: Serve, answer: Script) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        writer.write(OK + (b"\r\n" if b"/stream" in head else b'Content-Length: 11\r\n\r\n{"ok":true}'))
        await writer.drain()
        await reader.read()

    async with transport(await serve(script), settings=HttpSettings(connections=2, connections_per_host=2)) as http:
        streams = [http.stream("GET", "/stream", first_byte=5.0, silence=None) for _ in range(5)]
        for stream in streams:
            await stream.__aenter__()
        assert (await http.call("GET", "/", within=5.0)).json(View).ok
        for stream in streams:
            await stream.__aexit__(None, None, None)


async def test_a_full_backlog_of_the_kernel_is_a_connect_timeout() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
        async with transport(f"http://127.0.0.1:{port}", connect=0.3) as http:
            with pytest.raises(ServiceFaultError) as caught:
                await http.call("GET", "/", within=5.0)
        for filler in fillers:
            filler.close()
    assert (caught.value.failure.class_, caught.value.failure.stage) == (C.TIMEOUT, Stage.CONNECT)


@pytest.mark.parametrize("text", ["../../knobs", "a/b", "a?b=c", "a#b", "ü", "%2e%2e", " "])
async def test_a_foreign_id_stays_one_segment_of_the_path(serve: Serve, text: str) -> None:
    seen: list[str] = []

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append((await reader.readuntil(b"\r\n\r\n")).split(b" ")[1].decode())
        writer.write(OK + b'Content-Length: 11\r\n\r\n{"ok":true}')
        await writer.drain()

    async with transport(f"{await serve(script)}/base/") as http:
        await http.call("GET", f"/jobs/{segment(text)}", within=5.0)
    path = seen[0]
    assert path.startswith("/base/jobs/")
    assert path.count("/") == 3
    assert "?" not in path


async def test_a_transport_that_is_not_open_says_so() -> None:
    with pytest.raises(ServiceFaultError, match="not open"):
        await transport("http://127.0.0.1:9").call("GET", "/", within=1.0)


RPC = {"unary_unary", "unary_stream", "stream_unary", "stream_stream"}


@pytest.mark.row("002:231")
def test_every_outward_call_names_its_timeout() -> None:
    """By its syntax: of HTTP, of WebSockets and of gRPC, whose calls are made by what a channel makes."""
    room = Path(hostler.connectors.__path__[0])
    verbs = {"request", "get", "post", "put", "delete", "ws_connect"}
    calls = 0
    silent: list[str] = []
    for path in room.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            names = {keyword.arg for keyword in node.keywords}
            if isinstance(node.func, ast.Call) and ast.unparse(node.func.func).rpartition(".")[2] in RPC:
                calls += 1
                if "timeout" not in names:
                    silent.append(f"{path.name}:{node.lineno}")
            if not isinstance(node.func, ast.Attribute):
                continue
            owner = ast.unparse(node.func.value)
            if owner == "session" and node.func.attr in verbs:
                calls += 1
                if "timeout" not in names:
                    silent.append(f"{path.name}:{node.lineno}")
            if owner.endswith(("_http", "http", "_grpc", "grpc")) and node.func.attr in {"call", "stream"}:
                calls += 1
                if not ({"within"} <= names or {"first_byte", "silence"} <= names):
                    silent.append(f"{path.name}:{node.lineno}")
    assert calls > 5
    assert silent == []
