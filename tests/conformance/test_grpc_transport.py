"""The gRPC transport keeps every promise of a conversation, against a real server on a line that can be cut."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Any

import grpc
import grpc.aio
import pytest

from hostler.connectors.transports.grpc import GrpcTransport
from hostler.testing.transports import CREDENTIAL, Play, TransportConformance, TransportHarness

NOWHERE = "grpc://127.0.0.1:9"  # discard: nothing listens there
Context = grpc.aio.ServicerContext[bytes, bytes]


class Line:
    """Carries bytes between a client and a server until it is cut."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._ends: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def laid(self) -> AsyncGenerator[int]:
        server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()
            self.cut()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> None:
        for end in self._ends:
            end.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._port)
        ends = {writer, back}
        self._ends |= ends
        pipes = {asyncio.create_task(self._pipe(reader, back)), asyncio.create_task(self._pipe(there, writer))}
        self._tasks |= pipes
        await asyncio.wait(pipes, return_when=asyncio.FIRST_COMPLETED)
        for end in ends:
            end.transport.abort()
        await asyncio.wait(pipes)
        self._ends -= ends
        self._tasks -= pipes

    async def _pipe(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()


class Peer:
    """Plays over a method that answers with a stream."""

    def __init__(self) -> None:
        self.present = 0
        self.line: Line | None = None

    @asynccontextmanager
    async def served(self) -> AsyncGenerator[str]:
        server = grpc.aio.server()
        handlers: dict[str, Any] = {"Play": grpc.unary_stream_rpc_method_handler(self._play)}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Peer", handlers),))
        self.line = Line(server.add_insecure_port("127.0.0.1:0"))
        await server.start()
        try:
            async with self.line.laid() as port:
                yield f"grpc://127.0.0.1:{port}"
        finally:
            await server.stop(None)

    async def _play(self, request: bytes, context: Context) -> None:
        self.present += 1
        try:
            play = Play.of(request)
            shown = dict(context.invocation_metadata() or ())["authorization"]
            credential = str(shown).removeprefix("Bearer ")
            if play.then == "refuse":
                await context.abort(grpc.StatusCode.UNAUTHENTICATED, f"not with {credential}")
            await context.send_initial_metadata(())
            await play.perform(context.write, credential=credential)
            if play.then == "die":
                assert self.line is not None
                self.line.cut()
            if play.then in {"die", "hang"}:
                await asyncio.Event().wait()  # cancelled when the other side is gone
        finally:
            self.present -= 1


@pytest.mark.row("001:196", "001:200")
class TestGrpcTransport(TransportConformance):
    @pytest.fixture
    async def harness(self) -> AsyncGenerator[TransportHarness]:
        peer = Peer()
        async with peer.served() as url:
            yield TransportHarness(
                build=lambda: GrpcTransport(url, api_key=CREDENTIAL),
                nowhere=lambda: GrpcTransport(NOWHERE, api_key=CREDENTIAL),
                target="/test.Peer/Play",
                present=lambda: peer.present,
            )
