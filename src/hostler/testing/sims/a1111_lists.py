"""What a simulated A1111 has and says about itself: lists, options, memory."""

from collections.abc import Callable
from typing import Any, Final

import msgspec
from aiohttp import web

from hostler.testing.sims.a1111_work import A1111Work, ApiError, short_hash, title
from hostler.testing.sims.knobs import chance

SAMPLERS: Final = ("DPM++ 2M", "DPM++ SDE", "Euler a", "Euler", "Heun", "DDIM", "UniPC")
SCHEDULERS: Final = ("automatic", "uniform", "karras", "exponential")
UPSCALERS: Final = ("None", "Lanczos", "Nearest", "R-ESRGAN 4x+")
SCRIPTS: Final = ("prompt matrix", "x/y/z plot")
GIBIBYTE: Final = 2**30


class Discovery:
    """The routes by which a client learns what there is, and changes the checkpoint."""

    def __init__(self, work: A1111Work) -> None:
        self.work = work
        self._looks = 0

    def routes(self, api: str) -> list[web.RouteDef]:
        """Return the routes under the path of the API; the last of them takes any name."""
        return [
            web.get(f"{api}/options", self._get_options),
            web.post(f"{api}/options", self._set_options),
            web.get(f"{api}/memory", self._memory),
            web.get(f"{api}/{{list}}", self._list),
            web.post(f"{api}/{{order:refresh-checkpoints|unload-checkpoint|reload-checkpoint}}", nothing),
        ]

    async def _get_options(self, _request: web.Request) -> web.StreamResponse:
        return answer({"sd_model_checkpoint": title(self.work.loaded), "samples_format": "png"})

    async def _set_options(self, request: web.Request) -> web.StreamResponse:
        wanted = (await fields_of(request)).get("sd_model_checkpoint")
        if wanted is not None:
            model = self.work.model(str(wanted))
            if model is None:
                raise ApiError(500, "RuntimeError", errors=f"model {wanted!r} not found")
            await self.work.load(model)
        return answer(None)

    async def _memory(self, _request: web.Request) -> web.StreamResponse:
        self._looks += 1
        ram = {"free": 24.0 * GIBIBYTE, "used": 8.0 * GIBIBYTE, "total": 32.0 * GIBIBYTE}
        if chance(self.work.knobs.seed, "memory", self._looks) < self.work.knobs.gpu_lost_rate:
            return answer({"ram": ram, "cuda": {"error": "CUDA error: unspecified launch failure"}})
        system = {"free": 20.0 * GIBIBYTE, "used": 4.0 * GIBIBYTE, "total": 24.0 * GIBIBYTE}
        parts = {name: {"current": 4.0 * GIBIBYTE, "peak": 5.0 * GIBIBYTE} for name in ("active", "allocated")}
        return answer({"ram": ram, "cuda": {"system": system, **parts, "events": {"retries": 0, "oom": 0}}})

    async def _list(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["list"]
        if name not in _LISTS:
            raise web.HTTPNotFound
        return answer(_LISTS[name](self.work))


_LISTS: Final[dict[str, Callable[[A1111Work], Any]]] = {
    "sd-models": lambda work: [
        {
            "title": title(model),
            "model_name": model,
            "hash": short_hash(model),
            "sha256": None,
            "filename": f"/models/Stable-diffusion/{model}.safetensors",
            "config": None,
        }
        for model in work.knobs.models
    ],
    "samplers": lambda _: [{"name": name, "aliases": [name.lower()], "options": {}} for name in SAMPLERS],
    "schedulers": lambda _: [{"name": name, "label": name.title(), "aliases": None} for name in SCHEDULERS],
    "upscalers": lambda _: [{"name": name, "model_name": None, "model_path": None, "scale": 4} for name in UPSCALERS],
    "latent-upscale-modes": lambda _: [{"name": "Latent"}, {"name": "Latent (bicubic)"}],
    "sd-vae": lambda _: [],
    "loras": lambda _: [],
    "prompt-styles": lambda _: [],
    "face-restorers": lambda _: [],
    "embeddings": lambda _: {"loaded": {}, "skipped": {}},
    "scripts": lambda _: {"txt2img": list(SCRIPTS), "img2img": list(SCRIPTS)},
    "script-info": lambda _: [],
    "cmd-flags": lambda work: {"api": True, "nowebui": not work.knobs.webui},
}


async def nothing(_request: web.Request) -> web.StreamResponse:
    """Do nothing, well."""
    return answer({})


async def fields_of(request: web.Request) -> dict[str, Any]:
    """Return the fields of a body."""
    try:
        return msgspec.json.decode(await request.read() or b"{}", type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise unfit("json", str(error)) from None


def unfit(name: str, words: str) -> ApiError:
    """Return the refusal of a field, as the original's schema writes it."""
    error = ApiError(422, "RequestValidationError")
    error.body = {"detail": [{"loc": ["body", name], "msg": words, "type": "type_error"}]}
    return error


def answer(value: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """Answer in JSON."""
    return web.Response(
        body=msgspec.json.encode(value), status=status, headers=headers, content_type="application/json"
    )
