"""The API of AUTOMATIC1111's web UI, simulated: made to be taken for it by its clients.

POST /sdapi/v1/txt2img  img2img  extra-single-image  extra-batch-images  interrupt  skip  options ...
GET  /sdapi/v1/progress  sd-models  samplers  schedulers  upscalers  memory  options  cmd-flags  scripts ...
POST /internal/progress       GET /internal/pending-tasks  /internal/ping      not with `webui=False`
GET  /effects?after=N  /knobs       PUT /knobs                                 of the simulator alone
"""

import base64
import binascii
import secrets
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import msgspec
from aiohttp import web

from hostler.testing.sims.a1111_lists import SAMPLERS, SCRIPTS, Discovery, answer, fields_of, nothing, unfit
from hostler.testing.sims.a1111_work import A1111Knobs, A1111Work, ApiError, encoded
from hostler.testing.sims.effects import EffectLog
from hostler.testing.sims.knobs import chance
from hostler.testing.sims.pictures import picture
from hostler.testing.sims.serving import listening

BODY_LIMIT: Final = 67_108_864
DEFAULTS: Final[dict[str, Any]] = {
    "prompt": "",
    "negative_prompt": "",
    "seed": -1,
    "steps": 50,
    "cfg_scale": 7.0,
    "width": 512,
    "height": 512,
    "batch_size": 1,
    "n_iter": 1,
    "sampler_name": None,
    "scheduler": None,
}
_IMAGES: Final = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class A1111Service:
    """One simulated A1111; `async with` starts it, `url` says where it listens (port 0 takes any free one)."""

    def __init__(
        self, knobs: A1111Knobs | None = None, *, host: str = "127.0.0.1", port: int = 0, effects: Path | None = None
    ) -> None:
        self.effects = EffectLog(effects)
        self.work = A1111Work(knobs or A1111Knobs(), self.effects)
        self.url = ""
        self._host, self._port = host, port
        self._runner: web.AppRunner | None = None
        self._discovery = Discovery(self.work)
        self._requests = self._burst = 0

    @property
    def knobs(self) -> A1111Knobs:
        """The knobs as they are now; they may be set at any time."""
        return self.work.knobs

    @knobs.setter
    def knobs(self, knobs: A1111Knobs) -> None:
        self.work.knobs = knobs

    async def __aenter__(self) -> Self:
        await self.effects.__aenter__()
        # A client that goes away cancels nothing: the original's threads do not notice.
        try:
            self._runner, self.url = await listening(self._app(), self._host, self._port, cancels=False, grace=0.1)
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
        app = web.Application(middlewares=[self._errors, self._bursts], client_max_size=BODY_LIMIT)
        knobs, api = self.knobs, "/sdapi/v1"
        app.add_routes(
            [
                web.get("/effects", self._effects),
                web.get("/knobs", self._get_knobs),
                web.put("/knobs", self._put_knobs),
                web.post(f"{api}/txt2img", self._generate),
                web.post(f"{api}/img2img", self._generate),
                web.post(f"{api}/extra-single-image", self._upscale),
                web.post(f"{api}/extra-batch-images", self._upscale_many),
                web.get(f"{api}/progress", self._progress),
                web.post(f"{api}/interrupt", self._interrupt),
                web.post(f"{api}/skip", self._skip),
                *self._discovery.routes(api),
            ]
        )
        if knobs.webui:
            app.add_routes(
                [
                    web.post("/internal/progress", self._task_progress),
                    web.get("/internal/pending-tasks", self._pending),
                    web.get("/internal/ping", nothing),
                ]
            )
        return app

    @web.middleware
    async def _errors(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except ApiError as error:
            return answer(error.body, status=error.status)
        except web.HTTPNotFound:
            return answer({"detail": "Not Found"}, status=404)

    @web.middleware
    async def _bursts(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if not request.path.startswith("/sdapi/"):
            return await handler(request)
        if self.knobs.auth is not None and not _allowed(request, self.knobs.auth):
            body = {"error": "HTTPException", "detail": "Incorrect username or password", "body": "", "errors": ""}
            return answer(body, status=401, headers={"WWW-Authenticate": "Basic"})
        self._requests += 1
        if not self._burst and chance(self.knobs.seed, "burst", self._requests) < self.knobs.burst_rate:
            self._burst = self.knobs.burst_length
        if self._burst:
            self._burst -= 1
            return web.Response(status=(500, 502, 503)[self._burst % 3], text="Internal Server Error")
        return await handler(request)

    async def _effects(self, request: web.Request) -> web.StreamResponse:
        after = int(request.query.get("after", "0"))
        effects = self.effects.after(after)
        return answer({"effects": effects, "next": after + len(effects)})

    async def _get_knobs(self, _request: web.Request) -> web.StreamResponse:
        return answer(self.knobs)

    async def _put_knobs(self, request: web.Request) -> web.StreamResponse:
        """Change the knobs that the body names; the others stay."""
        change = await fields_of(request)
        try:
            self.knobs = msgspec.convert({**msgspec.structs.asdict(self.knobs), **change}, A1111Knobs)
        except msgspec.ValidationError as error:
            raise ApiError(400, "ValueError", errors=str(error)) from None
        return answer(self.knobs)

    async def _generate(self, request: web.Request) -> web.StreamResponse:
        mode = request.path.rpartition("/")[2]
        asked = _judged(await fields_of(request))
        task = str(asked.pop("force_task_id", None) or f"task({mode}-{secrets.token_hex(4)})")
        script = asked.get("script_name")
        if script and str(script).lower() not in SCRIPTS:
            raise ApiError(422, "HTTPException", detail=f"Script '{script}' not found")
        always: dict[str, Any] = asked.get("alwayson_scripts") or {}
        for name in always:
            raise ApiError(422, "HTTPException", detail=f"always on script {name} not found")
        asked["sampler_name"] = asked["sampler_name"] or asked.get("sampler_index") or "Euler"
        if asked["sampler_name"] not in SAMPLERS:
            raise ApiError(404, "HTTPException", detail="Sampler not found")
        if mode == "img2img":
            images = asked.get("init_images")
            if images is None:
                raise ApiError(404, "HTTPException", detail="Init image not found")
            for image in [*images, *filter(None, (asked.get("mask"),))]:
                _decoded(str(image))
        made = await self.work.generate(mode, asked, task, lambda: _cut(request))
        if mode == "img2img" and not asked.get("include_init_images"):
            made["parameters"] = {**asked, "init_images": None, "mask": None}
        return answer(made)

    async def _upscale(self, request: web.Request) -> web.StreamResponse:
        asked = await fields_of(request)
        _decoded(str(asked.get("image", "")))
        await self.work.upscale()
        return answer({"html_info": "<p>Postprocess upscale</p>", "image": _upscaled()})

    async def _upscale_many(self, request: web.Request) -> web.StreamResponse:
        asked = await fields_of(request)
        images: list[dict[str, Any]] = asked.get("imageList", [])
        for image in images:
            _decoded(str(image.get("data", "")))
        await self.work.upscale()
        return answer({"html_info": "", "images": [_upscaled() for _ in images]})

    async def _progress(self, request: web.Request) -> web.StreamResponse:
        state = self.work.state
        view: dict[str, Any] = {"state": state.view(), "current_image": None, "textinfo": None}
        if state.job_count == 0:
            return answer({**view, "progress": 0.0, "eta_relative": 0.0})
        if request.query.get("skip_current_image", "false") != "true" and state.sampling_step:
            view["current_image"] = encoded(picture(state.sampling_step, state.job, width=64, height=64))
        return answer({**view, "progress": min(0.01 + state.fraction, 1.0), "eta_relative": state.eta or 0.0})

    async def _task_progress(self, request: web.Request) -> web.StreamResponse:
        work, asked = self.work, await fields_of(request)
        task = asked.get("id_task")
        active, queued, completed = task == work.current, task in work.pending, task in work.finished
        view: dict[str, Any] = {"active": active, "queued": queued, "completed": completed, "progress": None}
        view |= {"eta": None, "live_preview": None, "id_live_preview": -1, "textinfo": None}
        if not active:
            waiting = sorted(work.pending, key=lambda one: work.pending[one])
            place = waiting.index(str(task)) + 1 if queued else 0
            view["textinfo"] = f"In queue: {place}/{len(waiting)}" if queued else "Waiting..."
            return answer(view)
        view |= {"progress": work.state.fraction, "eta": work.state.eta}
        step = work.state.sampling_step
        if asked.get("live_preview", True) and step and step != asked.get("id_live_preview"):
            image = picture(step, work.state.job, width=64, height=64)
            view |= {"live_preview": f"data:image/png;base64,{encoded(image)}", "id_live_preview": step}
        return answer(view)

    async def _pending(self, _request: web.Request) -> web.StreamResponse:
        return answer({"size": len(self.work.pending), "tasks": list(self.work.pending)})

    async def _interrupt(self, _request: web.Request) -> web.StreamResponse:
        self.work.state.interrupted = True
        self.work.state.wake.set()
        return answer({})

    async def _skip(self, _request: web.Request) -> web.StreamResponse:
        self.work.state.skipped = True
        self.work.state.wake.set()
        return answer(None)


def _allowed(request: web.Request, auth: str) -> bool:
    expected = f"Basic {base64.b64encode(auth.encode()).decode()}"
    return secrets.compare_digest(request.headers.get("Authorization", "").encode(), expected.encode())


def _cut(request: web.Request) -> None:
    """Cut the connection as a dying network does: no goodbye."""
    if request.transport is not None:
        request.transport.abort()


def _judged(fields: dict[str, Any]) -> dict[str, Any]:
    """Judge the fields as the original's schema does, and fill in its defaults."""
    asked = {**DEFAULTS, **{name: value for name, value in fields.items() if value is not None}}
    for name in ("seed", "steps", "width", "height", "batch_size", "n_iter"):
        if not isinstance(asked[name], int):
            raise unfit(name, "value is not a valid integer")
    if not isinstance(asked["prompt"], str):
        raise unfit("prompt", "str type expected")
    return asked


def _decoded(text: str) -> None:
    try:
        data = base64.b64decode(text.rpartition("base64,")[2], validate=True)
    except (binascii.Error, ValueError):
        data = b""
    if not data.startswith(_IMAGES):
        raise ApiError(500, "HTTPException", detail="Invalid encoded image")


def _upscaled() -> str:
    return encoded(picture(0, "upscaled", width=128, height=128))
