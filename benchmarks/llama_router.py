"""A router in front of llama.cpp that keeps one model in memory, as `llama-server --models-max 1` does.

`python -m benchmarks.llama_router FOLDER`: every `NAME.gguf` of the folder is a model. A request names one; if another
is in memory, what runs there ends first, its process is stopped, and the asked one is started. The address goes to
standard output, and it ends when standard input does. `/log` tells of each request when it came, began and ended, and
whether it had to load.

The `llama-server` of the Python package has its own router switched off, hence this one.
"""

import argparse
import asyncio
import contextlib
import json
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from hostler.testing.llama import LlamaServer

READY = "listening "


class Router:
    """Holds one llama.cpp process; requests are answered one at a time, in the order in which they came."""

    def __init__(self, folder: Path) -> None:
        self._paths = {path.stem: path for path in sorted(folder.glob("*.gguf"))}
        self._turn = asyncio.Lock()
        self._stack = AsyncExitStack()
        self._model: str | None = None
        self._url = ""
        self.log: list[dict[str, Any]] = []

    def models(self) -> list[dict[str, Any]]:
        """Return the rows of `/v1/models`."""
        return [
            {"id": name, "object": "model", "status": {"value": "loaded" if name == self._model else "unloaded"}}
            for name in self._paths
        ]

    @asynccontextmanager
    async def holding(self, model: str) -> AsyncGenerator[tuple[str, bool]]:
        """Yield the address of the process that holds this model, and whether it had to be loaded."""
        async with self._turn:
            loads = model != self._model
            if loads:
                self._model = None
                await self._stack.aclose()
                server = await self._stack.enter_async_context(LlamaServer(slots=1, model=self._paths[model]))
                self._model, self._url = model, server.url
            yield self._url, loads

    async def aclose(self) -> None:
        """Stop the process."""
        await self._stack.aclose()


async def chat(request: web.Request) -> web.StreamResponse:
    """Answer by the model that is asked for."""
    router, session = request.app[ROUTER], request.app[SESSION]
    came, asked = time.time(), await request.json()
    if asked["model"] not in {row["id"] for row in router.models()}:
        return web.json_response({"error": {"message": "no such model", "code": 404}}, status=404)
    async with router.holding(asked["model"]) as (url, loads):
        entry = {"model": asked["model"], "user": asked.get("user"), "came": came, "began": time.time(), "loads": loads}
        router.log.append(entry)
        async with session.post(f"{url}/v1/chat/completions", json=asked) as answer:
            reply = web.StreamResponse(status=answer.status, headers={"Content-Type": answer.content_type})
            await reply.prepare(request)
            async for part in answer.content.iter_any():
                await reply.write(part)
        entry["ended"] = time.time()
    with contextlib.suppress(ConnectionResetError):  # whoever has read the last word may be gone
        await reply.write_eof()
    return reply


ROUTER = web.AppKey("router", Router)
SESSION = web.AppKey("session", aiohttp.ClientSession)


async def serve(folder: Path) -> None:
    """Serve until standard input ends."""
    router = Router(folder)

    async def models(_: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": router.models()})

    async def health(_: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def log(_: web.Request) -> web.Response:
        return web.json_response(router.log)

    fresh = aiohttp.TCPConnector(force_close=True)  # the next process may get the port of one that is gone
    async with aiohttp.ClientSession(connector=fresh, timeout=aiohttp.ClientTimeout(total=120)) as session:
        app = web.Application()
        app[ROUTER], app[SESSION] = router, session
        app.add_routes(
            [
                web.get("/health", health),
                web.get("/v1/models", models),
                web.get("/log", log),
                web.post("/v1/chat/completions", chat),
            ]
        )
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        sys.stdout.write(f"{READY}http://{host}:{port}\n")
        sys.stdout.flush()
        await asyncio.to_thread(sys.stdin.buffer.read)
        await runner.cleanup()
    await router.aclose()


@asynccontextmanager
async def routers(folder: Path, count: int) -> AsyncGenerator[list[str]]:
    """Start routers, each in a process of its own, and yield their addresses."""
    async with AsyncExitStack() as stack:
        found: list[str] = []
        for _ in range(count):
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "benchmarks.llama_router",
                str(folder),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            )
            stack.push_async_callback(_end, process)
            if process.stdout is None:
                raise RuntimeError("the router has no output")
            line = (await process.stdout.readline()).decode()
            found.append(line.removeprefix(READY).strip())
        yield found


async def _end(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(process.communicate(b""), 10)
    if process.returncode is None:
        process.kill()
        await process.wait()


async def logged(session: aiohttp.ClientSession, urls: list[str]) -> list[dict[str, Any]]:
    """Return what all routers logged."""
    rows: list[dict[str, Any]] = []
    for url in urls:
        async with session.get(f"{url}/log") as answer:
            rows += json.loads(await answer.read())
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A router with one llama.cpp process behind it")
    parser.add_argument("folder", type=Path)
    asyncio.run(serve(parser.parse_args().folder))
