"""The simulated service over WebSockets at `/socket`: any number of requests at the same time on one socket.

    {"id": 7, "verb": V, ...}      ->  {"id": 7, "answer": ...}  or  {"id": 7, "error": {"code", "message"}}

    health  capabilities  effects {after}  knobs  set_knobs {body}
    submit {body: {id, fence, kind, input}, seconds_left?}      how it is; known by job and fence; ends by itself then
    status {job}  result {job}                   how it is · how it ended
    follow {job, cursor}                         {"id", "event", "cursor", "run"} until `done`; `here` while silent
    leave                                        ends the `follow` that bears the same id; has no answer
    take_over  cancel  release {job, body: {fence}}

A message that is no request closes the socket with 1007.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing, suppress
from inspect import isawaitable
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import msgspec
from aiohttp import WSCloseCode, WSMsgType, web
from msgspec import Raw, Struct

from hostler.kernel.units import Seconds
from hostler.testing.sims.desk import SimulatedDesk, StreamCutError
from hostler.testing.sims.http import BODY_LIMIT, cut
from hostler.testing.sims.knobs import SimKnobs
from hostler.testing.sims.serving import listening
from hostler.testing.sims.work import RequestRefusedError

AT_ONCE: Final = 1_000
"""Requests that one socket may have open."""
PING: Final = 20.0
"""How often a silent socket is pinged, in seconds."""


class Request(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a caller asks for."""

    id: int
    verb: str
    job: str = ""
    cursor: str = ""
    after: int = 0
    body: Raw = Raw(b"{}")
    seconds_left: Seconds | None = None
    """Of a submit: the run ends by itself then."""


async def _submitted(desk: SimulatedDesk, asked: Request) -> Any:
    view, _ = await desk.submit(bytes(asked.body), seconds_left=asked.seconds_left)
    return view


VERBS: Final[dict[str, Callable[[SimulatedDesk, Request], Any]]] = {
    "health": lambda desk, _: desk.health(),
    "capabilities": lambda desk, _: desk.capabilities(),
    "effects": lambda desk, asked: desk.page(asked.after),
    "knobs": lambda desk, _: desk.knobs,
    "set_knobs": lambda desk, asked: desk.change(bytes(asked.body)),
    "submit": _submitted,
    "status": lambda desk, asked: desk.status(asked.job),
    "result": lambda desk, asked: desk.result(asked.job),
    "take_over": lambda desk, asked: desk.take_over(asked.job, bytes(asked.body)),
    "cancel": lambda desk, asked: desk.cancel(asked.job, bytes(asked.body)),
    "release": lambda desk, asked: desk.release(asked.job, bytes(asked.body)),
}
OF_JOBS: Final = frozenset({"submit", "status", "result", "take_over", "cancel", "release"})
"""Verbs that a burst of server errors strikes; so it does `follow`."""


