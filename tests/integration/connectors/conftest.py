"""Servers that misbehave on purpose, byte by byte, for tests of what connectors make of it."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Serve = Callable[[Script], Awaitable[str]]


@asynccontextmanager
async def listening(script: Script) -> AsyncGenerator[str]:
    tasks: set[asyncio.Task[None]] = set()

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await script(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            tasks.discard(task)
            writer.transport.abort()

    server = await asyncio.start_server(client, "127.0.0.1", 0)
    try:
        host, port = server.sockets[0].getsockname()[:2]
        yield f"http://{host}:{port}"
    finally:
        server.close()
        for task in tuple(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture
async def serve() -> AsyncGenerator[Serve]:
    """Start a server on a free port that runs the given script for each connection; return its URL."""
    async with AsyncExitStack() as stack:

        async def start(script: Script) -> str:
            return await stack.enter_async_context(listening(script))

        yield start


@pytest.fixture
def answer() -> Callable[..., Script]:
    """Make a script that reads one request and writes these bytes; then closes, or holds the line."""

    def make(*parts: bytes, hold: bool = False, repeat: bytes | None = None) -> Script:
        async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = await reader.readuntil(b"\r\n\r\n")
            for line in head.split(b"\r\n"):
                if line.lower().startswith(b"content-length:"):
                    await reader.readexactly(int(line.split(b":")[1]))
            for part in parts:
                writer.write(part)
                await writer.drain()
            while repeat is not None:
                writer.write(repeat)
                await writer.drain()
                await asyncio.sleep(0)
            if hold:
                await reader.read()

        return script

    return make
