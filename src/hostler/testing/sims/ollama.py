"""A simulated Ollama: the API of its server, without a model behind it.

    GET    /  /api/version  /api/tags  /api/ps
    POST   /api/chat  /api/generate  /api/embed  /api/show  /api/pull  /api/copy     DELETE /api/delete
    GET    /sim/effects?after=N  /sim/knobs      PUT /sim/knobs      (no part of Ollama)

Answers are NDJSON unless `stream` is false, and the last line says `done`. An error before the first byte has a
status and is `{"error": text}`; one after it is such a line under status 200. A request whose connection is closed
is stopped.
"""

from collections.abc import Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import msgspec
from aiohttp import web

from hostler.testing.sims.effects import EffectLog
from hostler.testing.sims.knobs import chance
from hostler.testing.sims.ollama_knobs import OllamaKnobs
from hostler.testing.sims.ollama_words import RefusedError, ask
from hostler.testing.sims.ollama_work import OllamaWork, answer
from hostler.testing.sims.serving import listening

VERSION: Final = "0.12.6"
BODY_LIMIT: Final = 67_108_864
CONTEXT: Final = 4096
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class OllamaHTTPService:
    """One simulated server; `async with` starts it, `url` says where it listens (port 0 takes any free one)."""

    def __init__(
        self, knobs: OllamaKnobs | None = None, *, host: str = "127.0.0.1", port: int = 0, effects: Path | None = None
    ) -> None:
        self.effects = EffectLog(effects)
        self.work = OllamaWork(knobs or OllamaKnobs(), self.effects)
        self.url = ""
        self._host, self._port = host, port
        self._runner: web.AppRunner | None = None
        self._checks = 0

    @property
    def knobs(self) -> OllamaKnobs:
        """The knobs as they are now; they may be set at any time and hold for requests that come after."""
        return self.work.knobs

    @knobs.setter
    def knobs(self, knobs: OllamaKnobs) -> None:
        self.work.knobs = knobs

    async def __aenter__(self) -> Self:
        await self.effects.__aenter__()
        try:
            self._runner, self.url = await listening(self._app(), self._host, self._port)
        except BaseException:  # also when cancelled: nothing may stay open behind a start that failed
            await self.effects.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
        await self.effects.__aexit__(kind, value, trace)

    def _app(self) -> web.Application:
        app = web.Application(middlewares=[self._errors], client_max_size=BODY_LIMIT)
        app.add_routes(
            [
                web.get("/", self._root),
                web.get("/api/version", self._version),
                web.get("/api/tags", self._tags),
                web.get("/api/ps", self._ps),
                web.post("/api/show", self._show),
                web.post("/api/chat", self._text),
                web.post("/api/generate", self._text),
                web.post("/api/embed", self._embed),
                web.post("/api/pull", self._pull),
                web.post("/api/copy", self._copy),
                web.delete("/api/delete", self._delete),
                web.get("/sim/effects", self._effects),
                web.get("/sim/knobs", self._get_knobs),
                web.put("/sim/knobs", self._put_knobs),
            ]
        )
        return app

    @web.middleware
    async def _errors(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except RefusedError as error:
            retry = self.knobs.retry_after if error.status == web.HTTPServiceUnavailable.status_code else None
            headers = None if retry is None else {"Retry-After": f"{retry:g}"}
            return answer({"error": error.message}, error.status, headers)

    async def _root(self, _request: web.Request) -> web.StreamResponse:
        return web.Response(text="Ollama is running")

    async def _version(self, _request: web.Request) -> web.StreamResponse:
        self._checks += 1
        if chance(self.knobs.seed, "health", self._checks) < self.knobs.health_failure_rate:
            raise RefusedError(500, "simulated")
        return answer({"version": VERSION})

    async def _tags(self, _request: web.Request) -> web.StreamResponse:
        return answer({"models": [self.work.view(name) for name in self.work.installed()]})

    async def _ps(self, _request: web.Request) -> web.StreamResponse:
        rows = [
            {
                **self.work.view(name),
                "size": one.size,
                "size_vram": one.gpu,
                "expires_at": one.expires_at(),
                "context_length": CONTEXT,
            }
            for name, one in self.work.memory.held().items()
        ]
        return answer({"models": rows})

    async def _show(self, request: web.Request) -> web.StreamResponse:
        asked = ask(await request.read())
        self.work.require(asked)
        able = ["embedding"] if self.work.installed()[asked.full] else ["completion", "tools", "thinking"]
        view = self.work.view(asked.full)
        shown = {"details": view["details"], "modified_at": view["modified_at"], "capabilities": able}
        return answer({**shown, "template": "", "model_info": dict[str, Any]()})

    async def _text(self, request: web.Request) -> web.StreamResponse:
        return await self.work.text(request, ask(await request.read()), does=request.path.removeprefix("/api/"))

    async def _embed(self, request: web.Request) -> web.StreamResponse:
        return await self.work.embed(ask(await request.read()))

    async def _pull(self, request: web.Request) -> web.StreamResponse:
        return await self.work.pull(request, ask(await request.read()))

    async def _copy(self, request: web.Request) -> web.StreamResponse:
        fields = _fields(await request.read())
        source = ask(msgspec.json.encode({"model": fields.get("source")}))
        self.work.require(source)
        self.work.add(str(fields.get("destination")))
        return web.Response()

    async def _delete(self, request: web.Request) -> web.StreamResponse:
        asked = ask(await request.read())
        self.work.require(asked)
        self.work.delete(asked.full)
        return web.Response()

    async def _effects(self, request: web.Request) -> web.StreamResponse:
        text = request.query.get("after", "0")
        after = int(text) if text.isdecimal() else 0
        effects = self.effects.after(after)
        return answer({"effects": effects, "next": after + len(effects)})

    async def _get_knobs(self, _request: web.Request) -> web.StreamResponse:
        return answer(self.knobs)

    async def _put_knobs(self, request: web.Request) -> web.StreamResponse:
        """Change the knobs that the body names; the others stay."""
        change = _fields(await request.read())
        try:
            self.knobs = msgspec.convert({**msgspec.to_builtins(self.knobs), **change}, OllamaKnobs)
        except msgspec.ValidationError as error:
            raise RefusedError(400, str(error)) from None
        return answer(self.knobs)


def _fields(body: bytes) -> dict[str, Any]:
    try:
        return msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise RefusedError(400, str(error)) from None