class SimulationWebsocketService:
    """One simulated service; `async with` starts it, `url` says where it listens (port 0 takes any free one)."""

    def __init__(
        self, knobs: SimKnobs | None = None, *, host: str = "127.0.0.1", port: int = 0, effects: Path | None = None
    ) -> None:
        self.desk = SimulatedDesk(knobs, effects=effects)
        self.effects, self.work = self.desk.effects, self.desk.work
        self.url = ""
        self.sockets = 0
        """Sockets that were opened, ever."""
        self._host, self._port = host, port
        self._runner: web.AppRunner | None = None

    @property
    def knobs(self) -> SimKnobs:
        """The knobs as they are now; they may be set at any time and hold for runs that begin after."""
        return self.desk.knobs

    @knobs.setter
    def knobs(self, knobs: SimKnobs) -> None:
        self.desk.knobs = knobs

    async def __aenter__(self) -> Self:
        await self.desk.__aenter__()
        app = web.Application()
        app.add_routes([web.get("/socket", self._socket)])
        try:
            self._runner, url = await listening(app, self._host, self._port)
        except BaseException:  # also when cancelled: nothing may stay open behind a start that failed
            await self.desk.__aexit__(None, None, None)
            raise
        self.url = url.replace("http", "ws", 1)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.desk.stop()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
        await self.desk.__aexit__(kind, value, trace)

    async def _socket(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(heartbeat=PING, max_msg_size=BODY_LIMIT)
        await socket.prepare(request)
        self.sockets += 1
        caller = Caller(self.desk, request, lambda message: self.say(request, socket, message))
        try:
            async for message in socket:
                try:
                    if message.type not in {WSMsgType.TEXT, WSMsgType.BINARY}:
                        break
                    caller.take(msgspec.json.decode(message.data, type=Request))
                except (msgspec.MsgspecError, UnicodeError) as error:
                    await socket.close(code=WSCloseCode.INVALID_TEXT, message=str(error).encode()[:100])
        finally:
            await caller.gone()
        return socket

    async def say(self, request: web.Request, socket: web.WebSocketResponse, message: bytes) -> None:  # noqa: ARG002 - a test may cut here
        """Send one message."""
        await socket.send_str(message.decode())


class Caller:
    """The requests of one socket, each in a task of its own."""

    def __init__(self, desk: SimulatedDesk, request: web.Request, say: Callable[[bytes], Awaitable[None]]) -> None:
        self._desk = desk
        self._request = request
        self._say = say
        self._tasks: dict[int, asyncio.Task[None]] = {}

    def take(self, asked: Request) -> None:
        """Begin a request, or end one that follows."""
        if asked.verb == "leave":
            task = self._tasks.get(asked.id)
            if task is not None:
                task.cancel()
            return
        if len(self._tasks) >= AT_ONCE or asked.id in self._tasks:
            cut(self._request)
            return
        task = self._tasks[asked.id] = asyncio.create_task(self._answer(asked), name=f"{asked.verb} {asked.job}")
        task.add_done_callback(lambda _: self._tasks.pop(asked.id, None))

    async def gone(self) -> None:
        """End all that its socket asked for; work goes on."""
        tasks = tuple(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _answer(self, asked: Request) -> None:
        with suppress(ConnectionError):  # the caller is gone
            try:
                if asked.verb == "follow":
                    await self._follow(asked)
                else:
                    await self._send(asked, answer=await self._do(asked))
            except RequestRefusedError as error:
                view = {"code": error.code, "message": error.message, "retry_after": error.retry_after}
                await self._send(asked, error=view)
            except StreamCutError:
                cut(self._request)

    async def _do(self, asked: Request) -> Any:
        verb = VERBS.get(asked.verb)
        if verb is None:
            raise RequestRefusedError(404, "unknown_verb", f"no such verb: {asked.verb}")
        if asked.verb in OF_JOBS:
            self._desk.burst()
        found = verb(self._desk, asked)
        return await found if isawaitable(found) else found

    async def _follow(self, asked: Request) -> None:
        self._desk.burst()
        self._desk.status(asked.job)
        await self._send(asked, event="here")  # a run that waits for a slot has nothing to tell yet
        async with aclosing(self._desk.follow(asked.job, asked.cursor)) as events:
            async for found in events:
                if found is None:
                    await self._send(asked, event="here")
                else:
                    event, cursor, view = found
                    await self._send(asked, event=event, cursor=cursor, run=view)

    async def _send(self, asked: Request, **fields: Any) -> None:
        await self._say(msgspec.json.encode({"id": asked.id, **fields}))


async def serve_sim_websocket(
    knobs: SimKnobs | None = None,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    effects: Path | None = None,
    ready: Callable[[str], None] | None = None,
    stop: asyncio.Event | None = None,
) -> None:
    """Run the simulated service until `stop` is set (for ever without it); `ready` is told its URL."""
    async with SimulationWebsocketService(knobs, host=host, port=port, effects=effects) as service:
        if ready is not None:
            ready(service.url)
        await (stop or asyncio.Event()).wait()
