"""Servers that misbehave on purpose, byte by byte, for tests of what connectors make of it."""

import asyncio
import base64
import json
import shutil
import subprocess
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from hostler.testing.sims.work import preview

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


AIMOCK = "@copilotkit/aimock@^1.43.0"
FIXTURES = {
    "fixtures": [
        {
            "match": {"userMessage": "a lighthouse", "endpoint": "image"},
            "response": {"images": [{"b64Json": base64.b64encode(preview(1, "a lighthouse")).decode()}]},
        },
        {"match": {"userMessage": "hello"}, "response": {"content": "Hello there, I am a mock of the protocol."}},
        {
            "match": {"userMessage": "weather"},
            "response": {"toolCalls": [{"name": "get_weather", "arguments": {"city": "Bergen", "unit": "°C"}}]},
        },
        {
            "match": {"userMessage": "break"},
            "response": {"content": "This answer is cut off after a while, and more words follow."},
            "truncateAfterChunks": 2,
        },
        {
            "match": {"userMessage": "filter"},
            "response": {"content": "I would rather", "finishReason": "content_filter"},
        },
        {
            "match": {"userMessage": "limit"},
            "response": {"error": {"message": "You have nothing left", "code": "insufficient_quota"}, "status": 429},
        },
    ]
}


@pytest.fixture(scope="session")
def aimock_program() -> Path:
    """The third-party mock server, installed once into `.cache/aimock`."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("aimock needs node and npm, which are not installed")
    folder = Path(__file__).parents[3] / ".cache" / "aimock"
    program = folder / "node_modules" / ".bin" / "llmock"
    if not program.exists():
        folder.mkdir(parents=True, exist_ok=True)
        command = ["npm", "install", "--prefix", str(folder), "--no-audit", "--no-fund", AIMOCK]
        found = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
        if found.returncode != 0:
            pytest.skip(f"aimock could not be installed: {found.stderr[-300:]}")
    return program


@pytest.fixture
async def aimock(aimock_program: Path, tmp_path: Path) -> AsyncGenerator[str]:
    """URL of a fresh aimock; its moods are set by `POST /__aimock/chaos`."""
    path = tmp_path / "fixtures.json"
    path.write_text(json.dumps(FIXTURES))
    server = await asyncio.create_subprocess_exec(
        str(aimock_program),
        "-p",
        "0",
        "-f",
        str(path),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert server.stdout is not None
    try:
        async with asyncio.timeout(20):
            while line := (await server.stdout.readline()).decode():
                if "listening on " in line:
                    break
        yield line.rpartition("listening on ")[2].strip()
    finally:
        server.kill()
        await server.communicate()
