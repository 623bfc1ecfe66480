"""The WebSocket transport against servers that misbehave byte by byte: handshakes, frames, goodbyes, silence."""

import asyncio
import base64
import hashlib
import struct
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from hostler.connectors.faults import ServiceFaultError
from hostler.connectors.transports.conversation import Limits
from hostler.connectors.transports.websocket import CLOSE_CODES, Frame, WebsocketTransport
from hostler.contracts.failure import Failure, FailureClass, Stage
from hostler.kernel.errors import InvalidError
from hostler.kernel.settings import HttpSettings
from hostler.testing.eventually import eventually

C = FailureClass
Serve = Callable[[Any], Awaitable[str]]
Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Script = Callable[..., Any]
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


def transport(url: str, **more: Any) -> WebsocketTransport:
    return WebsocketTransport(url, settings=HttpSettings(), **more)


def frame(opcode: int, data: bytes = b"", *, last: bool = True) -> bytes:
    size = bytes([len(data)]) if len(data) < 126 else b"\x7e" + struct.pack(">H", len(data))
    return bytes([opcode | (0x80 if last else 0)]) + size + data


def closing(code: int, reason: str = "") -> bytes:
    return frame(CLOSE, struct.pack(">H", code) + reason.encode())


def shaking(talk: Talk) -> Talk:
    """Make a script that shakes hands and then talks."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        key = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key:")).split()[1]
        accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
        writer.write(
            b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
        )
        await talk(reader, writer)

    return script


def saying(*parts: bytes, hold: bool = True) -> Talk:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
            await writer.drain()
        if hold:
            await reader.read()

    return shaking(talk)


async def frames_of(url: str, limits: Limits | None = None, **more: Any) -> tuple[list[Frame], Failure | None]:
    """Return the frames that a server sends, and the failure that it ends with if it does."""
    frames: list[Frame] = []
    try:
        async with (
            transport(url, **more) as sockets,
            sockets.conversation("/", limits=limits or Limits()) as conversation,
        ):
            async for found in conversation.frames():
                frames.append(found)  # noqa: PERF401 - what came before a failure counts
    except ServiceFaultError as error:
        return frames, error.failure
    return frames, None


@pytest.mark.row("001:199")
@pytest.mark.parametrize(
    ("parts", "class_"),
    [
        ((b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n",), C.AUTH),
        ((b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n",), C.CAPABILITY_MISMATCH),
        ((b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n",), C.OVERLOADED),
        ((b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:9/\r\nContent-Length: 0\r\n\r\n",), C.TRANSIENT),
        ((b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<html>Welcome!</html>",), C.TRANSIENT),
        ((b"HTTP/1.1 101 OK\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",), C.TRANSIENT),
        ((b"HTTP/1.1 101 OK\r\n\r\n",), C.TRANSIENT),
        ((b"SSH-2.0-OpenSSH_9.2\r\n",), C.TRANSIENT),
        ((b"",), C.TRANSIENT),
    ],
)
async def test_a_handshake_that_opens_no_socket_is_a_failure_with_a_class(
    serve: Serve, answer: Script, parts: tuple[bytes, ...], class_: C
) -> None:
    frames, failure = await frames_of(await serve(answer(*parts)))
    assert frames == []
    assert failure is not None
    assert failure.class_ is class_
    assert failure.message


async def test_a_refused_handshake_gives_the_words_and_the_time_of_its_answer(serve: Serve, answer: Script) -> None:
    body = b'{"error": {"code": "full", "message": "come back, sk-very-secret"}}'
    head = b"HTTP/1.1 429 Slow\r\nRetry-After: 3\r\nContent-Length: %d\r\n\r\n" % len(body)
    _, failure = await frames_of(await serve(answer(head + body)), api_key="sk-very-secret")
    assert failure is not None
    assert (failure.class_, failure.retry_after, failure.message) == (C.OVERLOADED, 3.0, "come back, ***")
    assert failure.details == {"status": 429, "code": "full"}


async def test_a_redirect_is_not_followed(serve: Serve, answer: Script) -> None:
    elsewhere: list[bytes] = []

    async def stranger(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        elsewhere.append(await reader.readuntil(b"\r\n\r\n"))

    location = (await serve(stranger)).encode()
    head = b"HTTP/1.1 307 Go\r\nLocation: " + location + b"\r\nContent-Length: 0\r\n\r\n"
    _, failure = await frames_of(await serve(answer(head)), api_key="sk-very-secret")
    assert failure is not None
    assert failure.details["status"] == 307
    assert elsewhere == []


async def test_a_handshake_that_nobody_answers_is_a_connect_timeout(serve: Serve, answer: Script) -> None:
    _, failure = await frames_of(await serve(answer(hold=True)), Limits(opening=0.2))
    assert failure is not None
    assert (failure.class_, failure.stage) == (C.TIMEOUT, Stage.CONNECT)


async def test_messages_in_fragments_arrive_whole_with_their_kind_and_controls_between_them(serve: Serve) -> None:
    parts = (frame(TEXT, b'{"a', last=False), frame(PING, b"?"), frame(0, b'": 1', last=False), frame(0, b"}"))
    url = await serve(saying(*parts, frame(BINARY, b"\x00\xff"), frame(TEXT), closing(1000)))
    frames, failure = await frames_of(url)
    assert failure is None
    assert frames == [Frame(data=b'{"a": 1}'), Frame(data=b"\x00\xff", text=False), Frame(data=b"")]


@pytest.mark.parametrize(
    ("end", "class_"),
    [
        (closing(1000), None),
        (frame(CLOSE), None),
        *((closing(code, "because"), class_) for code, class_ in CLOSE_CODES.items()),
        (closing(1001), C.TRANSIENT),
        (closing(1011, "oops"), C.TRANSIENT),
        (closing(4321), C.TRANSIENT),
    ],
)
async def test_what_a_close_means_is_said_by_its_code(serve: Serve, end: bytes, class_: C | None) -> None:
    frames, failure = await frames_of(await serve(saying(frame(TEXT, b"1"), end)))
    assert frames == [Frame(data=b"1")]
    assert (failure and failure.class_) == class_
    assert failure is None or failure.message


@pytest.mark.row("001:199")
@pytest.mark.parametrize(
    "end",
    [
        b"",  # the connection just ends
        frame(TEXT, b"cut off")[:4],
        frame(TEXT, b"never finished", last=False),
        b"\xf1\x00",  # reserved bits
        frame(3),  # no such kind of frame
        frame(0, b"goes on, with nothing begun"),
        frame(CLOSE, b"\x03"),
        b"HTTP/1.1 500 Oops\r\n\r\n",
    ],
)
async def test_an_end_that_is_not_the_protocols_is_transient_and_never_an_end(serve: Serve, end: bytes) -> None:
    frames, failure = await frames_of(await serve(saying(frame(TEXT, b"1"), end, hold=False)))
    assert frames == [Frame(data=b"1")]
    assert failure is not None
    assert failure.class_ is C.TRANSIENT


@pytest.mark.row("001:199")
async def test_a_peer_that_answers_no_ping_is_gone_and_one_that_does_is_not(serve: Serve) -> None:
    pings: list[bytes] = []

    async def quiet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while len(pings) < 2:
            head = await reader.readexactly(6)  # masked and empty
            pings.append(head[:1])
            writer.write(frame(PONG))
        writer.write(closing(1000))
        await reader.read()

    assert await frames_of(await serve(shaking(quiet)), ping=0.4) == ([], None)
    assert pings == [bytes([0x80 | PING])] * 2
    _, failure = await frames_of(await serve(saying()), ping=0.1)
    assert failure is not None
    assert failure.class_ is C.TRANSIENT
    assert "PONG" in failure.message


async def test_a_peer_that_takes_nothing_is_a_timeout(serve: Serve) -> None:
    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    url = await serve(shaking(deaf))
    async with transport(url) as sockets, sockets.conversation("/", limits=Limits(opening=0.3)) as conversation:

        async def press() -> None:
            for _ in range(1_000):
                await conversation.send(b"x" * 100_000, text=False)

        with pytest.raises(ServiceFaultError) as caught:
            await press()
    assert (caught.value.failure.class_, caught.value.failure.stage) == (C.TIMEOUT, Stage.IDLE)


async def test_leaving_says_goodbye_and_does_not_wait_for_a_peer_that_talks_on(serve: Serve) -> None:
    heard: list[bytes] = []

    async def talker(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def listen() -> None:
            heard.append((await reader.readexactly(8))[:1])

        listening = asyncio.create_task(listen())
        try:
            while True:
                writer.write(frame(TEXT, b"and another thing"))
                await writer.drain()
                await asyncio.sleep(0)
        finally:
            listening.cancel()

    async with transport(await serve(shaking(talker))) as sockets:

        async def once() -> None:
            async with sockets.conversation("/") as conversation:
                assert (await anext(conversation.messages())) == b"and another thing"

        await asyncio.wait_for(once(), 10)
    await eventually(lambda: heard == [bytes([0x80 | CLOSE])])


async def test_the_credential_is_sent_as_bearer_and_the_handshake_brings_nothing_else(serve: Serve) -> None:
    seen: list[bytes] = []

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readuntil(b"\r\n\r\n"))

    await frames_of(f"{await serve(script)}/base/", api_key="sk-very-secret")
    assert seen[0].startswith(b"GET /base/ HTTP/1.1\r\n")
    assert b"Authorization: Bearer sk-very-secret\r\n" in seen[0]
    for absent in (b"Cookie", b"Origin", b"Sec-WebSocket-Extensions"):
        assert absent not in seen[0]


@pytest.mark.parametrize("url", ["ftp://a/", "ws://user:word@a/", "ws://a/?key=1", "wss://", "a"])
def test_a_url_that_cannot_work_is_refused_before_anything_is_sent(url: str) -> None:
    with pytest.raises(InvalidError) as caught:
        transport(url)
    assert "word" not in caught.value.message
