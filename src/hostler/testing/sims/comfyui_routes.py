"""Queue, history, files and node classes of the simulated ComfyUI, as HTTP shows them."""

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from aiohttp import web

from hostler.testing.sims.comfyui_player import File
from hostler.testing.sims.comfyui_socket import ComfyuiSockets
from hostler.testing.sims.comfyui_work import ComfyuiWork
from hostler.testing.sims.work import RequestRefusedError

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Rows = list[tuple[str, str, Handler]]


async def json_body(request: web.Request) -> dict[str, Any]:
    """Return a body that is a JSON object."""
    try:
        return msgspec.json.decode(await request.read(), type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise RequestRefusedError(400, "invalid_json", str(error)) from None


class ComfyuiQueue:
    """`/queue`, `/history`, `/interrupt`, `/free`."""

    def __init__(self, work: ComfyuiWork, sockets: ComfyuiSockets) -> None:
        self.work = work
        self.sockets = sockets

    def rows(self) -> Rows:
        """Return its routes."""
        return [
            ("GET", "/queue", self._get_queue),
            ("POST", "/queue", self._post_queue),
            ("GET", "/history", self._get_history),
            ("GET", "/history/{id}", self._get_history),
            ("POST", "/history", self._post_history),
            ("POST", "/interrupt", self._interrupt),
            ("POST", "/free", self._free),
        ]

    async def _get_queue(self, _request: web.Request) -> web.StreamResponse:
        run = self.work.running
        running = [] if run is None else [[run.number, run.prompt_id, run.prompt, run.extra, run.outputs]]
        return web.json_response({"queue_running": running, "queue_pending": self.work.waiting()})

    async def _post_queue(self, request: web.Request) -> web.StreamResponse:
        body = await json_body(request)
        if body.get("clear"):
            self.work.clear()
        for prompt_id in body.get("delete") or ():
            self.work.delete(prompt_id)
        await self.sockets.queue_changed()
        return web.Response(status=200)

    async def _get_history(self, request: web.Request) -> web.StreamResponse:
        history = self.work.history
        prompt_id = request.match_info.get("id")
        if prompt_id is not None:
            return web.json_response({prompt_id: history[prompt_id]} if prompt_id in history else {})
        entries = list(history.items())
        if "max_items" in request.query:
            most = int(request.query["max_items"])
            offset = int(request.query.get("offset", -1))
            first = max(0, len(entries) - most) if offset < 0 else offset
            entries = entries[first : first + most]
        return web.json_response(dict(entries))

    async def _post_history(self, request: web.Request) -> web.StreamResponse:
        body = await json_body(request)
        if body.get("clear"):
            self.work.history.clear()
        for prompt_id in body.get("delete") or ():
            self.work.history.pop(prompt_id, None)
        return web.Response(status=200)

    async def _interrupt(self, request: web.Request) -> web.StreamResponse:
        body = await json_body(request) if request.can_read_body and self.work.modern else {}
        self.work.interrupt(body.get("prompt_id"))
        return web.Response(status=200)

    async def _free(self, request: web.Request) -> web.StreamResponse:
        await json_body(request)
        return web.Response(status=200)


class ComfyuiFolders:
    """`/view`, `/upload`, `/object_info`, `/models` and other lists."""

    def __init__(self, work: ComfyuiWork) -> None:
        self.work = work

    def rows(self) -> Rows:
        """Return its routes."""
        return [
            ("GET", "/view", self._view),
            ("POST", "/upload/image", self._upload),
            ("POST", "/upload/mask", self._upload),
            ("GET", "/object_info", self._object_info),
            ("GET", "/object_info/{class}", self._object_info),
            ("GET", "/models", self._models),
            ("GET", "/models/{folder}", self._models),
            ("GET", "/embeddings", self._nothing),
            ("GET", "/extensions", self._nothing),
        ]

    async def _view(self, request: web.Request) -> web.StreamResponse:
        name = request.query.get("filename", "")
        subfolder = request.query.get("subfolder", "")
        folder = request.query.get("type", "output")
        if not name:
            return web.Response(status=404)
        if name.startswith("/") or ".." in name or folder not in {"input", "output", "temp"}:
            return web.Response(status=400)
        if ".." in subfolder or subfolder.startswith("/"):
            return web.Response(status=403)
        body = self.work.files.get((folder, subfolder, name))
        if body is None:
            return web.Response(status=404)
        kind = "image/png" if name.endswith(".png") else "application/octet-stream"
        return web.Response(body=body, content_type=kind, headers={"Content-Disposition": f'filename="{name}"'})

    async def _upload(self, request: web.Request) -> web.StreamResponse:
        form = await request.post()
        image = form.get("image")
        if not isinstance(image, web.FileField) or not image.filename:
            return web.Response(status=400)
        folder, subfolder = str(form.get("type", "input")), str(form.get("subfolder", ""))
        if folder not in {"input", "output", "temp"} or ".." in subfolder or "/" in image.filename:
            return web.Response(status=400)
        body = image.file.read()
        file: File = (folder, subfolder, image.filename)
        if str(form.get("overwrite")) not in {"true", "1"}:
            stem, dot, ending = image.filename.rpartition(".")
            count = 0
            while self.work.files.get(file, body) != body:
                count += 1
                file = (folder, subfolder, f"{stem} ({count}){dot}{ending}")
        self.work.store(file, body)
        return web.json_response({"name": file[2], "subfolder": subfolder, "type": folder})

    async def _object_info(self, request: web.Request) -> web.StreamResponse:
        wanted = request.match_info.get("class")
        classes = self.work.classes()
        return web.json_response(
            {name: known.info(name) for name, known in classes.items() if wanted is None or name == wanted}
        )

    async def _models(self, request: web.Request) -> web.StreamResponse:
        folder = request.match_info.get("folder")
        if folder is None:
            return web.json_response(["checkpoints", "loras", "vae"])
        if folder not in {"checkpoints", "loras", "vae"}:
            return web.Response(status=404)
        return web.json_response(list(self.work.knobs.models) if folder == "checkpoints" else [])

    async def _nothing(self, _request: web.Request) -> web.StreamResponse:
        return web.json_response([])
