"""A simulated ComfyUI: its HTTP API and its socket, in two dialects, without a GPU.

    POST /prompt            GET /prompt  /queue  /history[/{id}]  /view  /object_info[/{class}]  /models[/{folder}]
    POST /queue  /history  /interrupt  /free  /upload/image  /upload/mask
    GET  /system_stats  /features  /embeddings  /extensions  /ws?clientId=
    GET  /api/jobs[/{id}]   POST /api/jobs/{id}/cancel  /api/jobs/cancel         (new dialect)

Every route is there twice, with and without `/api`. Its own, which no ComfyUI has: `/effects?after=N`, `/knobs`.
Not simulated: conversions of `/view` (`preview`, `channel`), `/upload/mask` composes nothing, models of nodes
other than checkpoints.
"""

import uuid
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import msgspec
from aiohttp import web

from hostler.testing.sims.comfyui_jobs import ComfyuiJobs
from hostler.testing.sims.comfyui_knobs import ComfyuiKnobs
from hostler.testing.sims.comfyui_routes import ComfyuiFolders, ComfyuiQueue, Handler, Rows, json_body
from hostler.testing.sims.comfyui_rules import judge, problem
from hostler.testing.sims.comfyui_socket import ComfyuiSockets
from hostler.testing.sims.comfyui_work import ComfyuiWork
from hostler.testing.sims.effects import EffectLog
from hostler.testing.sims.knobs import chance
from hostler.testing.sims.serving import listening
from hostler.testing.sims.work import RequestRefusedError

VERSIONS: Final = {"new": "0.4.0", "old": "v0.2.3-12-g1a2b3c4"}
UPLOAD_LIMIT: Final = 104_857_600
"""ComfyUI's own: `--max-upload-size`, 100 MB."""


