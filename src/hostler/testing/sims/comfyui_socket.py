"""The socket of the simulated ComfyUI: who hears what, previews, and cuts."""

import asyncio
import struct
import uuid
from typing import Any, Final

import msgspec
from aiohttp import WSMsgType, web

from hostler.kernel.units import Seconds
from hostler.testing.sims.comfyui_player import PromptRun
from hostler.testing.sims.comfyui_work import ComfyuiWork

PREVIEW: Final = 1
PREVIEW_WITH_METADATA: Final = 4
"""Kinds of binary messages."""
PNG: Final = 2
"""Picture format of a preview without metadata."""
SEND_LIMIT: Final[Seconds] = 2.0
"""A socket that takes nothing for so long is dropped: it must not hold up the queue."""


class ComfyuiSockets:
    """All sockets by client id; a prompt's messages go to the socket of the client that queued it."""

    def __init__(self) -> None:
        self.work: ComfyuiWork | None = None
        self._sockets: dict[str, web.WebSocketResponse] = {}
        self._requests: dict[str, web.Request] = {}
        self._metadata: set[str] = set()
        """Clients that take previews with metadata."""

    @property
    def clients(self) -> tuple[str, ...]:
        """Clients that listen."""
        return tuple(self._sockets)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Serve `/ws`."""
        if not self._carried():
            return web.Response(status=404)
        socket = web.WebSocketResponse(max_msg_size=1_048_576)
        await socket.prepare(request)
        sid = request.query.get("clientId") or uuid.uuid4().hex
        self._sockets[sid], self._requests[sid] = socket, request
        self._metadata.discard(sid)
        try:
            await self._send(sid, "status", {"status": self.queue_info(), "sid": sid})
            run = self.work.running if self.work is not None else None
            if run is not None and run.client == sid and run.node is not None:
                await self._send(sid, "executing", {"node": run.node})
            first = True
            async for message in socket:
                if message.type is WSMsgType.TEXT and first:
                    await self._greeted(sid, message.data)
                first = False
        finally:
            # As ComfyUI does it: the end of an old connection also silences a newer one of the same client.
            self._sockets.pop(sid, None)
            self._requests.pop(sid, None)
        return socket

    def _carried(self) -> bool:
        return self.work is None or self.work.knobs.socket

    async def close(self) -> None:
        """Close every socket."""
        for socket in tuple(self._sockets.values()):
            await socket.close()

    def features(self) -> dict[str, Any]:
        """Return what the server says that it can do."""
        return {"supports_preview_metadata": True, "max_upload_size": 104_857_600}

    def queue_info(self) -> dict[str, Any]:
        """Return how long the queue is."""
        return {"exec_info": {"queue_remaining": self.work.remaining() if self.work is not None else 0}}

    async def queue_changed(self) -> None:
        """Tell everybody how long the queue is."""
        for sid in tuple(self._sockets):
            await self._send(sid, "status", {"status": self.queue_info()})

    async def send(self, run: PromptRun, event: str, data: dict[str, Any], sid: str | None) -> None:
        """Send a message of a run to its client, or to everybody."""
        if await self._cut(run):
            return
        for target in (sid,) if sid is not None else tuple(self._sockets):
            await self._send(target, event, data)

    async def preview(self, run: PromptRun, image: bytes, node_id: str, sid: str | None) -> None:
        """Send a preview, with metadata to whoever asked for it."""
        if await self._cut(run):
            return
        names = ("node_id", "display_node_id", "real_node_id")
        metadata = dict.fromkeys(names, node_id) | {"prompt_id": run.prompt_id, "image_type": "image/png"}
        sealed = msgspec.json.encode({**metadata, "parent_node_id": None})
        rich = struct.pack(">II", PREVIEW_WITH_METADATA, len(sealed)) + sealed + image
        for target in (sid,) if sid is not None else tuple(self._sockets):
            plain = struct.pack(">II", PREVIEW, PNG) + image
            await self._deliver(target, rich if target in self._metadata else plain)

    async def _greeted(self, sid: str, text: str) -> None:
        """Take the client's first message: it may say what it can do; an old server knows no such thing."""
        try:
            message = msgspec.json.decode(text, type=dict[str, Any])
        except (msgspec.MsgspecError, UnicodeError):
            return
        if self.work is None or not self.work.modern or message.get("type") != "feature_flags":
            return
        if message.get("data", {}).get("supports_preview_metadata"):
            self._metadata.add(sid)
        await self._send(sid, "feature_flags", self.features())

    async def _cut(self, run: PromptRun) -> bool:
        """Cut the run's socket in place of this message, as a dying network does, when its fate says so."""
        sent, run.sent = run.sent, run.sent + 1
        request = self._requests.get(run.client or "")
        if run.dropped or run.fate.drop_at is None or sent < run.fate.drop_at or request is None:
            return False
        run.dropped = True
        self._sockets.pop(run.client or "", None)
        if request.transport is not None:
            request.transport.abort()
        return True

    async def _send(self, sid: str, event: str, data: dict[str, Any]) -> None:
        await self._deliver(sid, msgspec.json.encode({"type": event, "data": data}).decode())

    async def _deliver(self, sid: str, message: str | bytes) -> None:
        socket = self._sockets.get(sid)
        if socket is None or socket.closed:
            return
        try:
            async with asyncio.timeout(SEND_LIMIT):
                if isinstance(message, str):
                    await socket.send_str(message)
                else:
                    await socket.send_bytes(message)
        except (ConnectionError, TimeoutError):
            self._sockets.pop(sid, None)
