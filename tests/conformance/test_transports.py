"""Every transport keeps every promise of a conversation, against a real peer that plays what it is asked for."""

import asyncio
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest
from aiohttp import WSMsgType, web

from hostler.connectors.faults import ServiceFaultError
from hostler.connectors.transports.conversation import LIMITS, Conversation, Limits, Transport
from hostler.connectors.transports.http import HttpTransport
from hostler.connectors.transports.process import Command, ProcessTransport
from hostler.connectors.transports.websocket import WebsocketTransport
from hostler.contracts.failure import FailureClass
from hostler.kernel.settings import HttpSettings
from hostler.testing.transports import CREDENTIAL, Play, TransportConformance, TransportHarness

NOWHERE = "http://127.0.0.1:9"  # discard: nothing listens there
Say = Callable[[bytes], Awaitable[None]]
Defect = Callable[[AsyncGenerator[bytes]], AsyncGenerator[bytes]]


class Peer:
    """Plays over lines of JSON, server-sent events and WebSockets, and counts the conversations that it is in."""

    def __init__(self) -> None:
        self.present = 0

    @asynccontextmanager
    async def served(self) -> AsyncGenerator[str]:
        @web.middleware
        async def counting(
            request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
        ) -> web.StreamResponse:
            self.present += 1
            try:
                return await handler(request)
            finally:
                self.present -= 1

        app = web.Application(middlewares=[counting])
        app.add_routes([web.post("/{form:lines|events}", self._stream), web.get("/socket", self._socket)])
        runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        try:
            yield f"http://127.0.0.1:{runner.addresses[0][1]}"
        finally:
            await runner.cleanup()

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        play, credential = Play.of(await request.read()), _shown(request)
        if play.then == "refuse":
            return web.json_response({"error": {"message": f"not with {credential}"}}, status=401)
        events = request.match_info["form"] == "events"
        kind = "text/event-stream" if events else "application/x-ndjson"
        answer = web.StreamResponse(headers={"Content-Type": kind})
        answer.enable_chunked_encoding()
        await answer.prepare(request)

        async def say(message: bytes) -> None:
            await answer.write(b"data: " + message + b"\n\n" if events else message + b"\n")

        await play.perform(say, credential=credential)
        await _leave(play, request, asyncio.Event().wait)  # cancelled when the other side leaves
        return answer

    async def _socket(self, request: web.Request) -> web.StreamResponse:
        credential = _shown(request)
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        play = Play.of((await socket.receive_str()).encode())
        if play.then == "refuse":
            await socket.close(code=3000, message=f"not with {credential}".encode())
            return socket

        async def say(message: bytes) -> None:
            await socket.send_str(message.decode())

        await play.perform(say, credential=credential)
        if play.then == "echo":
            async for message in socket:
                if message.type is WSMsgType.TEXT:
                    await socket.send_str(message.data)
        await _leave(play, request, socket.receive)
        return socket


def _shown(request: web.Request) -> str:
    return request.headers["Authorization"].removeprefix("Bearer ")


async def _leave(play: Play, request: web.Request, wait: Callable[[], Awaitable[object]]) -> None:
    if play.then == "die":
        assert request.transport is not None
        request.transport.close()
    if play.then == "hang":
        await wait()


@pytest.fixture
async def peer() -> Peer:
    return Peer()


def harness_of(peer: Peer, transport: Callable[[str], Transport], target: str, url: str) -> TransportHarness:
    return TransportHarness(
        build=lambda: transport(url),
        nowhere=lambda: transport(NOWHERE),
        target=target,
        present=lambda: peer.present,
        echoes=target == "/socket",
    )


def http(url: str) -> Transport:
    return HttpTransport(url, settings=HttpSettings(), api_key=CREDENTIAL)


def websocket(url: str) -> Transport:
    return WebsocketTransport(url.replace("http", "ws"), settings=HttpSettings(), api_key=CREDENTIAL)


@pytest.mark.row("001:196")
class TestHttpTransport(TransportConformance):
    @pytest.fixture(params=["/lines", "/events"])
    async def harness(self, request: pytest.FixtureRequest, peer: Peer) -> AsyncGenerator[TransportHarness]:
        async with peer.served() as url:
            yield harness_of(peer, http, request.param, url)


@pytest.mark.row("001:196", "001:199")
class TestWebsocketTransport(TransportConformance):
    @pytest.fixture
    async def harness(self, peer: Peer) -> AsyncGenerator[TransportHarness]:
        async with peer.served() as url:
            yield harness_of(peer, websocket, "/socket", url)


