"""The simulated service over HTTP: submit, poll or follow by server-sent events, cancel, release.

    GET    /health  /capabilities  /effects?after=N  /knobs      PUT /knobs
    POST   /jobs {id, fence, kind, input}        201 new · 200 known · 409 stale fence · 429 no slot
    GET    /jobs/{id}  /jobs/{id}/result         how it is · how it ended (409 before)
    GET    /jobs/{id}/events                     SSE `progress` and `done`; resumes after Last-Event-ID
    POST   /jobs/{id}/takeover  /jobs/{id}/cancel {fence}
    DELETE /jobs/{id}?fence=N

Errors are `{"error": {"code", "message"}}`.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, Final, Self

import msgspec
from aiohttp import web
from msgspec import Meta, Struct

from hostler.kernel.units import Seconds
from hostler.testing.sims.effects import EffectLog
from hostler.testing.sims.knobs import SimKnobs, chance
from hostler.testing.sims.work import ENDED, INPUTS, RequestRefusedError, Run, SimulatedWork, Submission

VERSION: Final = "1.0"
KEEPALIVE: Final[Seconds] = 5.0
"""How often a silent stream sends a comment."""
BODY_LIMIT: Final = 1_048_576

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class FenceBody(Struct, frozen=True, kw_only=True):
    """Body of takeover and cancel."""

    fence: Annotated[int, Meta(ge=1)]


class SimulationHTTPService:
    """One simulated service; `async with` starts it, `url` says where it listens (port 0 takes any free one)."""

    def __init__(
        self, knobs: SimKnobs | None = None, *, host: str = "127.0.0.1", port: int = 0, effects: Path | None = None
    ) -> None:
        self.effects = EffectLog(effects)
        self.work = SimulatedWork(knobs or SimKnobs(), self.effects)
        self.url = ""
        self._host, self._port = host, port
        self._runner: web.AppRunner | None = None
        self._started = time.monotonic()
        self._requests = self._checks = self._burst = 0
        self._closing = False

    @property
    def knobs(self) -> SimKnobs:
        """The knobs as they are now; they may be set at any time and hold for runs that begin after."""
        return self.work.knobs

    @knobs.setter
    def knobs(self, knobs: SimKnobs) -> None:
        self.work.knobs = knobs
        self.work.dispatch()

    async def __aenter__(self) -> Self:
        await self.effects.__aenter__()
        runner = web.AppRunner(self._app(), access_log=None, handler_cancellation=True, shutdown_timeout=0.5)
        try:
            await runner.setup()
            await web.TCPSite(runner, self._host, self._port).start()
        except BaseException:  # also when cancelled: nothing may stay open behind a start that failed
            await runner.cleanup()
            await self.effects.__aexit__(None, None, None)
            raise
        host, port = runner.addresses[0][:2]
        self.url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        self._runner = runner
        self._started = time.monotonic()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing = True
        await self.work.close()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
        await self.effects.__aexit__(kind, value, trace)

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
            self._requests += 1
            if not self._burst and chance(self.knobs.seed, "burst", self._requests) < self.knobs.burst_rate:
                self._burst = self.knobs.burst_length
            if self._burst:
                self._burst -= 1
                status = (500, 502, 503)[self._burst % 3]
                raise RequestRefusedError(status, "burst", "simulated server error")
        return await handler(request)

    async def _health(self, _request: web.Request) -> web.StreamResponse:
        self._checks += 1
        state = "loading" if _loads(self.knobs, since=self._started) else "ready"
        if chance(self.knobs.seed, "health", self._checks) < self.knobs.health_failure_rate:
            state = "unhealthy"
        view = {"state": state, "version": VERSION, "slots": self.knobs.slots, "busy": self.work.busy}
        return _json(view, status=200 if state == "ready" else 503)

    async def _capabilities(self, _request: web.Request) -> web.StreamResponse:
        knobs = self.knobs
        view = {
            "version": VERSION,
            "kinds": sorted(INPUTS),
            "models": knobs.models,
            "slots": knobs.slots,
            "labels": knobs.labels,
        }
        return _json(view)

    async def _effects(self, request: web.Request) -> web.StreamResponse:
        after = _number(request.query.get("after", "0"), "after")
        effects = self.effects.after(after)
        return _json({"effects": effects, "next": after + len(effects)})

    async def _get_knobs(self, _request: web.Request) -> web.StreamResponse:
        return _json(self.knobs)

    async def _put_knobs(self, request: web.Request) -> web.StreamResponse:
        """Change the knobs that the body names; the others stay."""
        change = _decode(await request.read(), dict[str, Any])
        try:
            self.knobs = msgspec.convert({**msgspec.structs.asdict(self.knobs), **change}, SimKnobs)
        except msgspec.ValidationError as error:
            raise RequestRefusedError(400, "invalid_input", str(error)) from None
        return _json(self.knobs)

    async def _submit(self, request: web.Request) -> web.StreamResponse:
        if _loads(self.knobs, since=self._started):
            raise RequestRefusedError(503, "loading", "not ready yet", retry_after=self.knobs.retry_after)
        run, new = await self.work.submit(_decode(await request.read(), Submission))
        return _json(run.view(), status=201 if new else 200)

    async def _status(self, request: web.Request) -> web.StreamResponse:
        return _json(self.work.find(request.match_info["id"]).view())

    async def _result(self, request: web.Request) -> web.StreamResponse:
        run = self.work.find(request.match_info["id"])
        if run.state not in ENDED:
            raise RequestRefusedError(409, "not_ended", f"the job is {run.state}")
        return _json({**run.view(), "result": run.result, "error": run.error})

    async def _take_over(self, request: web.Request) -> web.StreamResponse:
        body = _decode(await request.read(), FenceBody)
        return _json((await self.work.take_over(request.match_info["id"], body.fence)).view())

    async def _cancel(self, request: web.Request) -> web.StreamResponse:
        body = _decode(await request.read(), FenceBody)
        return _json((await self.work.cancel(request.match_info["id"], body.fence)).view())

    async def _release(self, request: web.Request) -> web.StreamResponse:
        await self.work.release(request.match_info["id"], _number(request.query.get("fence", ""), "fence"))
        return web.Response(status=204)

    async def _events(self, request: web.Request) -> web.StreamResponse:
        run = self.work.find(request.match_info["id"])
        sent = _resume(run, request.headers.get("Last-Event-ID", ""))
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
        await response.prepare(request)
        while not self._closing:
            changed = run.changed
            while sent < len(run.events):
                event, view = run.events[sent]
                if run.fate.drop_at is not None and not run.dropped and sent >= run.fate.drop_at:
                    run.dropped = True
                    _cut(request)
                    return response
                sent += 1
                data = msgspec.json.encode(view).decode()
                await response.write(f"id: {run.number}-{sent}\nevent: {event}\ndata: {data}\n\n".encode())
                if event == "done":
                    return response
            try:
                await asyncio.wait_for(changed.wait(), KEEPALIVE)
            except TimeoutError:
                await response.write(b": still here\n\n")
        return response


def _loads(knobs: SimKnobs, *, since: float) -> bool:
    return time.monotonic() - since < knobs.loading


def _resume(run: Run, last: str) -> int:
    number, _, sent = last.partition("-")
    if number != str(run.number) or not sent.isdecimal():
        return 0
    return min(int(sent), len(run.events))


def _cut(request: web.Request) -> None:
    """Cut the connection as a dying network does: no goodbye."""
    if request.transport is not None:
        request.transport.abort()


def _decode(body: bytes, shape: Any) -> Any:
    try:
        return msgspec.json.decode(body, type=shape)
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise RequestRefusedError(400, "invalid_input", str(error)) from None


def _number(text: str, name: str) -> int:
    if not text.isdecimal():
        raise RequestRefusedError(400, "invalid_input", f"{name} is a whole number, not {text!r}")
    return int(text)


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
