"""The simulated service over HTTP: submit, poll or follow by server-sent events, cancel, release.

    GET    /health  /capabilities  /effects?after=N  /knobs      PUT /knobs
    POST   /jobs {id, fence, kind, input}        201 new · 200 known · 409 stale fence · 429 no slot; a run ends by
                                                 itself when the time of X-Request-Timeout-Ms is over
    GET    /jobs/{id}  /jobs/{id}/result         how it is · how it ended (409 before)
    GET    /jobs/{id}/events                     SSE `progress` and `done`; resumes after Last-Event-ID
    POST   /jobs/{id}/takeover  /jobs/{id}/cancel {fence}
    DELETE /jobs/{id}?fence=N

Errors are `{"error": {"code", "message"}}`.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import msgspec
from aiohttp import web

from hostler.policy.deadline import HEADER, told_by
from hostler.testing.sims.desk import SimulatedDesk, StreamCutError, number
from hostler.testing.sims.knobs import SimKnobs
from hostler.testing.sims.serving import listening
from hostler.testing.sims.work import RequestRefusedError

BODY_LIMIT: Final = 1_048_576

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class SimulationHTTPService:
    """One simulated service; `async with` starts it, `url` says where it listens (port 0 takes any free one)."""

    def __init__(
        self, knobs: SimKnobs | None = None, *, host: str = "127.0.0.1", port: int = 0, effects: Path | None = None
    ) -> None:
        self.desk = SimulatedDesk(knobs, effects=effects)
        self.effects, self.work = self.desk.effects, self.desk.work
        self.url = ""
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
        try:
            self._runner, self.url = await listening(self._app(), self._host, self._port)
        except BaseException:  # also when cancelled: nothing may stay open behind a start that failed
            await self.desk.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.desk.stop()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
        await self.desk.__aexit__(kind, value, trace)

    def _app(self) -> web.Application:
        app = web.Application(middlewares=[self._errors, self._bursts], client_max_size=BODY_LIMIT)
        app.add_routes(
            [
                web.get("/health", self._health),
                web.get("/capabilities", self._capabilities),
                web.get("/effects", self._effects),
                web.get("/knobs", self._get_knobs),
                web.put("/knobs", self._put_knobs),
                web.post("/jobs", self._submit),
                web.get("/jobs/{id}", self._status),
                web.get("/jobs/{id}/result", self._result),
                web.get("/jobs/{id}/events", self._events),
                web.post("/jobs/{id}/takeover", self._take_over),
                web.post("/jobs/{id}/cancel", self._cancel),
                web.delete("/jobs/{id}", self._release),
            ]
        )
        return app

    @web.middleware
    async def _errors(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except RequestRefusedError as error:
            headers = {} if error.retry_after is None else {"Retry-After": f"{error.retry_after:g}"}
            return _json(
                {"error": {"code": error.code, "message": error.message}}, status=error.status, headers=headers
            )

    @web.middleware
    async def _bursts(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path.startswith("/jobs"):
            self.desk.burst()
        return await handler(request)

    async def _health(self, _request: web.Request) -> web.StreamResponse:
        view = self.desk.health()
        return _json(view, status=200 if view["state"] == "ready" else 503)

    async def _capabilities(self, _request: web.Request) -> web.StreamResponse:
        return _json(self.desk.capabilities())

    async def _effects(self, request: web.Request) -> web.StreamResponse:
        return _json(self.desk.page(number(request.query.get("after", "0"), "after")))

    async def _get_knobs(self, _request: web.Request) -> web.StreamResponse:
        return _json(self.knobs)

    async def _put_knobs(self, request: web.Request) -> web.StreamResponse:
        return _json(self.desk.change(await request.read()))

    async def _submit(self, request: web.Request) -> web.StreamResponse:
        left = told_by(request.headers.get(HEADER))
        view, new = await self.desk.submit(await request.read(), seconds_left=left)
        return _json(view, status=201 if new else 200)

    async def _status(self, request: web.Request) -> web.StreamResponse:
        return _json(self.desk.status(request.match_info["id"]))

    async def _result(self, request: web.Request) -> web.StreamResponse:
        return _json(self.desk.result(request.match_info["id"]))

    async def _take_over(self, request: web.Request) -> web.StreamResponse:
        return _json(await self.desk.take_over(request.match_info["id"], await request.read()))

    async def _cancel(self, request: web.Request) -> web.StreamResponse:
        return _json(await self.desk.cancel(request.match_info["id"], await request.read()))

    async def _release(self, request: web.Request) -> web.StreamResponse:
        await self.work.release(request.match_info["id"], number(request.query.get("fence", ""), "fence"))
        return web.Response(status=204)

    async def _events(self, request: web.Request) -> web.StreamResponse:
        self.work.find(request.match_info["id"])
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
        await response.prepare(request)
        try:
            async with aclosing(
                self.desk.follow(request.match_info["id"], request.headers.get("Last-Event-ID", ""))
            ) as events:
                async for found in events:
                    if found is None:
                        await response.write(b": still here\n\n")
                        continue
                    event, cursor, view = found
                    data = msgspec.json.encode(view).decode()
                    await response.write(f"id: {cursor}\nevent: {event}\ndata: {data}\n\n".encode())
        except StreamCutError:
            cut(request)
        return response


def cut(request: web.Request) -> None:
    """Cut the connection as a dying network does: no goodbye."""
    if request.transport is not None:
        request.transport.abort()


def _json(value: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(
        body=msgspec.json.encode(value), status=status, headers=headers, content_type="application/json"
    )


async def serve_sim_http(
    knobs: SimKnobs | None = None,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    effects: Path | None = None,
    ready: Callable[[str], None] | None = None,
    stop: asyncio.Event | None = None,
) -> None:
    """Run the simulated service until `stop` is set (for ever without it); `ready` is told its URL."""
    async with SimulationHTTPService(knobs, host=host, port=port, effects=effects) as service:
        if ready is not None:
            ready(service.url)
        await (stop or asyncio.Event()).wait()