PLAYER = """
import json, os, signal, sys
(open(os.environ["PRESENT"] + "/" + str(os.getpid()), "w")).close()
play = json.loads(sys.stdin.readline())
secret = os.environ["CREDENTIAL"]
for _ in range(play["times"]):
    for text in play["says"]:
        print(text.replace("$CREDENTIAL", secret), flush=True)
match play["then"]:
    case "die":
        os.kill(os.getpid(), signal.SIGKILL)
    case "hang":
        signal.pause()
    case "echo":
        for line in sys.stdin:
            print(line, end="", flush=True)
    case "refuse":
        print("not with", secret, file=sys.stderr)
        sys.exit(77)
"""


def runs(number: str) -> bool:
    """Whether a process is there and has not ended (a zombie has)."""
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.row("001:196")
class TestProcessTransport(TransportConformance):
    cycles = 5

    @pytest.fixture
    async def harness(self, tmp_path: Path) -> TransportHarness:
        program = tmp_path / "player.py"
        program.write_text(PLAYER)
        present = tmp_path / "present"
        present.mkdir()
        command = Command(
            arguments=(sys.executable, "-I", "-S", str(program)),
            environment={"PRESENT": str(present), "CREDENTIAL": CREDENTIAL, "PYTHONUTF8": "1"},
            secrets=(CREDENTIAL,),
            exits={"77": FailureClass.AUTH},
            dialogue=True,
        )
        return TransportHarness(
            build=lambda: ProcessTransport(command),
            nowhere=lambda: ProcessTransport(Command(arguments=("/no/such/program",))),
            target="",
            present=lambda: sum(runs(path.name) for path in present.iterdir()),
            echoes=True,
            silence=2.0,
        )


class Spoilt:
    """A conversation whose messages a defect has gone through."""

    def __init__(self, conversation: Conversation, defect: Defect) -> None:
        self._conversation = conversation
        self._defect = defect

    def messages(self) -> AsyncGenerator[bytes]:
        return self._defect(self._conversation.messages())


class Defective:
    """The WebSocket transport with a defect: in what it hears, in its limits, or in how it is left."""

    def __init__(self, url: str, *, defect: Defect | None, limits: Limits | None, stays: bool) -> None:
        self._transport = websocket(url)
        self._defect, self._limits, self._stays = defect, limits, stays
        self._left: list[AsyncExitStack] = []

    async def __aenter__(self) -> Self:
        await self._transport.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._transport.__aexit__(kind, value, trace)

    @asynccontextmanager
    async def conversation(
        self, target: str, opening: bytes = b"", *, limits: Limits = LIMITS
    ) -> AsyncGenerator[Conversation]:
        async with AsyncExitStack() as stack:
            found = self._transport.conversation(target, opening, limits=self._limits or limits)
            conversation = await stack.enter_async_context(found)
            if self._stays:
                self._left.append(stack.pop_all())
            yield Spoilt(conversation, self._defect) if self._defect else conversation


async def takes_death_for_an_end(messages: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    with suppress(ServiceFaultError):
        async for message in messages:
            yield message


async def takes_an_end_for_a_pause(messages: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    async for message in messages:
        yield message
    await asyncio.Event().wait()


async def cuts_messages(messages: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    async for message in messages:
        yield message[:65_536]
        if message[65_536:]:
            yield message[65_536:]


async def turns_messages_round(messages: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    for message in reversed([message async for message in messages]):
        yield message


async def shows_the_credential(messages: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    async for message in messages:
        yield message.replace(b"***", CREDENTIAL.encode())


@pytest.mark.row("001:196")
@pytest.mark.parametrize(
    ("promise", "defect", "limits", "stays"),
    [
        ("a_peer_that_dies_is_transient_and_never_an_end", takes_death_for_an_end, None, False),
        ("the_close_of_the_peer_ends_the_conversation", takes_an_end_for_a_pause, None, False),
        ("messages_arrive_whole_and_in_order", cuts_messages, None, False),
        ("messages_arrive_whole_and_in_order", turns_messages_round, None, False),
        ("the_credential_is_shown_to_the_peer_and_never_part_of_what_comes_back", shows_the_credential, None, False),
        ("silence_ends_as_timeout_of_stage_idle", None, Limits(), False),
        ("a_message_over_its_size_is_off_the_protocol", None, Limits(), False),
        ("a_conversation_that_never_ends_does_end", None, Limits(total=None), False),
        ("leaving_a_conversation_leaves_the_peer", None, None, True),
        ("a_listener_that_is_cancelled_leaves_at_once", None, None, True),
    ],
)
async def test_a_planted_defect_breaks_its_promise(
    peer: Peer, promise: str, defect: Defect | None, limits: Limits | None, *, stays: bool
) -> None:
    kit = TransportConformance()
    async with peer.served() as url:
        harness = harness_of(
            peer, lambda url: Defective(url, defect=defect, limits=limits, stays=stays), "/socket", url
        )
        with pytest.raises((AssertionError, TimeoutError)):
            await asyncio.wait_for(getattr(kit, f"test_{promise}")(harness), 1.5)
