"""The least of a server that speaks the OpenAI API: for measuring clients, so it does nothing itself.

`python -m benchmarks.tiny_openai` says its URL on the first line and runs until it is killed.
"""

import asyncio
from typing import Final

import msgspec
import uvloop
from aiohttp import web

TOKENS: Final = 20
"""Pieces of text of one chat."""

_VECTOR: Final = msgspec.json.encode(
    {"model": "tiny", "data": [{"index": 0, "embedding": [0.5] * 8}], "usage": {"prompt_tokens": 3, "total_tokens": 3}}
)


def _chunk(delta: dict[str, str], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return b"data: " + msgspec.json.encode({"id": "c", "model": "tiny", "choices": [choice]}) + b"\n\n"


_CHUNKS: Final = (*(_chunk({"content": f"word {n} "}) for n in range(TOKENS)), _chunk({}, "stop") + b"data: [DONE]\n\n")


async def _health(_: web.Request) -> web.StreamResponse:
    return web.json_response({"status": "ok"})


async def _models(_: web.Request) -> web.StreamResponse:
    return web.json_response({"object": "list", "data": [{"id": "tiny", "object": "model"}]})


async def _embed(request: web.Request) -> web.StreamResponse:
    await request.read()
    return web.Response(body=_VECTOR, content_type="application/json")


async def _chat(request: web.Request) -> web.StreamResponse:
    await request.read()
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    for chunk in _CHUNKS[:-1]:
        await response.write(chunk)
        await asyncio.sleep(0.001)
    await response.write(_CHUNKS[-1])
    await response.write_eof()
    return response


async def main() -> None:
    """Serve on any free port."""
    app = web.Application()
    app.add_routes(
        [
            web.get("/health", _health),
            web.get("/v1/models", _models),
            web.post("/v1/embeddings", _embed),
            web.post("/v1/chat/completions", _chat),
        ]
    )
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(f"ready: http://127.0.0.1:{runner.addresses[0][1]}", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main())
