"""Whatever carries a call, it tells the service how much time is left for the work that it is part of."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import grpc
import pytest
from aiohttp import web

from hostler.connectors.shared import SharedDialogue
from hostler.connectors.transports.grpc import GrpcTransport
from hostler.connectors.transports.http import HttpTransport
from hostler.connectors.transports.protobuf import Method
from hostler.connectors.transports.websocket import WebsocketTransport
from hostler.kernel.allowance import allowance, allowed
from hostler.kernel.settings import HttpSettings
from hostler.policy.deadline import HEADER
from hostler.testing.sims.serving import listening


class Peer:
    """Answers over HTTP and WebSockets, and keeps what each request says of the time that is left."""

    def __init__(self) -> None:
        self.url = ""
        self.told: list[str | None] = []

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.told.append(request.headers.get(HEADER))
        if request.path != "/socket":
            return web.json_response({})
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            await socket.send_str(message.data)
        return socket


@pytest.fixture
async def peer() -> AsyncIterator[Peer]:
    found, app = Peer(), web.Application()
    app.router.add_route("*", "/{path:.*}", found.answer)
    runner, found.url = await listening(app, "127.0.0.1", 0)
    yield found
    await runner.cleanup()


async def test_a_call_and_a_stream_over_http_carry_what_is_left_when_they_are_made(peer: Peer) -> None:
    rest = iter([7.0505, 3.0505])
    async with HttpTransport(peer.url, settings=HttpSettings()) as http:
        with allowed(lambda: next(rest)):
            await http.call("GET", "/a", within=5.0)
            async with http.stream("POST", "/b", body=b"{}", first_byte=5.0, silence=5.0) as stream:
                await stream.answer()
        await http.call("GET", "/c", within=5.0)
    assert peer.told == ["7000", "3000", None]


async def test_what_ends_work_whose_time_is_over_is_not_told_that_it_has_none(peer: Peer) -> None:
    async with HttpTransport(peer.url, settings=HttpSettings()) as http:
        with allowed(lambda: -0.2):
            await http.call("POST", "/cancel", within=5.0)
    assert peer.told == [None]


async def test_what_the_work_starts_has_no_more_time_than_the_work(peer: Peer) -> None:
    async with HttpTransport(peer.url, settings=HttpSettings()) as http:
        with allowed(lambda: 2.0505):
            request = asyncio.create_task(http.call("GET", "/a", within=5.0))
        await request
    assert peer.told == ["2000"]


async def test_a_socket_of_one_job_carries_it_in_its_handshake_and_one_that_many_share_does_not(peer: Peer) -> None:
    async with WebsocketTransport(peer.url, settings=HttpSettings()) as sockets:
        with allowed(lambda: 4.0505):
            async with sockets.conversation("/socket"):
                pass
            shared = SharedDialogue(
                lambda: sockets.conversation("/socket"), number_of=lambda data: json.loads(data)["id"]
            )
            await shared.ask(lambda number: json.dumps({"id": number}).encode(), within=5.0)
            assert allowance() == 4.0505
            await shared.close()
    assert peer.told == ["4000", None]


ECHO: Method[Any] = Method(path="/test.Peer/Once", encode=lambda _: b"{}", decode=json.loads)
STREAM: Method[Any] = Method(path="/test.Peer/Stream", encode=lambda _: b"{}", decode=json.loads)


@asynccontextmanager
async def grpc_peer(seen: list[tuple[str | None, float]]) -> AsyncGenerator[str]:
    def note(context: Any) -> None:
        metadata = {str(name): value for name, value in context.invocation_metadata()}
        seen.append((metadata.get(HEADER.lower()), round(context.time_remaining())))

    async def once(_request: bytes, context: Any) -> bytes:
        note(context)
        return b"{}"

    async def stream(_request: bytes, context: Any) -> AsyncIterator[bytes]:
        note(context)
        yield b"{}"

    server = grpc.aio.server(options=(("grpc.so_reuseport", 0),))
    handlers: dict[str, Any] = {
        "Once": grpc.unary_unary_rpc_method_handler(once),
        "Stream": grpc.unary_stream_rpc_method_handler(stream),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Peer", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"grpc://127.0.0.1:{port}"
    finally:
        await server.stop(None)


async def test_over_grpc_the_calls_own_limit_is_its_timeout_and_what_the_work_has_left_goes_beside_it() -> None:
    seen: list[tuple[str | None, float]] = []
    async with grpc_peer(seen) as url, GrpcTransport(url) as transport:
        with allowed(lambda: 70.0505):
            await transport.call(ECHO, {}, within=7.0)
            async with transport.stream(STREAM, {}, within=30.0) as stream, aclosing(stream.messages()) as messages:
                assert [message async for message in messages] == [{}]
        await transport.call(ECHO, {}, within=7.0)
    assert seen == [("70000", 7), ("70000", 30), (None, 7)]