class ComfyuiService:
    """One simulated ComfyUI; `async with` starts it, `url` says where it listens (port 0 takes any free one)."""

    def __init__(
        self, knobs: ComfyuiKnobs | None = None, *, host: str = "127.0.0.1", port: int = 0, effects: Path | None = None
    ) -> None:
        self.effects = EffectLog(effects)
        self.sockets = ComfyuiSockets()
        self.work = ComfyuiWork(knobs or ComfyuiKnobs(), self.effects, self.sockets)
        self.sockets.work = self.work
        self.url = ""
        self._host, self._port = host, port
        self._runner: web.AppRunner | None = None
        self.requests = 0
        """Requests so far."""
        self._checks = self._burst = 0

    @property
    def knobs(self) -> ComfyuiKnobs:
        """The knobs as they are now; they may be set at any time and hold for prompts that begin after."""
        return self.work.knobs

    @knobs.setter
    def knobs(self, knobs: ComfyuiKnobs) -> None:
        self.work.knobs = knobs

    async def __aenter__(self) -> Self:
        await self.effects.__aenter__()
        try:
            self._runner, self.url = await listening(self._app(), self._host, self._port)
        except BaseException:  # also when cancelled: nothing may stay open behind a start that failed
            await self.effects.__aexit__(None, None, None)
            raise
        self.work.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.work.close()
        await self.sockets.close()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
        await self.effects.__aexit__(kind, value, trace)

    def forget(self) -> None:
        """Lose queue, history and cache, as a restart does; what runs is stopped without a trace."""
        self.work.clear()
        self.work.history.clear()
        self.work.interrupt()

    def _app(self) -> web.Application:
        app = web.Application(middlewares=[self._errors, self._trouble], client_max_size=UPLOAD_LIMIT)
        jobs = ComfyuiJobs(self.work)
        twice: Rows = [
            *ComfyuiQueue(self.work, self.sockets).rows(),
            *ComfyuiFolders(self.work).rows(),
            ("GET", "/prompt", self._get_prompt),
            ("POST", "/prompt", self._post_prompt),
            ("GET", "/features", self._features),
            ("GET", "/system_stats", self._system_stats),
            ("GET", "/ws", self.sockets.handle),
        ]
        for prefix in ("", "/api"):
            app.add_routes([web.route(method, prefix + path, handler) for method, path, handler in twice])
        app.add_routes(jobs.routes())
        app.add_routes(
            [
                web.get("/effects", self._effects),
                web.get("/knobs", self._get_knobs),
                web.put("/knobs", self._put_knobs),
            ]
        )
        return app

    @web.middleware
    async def _errors(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except RequestRefusedError as error:
            return web.Response(status=error.status, text=error.message)

    @web.middleware
    async def _trouble(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        origin = request.headers.get("Origin")
        if origin is not None and origin.rpartition("//")[2] != request.host:
            return web.Response(status=403)  # pages of other sites must not queue prompts
        self.requests += 1
        if not self._burst and chance(self.knobs.seed, "burst", self.requests) < self.knobs.burst_rate:
            self._burst = self.knobs.burst_length
        if self._burst:
            self._burst -= 1
            raise RequestRefusedError((500, 502, 503)[self._burst % 3], "burst", "simulated server error")
        return await handler(request)

    def _healthy(self) -> None:
        self._checks += 1
        if chance(self.knobs.seed, "health", self._checks) < self.knobs.health_failure_rate:
            raise RequestRefusedError(503, "unhealthy", "simulated health failure")

    async def _get_prompt(self, _request: web.Request) -> web.StreamResponse:
        self._healthy()
        return web.json_response(self.sockets.queue_info())

    async def _post_prompt(self, request: web.Request) -> web.StreamResponse:
        body = await json_body(request)
        modern = self.work.modern
        prompt: dict[str, Any] | None = body.get("prompt")
        if not isinstance(prompt, dict):
            words = problem("no_prompt", "No prompt provided", "No prompt provided") if modern else "no prompt"
            return web.json_response({"error": words, "node_errors": {} if modern else []}, status=400)
        prompt_id = str(uuid.uuid4())
        if modern and body.get("prompt_id") is not None:
            prompt_id = str(body["prompt_id"])
            if not _canonical(prompt_id):
                error = problem("invalid_prompt_id", "prompt_id must be a valid UUID", prompt_id)
                return web.json_response({"error": error, "node_errors": {}}, status=400)
        verdict = judge(prompt, self.work.classes(), modern=modern)
        if verdict.error is not None:
            return web.json_response({"error": verdict.error, "node_errors": verdict.node_errors}, status=400)
        number = self.work.put(prompt_id, body, verdict.outputs)
        await self.sockets.queue_changed()
        if chance(self.knobs.seed, prompt_id, "swallow") < self.knobs.swallow_rate and request.transport is not None:
            request.transport.abort()
        answer = {"prompt_id": prompt_id, "number": number, "node_errors": verdict.node_errors}
        return web.json_response(answer)

    async def _features(self, _request: web.Request) -> web.StreamResponse:
        if not self.work.modern:
            return web.Response(status=404)
        return web.json_response(self.sockets.features())

    async def _system_stats(self, _request: web.Request) -> web.StreamResponse:
        self._healthy()
        vram = self.knobs.vram
        free = vram // 4 if self.work.running else vram
        system = {
            "os": "posix",
            "ram_total": 67_108_864_000,
            "ram_free": 33_554_432_000,
            "comfyui_version": VERSIONS[self.knobs.dialect],
            "python_version": "3.12.7 (main)",
            "pytorch_version": "2.7.1+cu128",
            "embedded_python": False,
            "argv": ["main.py"],
        }
        device = {"name": "cuda:0 Simulated RTX", "type": "cuda", "index": 0, "vram_total": vram, "vram_free": free}
        device |= {"torch_vram_total": vram - free, "torch_vram_free": 0}
        return web.json_response({"system": system, "devices": [device]})

    async def _effects(self, request: web.Request) -> web.StreamResponse:
        after = int(request.query.get("after", "0"))
        effects = self.effects.after(after)
        return _sealed({"effects": effects, "next": after + len(effects)})

    async def _get_knobs(self, _request: web.Request) -> web.StreamResponse:
        return _sealed(self.knobs)

    async def _put_knobs(self, request: web.Request) -> web.StreamResponse:
        """Change the knobs that the body names; the others stay."""
        change = await json_body(request)
        try:
            self.knobs = msgspec.convert({**msgspec.structs.asdict(self.knobs), **change}, ComfyuiKnobs)
        except (msgspec.ValidationError, ValueError) as error:
            raise RequestRefusedError(400, "invalid_input", str(error)) from None
        return _sealed(self.knobs)


def _canonical(text: str) -> bool:
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False


def _sealed(value: Any) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), content_type="application/json")
