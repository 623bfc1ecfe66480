"""Providers over HTTP: lazy, bounded, each with a readiness of its own.

    POST   /providers/{provider}/expand · analyze · similarity · compare      `Prefer: wait=N` waits for a load
    GET    /providers                    how each one is
    GET    /providers/{provider}/health  503 while it takes no questions      POST too
    GET    /health  /readyz  /metrics    the service; readyz is 503 when no provider takes questions

A verb answers `messages.Envelope`, also when it fails: then with a status that is not 2xx, with `error.code`, and
with `Retry-After` where coming back helps. Text is UTF-8 and comes back as it came in.
"""

import asyncio
import hmac
import os
import re
import resource
import secrets
import sys
import time
import traceback
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, Final, Self

import msgspec
import structlog
from aiohttp import web
from msgspec import Meta, Struct

from hostler.kernel.names import listed, nearest
from hostler.kernel.units import Bytes, Seconds
from hostler.kernel.version import __version__
from hostler.providers.lazy import LazyProvider, ProviderState, ProviderView
from hostler.providers.messages import ASKS, Ask, Envelope, Trouble, Verb
from hostler.providers.provider import HaltedError, Provider, RefusedError
from hostler.telemetry.metrics import CONTENT_TYPE, Metrics

_LOG = structlog.stdlib.get_logger("hostler.providers")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,128}\Z")
_WAIT: Final = re.compile(r"(?:^|[,;\s])wait=(\d{1,6}(?:\.\d{1,3})?)(?:$|[,;\s])")
_STATEMENT: Final = Path("/proc/self/statm")


class ServiceSettings(Struct, frozen=True, kw_only=True):
    """Limits of one service."""

    host: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535)] = 0
    """0 takes any free one."""
    key: str | None = None
    """What callers send as `Authorization: Bearer ...`; health needs none. None lets everybody in."""
    wait: Seconds = 10.0
    """How long a question waits for a load unless it says `Prefer: wait=N`."""
    wait_most: Seconds = 600.0
    within: Seconds = 60.0
    """Longest answer."""
    backlog: int = 64
    """Questions that may wait for one provider."""
    body_limit: Bytes = 4_194_304
    grace: Seconds = 10.0
    """How long questions under way may go on when the service ends."""

    def __repr__(self) -> str:
        return f"ServiceSettings(host={self.host!r}, port={self.port})"


class ProviderService:
    """One service of any providers; `async with` starts and drains it, `url` says where it listens."""

    def __init__(self, providers: Iterable[Provider], settings: ServiceSettings) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.providers = {provider.name: LazyProvider(provider, backlog=settings.backlog) for provider in providers}
        self.url = ""
        self._draining = False
        self._started = time.monotonic()
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        settings = self.settings
        runner = web.AppRunner(self._app(), access_log=None, handler_cancellation=True, shutdown_timeout=1.0)
        try:
            await runner.setup()
            await web.TCPSite(runner, settings.host, settings.port).start()
        except BaseException:  # also when cancelled: nothing may stay open behind a start that failed
            await runner.cleanup()
            raise
        host, port = runner.addresses[0][:2]
        self.url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        self._runner = runner
        self._started = time.monotonic()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        runner, self._runner = self._runner, None
        if runner is None:
            return
        self._draining = True
        await asyncio.gather(*(lazy.close(grace=self.settings.grace) for lazy in self.providers.values()))
        await runner.cleanup()

    async def preload(self, names: Iterable[str]) -> None:
        """Load these now, side by side; a failure shows in their state."""
        await asyncio.gather(
            *(self._find(name).ready(wait=self.settings.wait_most) for name in names), return_exceptions=True
        )

    def _app(self) -> web.Application:
        app = web.Application(middlewares=[self._around, self._doorman], client_max_size=self.settings.body_limit)
        app.add_routes(
            [
                web.get("/health", self._health),
                web.get("/readyz", self._readyz),
                web.get("/metrics", self._metrics),
                web.get("/providers", self._list),
                web.get("/providers/{provider}/health", self._provider_health),
                web.post("/providers/{provider}/health", self._provider_health),
                web.post("/providers/{provider}/{verb}", self._answer),
            ]
        )
        return app

    @web.middleware
    async def _around(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Give every request an id, and every failure the one shape."""
        given = request.headers.get("X-Request-ID", "")
        request_id = given if _REQUEST_ID.match(given) else secrets.token_hex(8)
        structlog.contextvars.bind_contextvars(request_id=request_id)
        try:
            response = await handler(request)
        except RefusedError as error:
            response = _refusal(request, error, request_id)
        except web.HTTPException as error:
            code = "too_large" if isinstance(error, web.HTTPRequestEntityTooLarge) else "no_such_path"
            response = _refusal(request, RefusedError(error.status, code, error.reason), request_id)
        except HaltedError:
            response = _refusal(request, RefusedError(503, "draining", "the service is closing"), request_id)
        except Exception as error:  # noqa: BLE001 - a defect of one provider is an answer, with its id in the log
            words = f"{type(error).__name__}: {error}"
            trace = await asyncio.to_thread(traceback.format_exception, error)  # reads sources
            _LOG.error("provider.defect", path=request.path, error=words, trace="".join(trace))
            response = _refusal(request, RefusedError(500, "internal_error", words[:2000]), request_id)
        finally:
            structlog.contextvars.unbind_contextvars("request_id")
        response.headers["X-Request-ID"] = request_id
        return response

    @web.middleware
    async def _doorman(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        key = self.settings.key
        if key is not None and request.path not in _OPEN:
            given = request.headers.get("Authorization", "")
            if not hmac.compare_digest(given.encode(), f"Bearer {key}".encode()):
                raise RefusedError(401, "unauthorized", "send the service's key as Authorization: Bearer ...")
        return await handler(request)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        name, spoken = request.match_info["provider"], request.match_info["verb"]
        lazy = self._find(name)
        verb = self._verb(lazy, spoken)
        began = time.monotonic()
        outcome = "cancelled"
        try:
            ask = _decode(await request.read(), verb)
            await lazy.ready(wait=self._wait(request))
            reply = await lazy.answer(ask, within=self.settings.within)
            outcome = "ok"
        except RefusedError as error:
            outcome = error.code
            raise
        except Exception:  # counted, not swallowed
            outcome = "internal_error"
            raise
        finally:
            taken = time.monotonic() - began
            self.metrics.count("hostler_provider_answers_total", name, verb, outcome)
            self.metrics.observe("hostler_provider_answer_seconds", name, verb, value=taken)
        return _json(
            Envelope(
                success=True,
                provider_name=name,
                execution_time_ms=round(1000 * taken, 3),
                result=reply,
                metadata={"version": __version__},
            )
        )

    async def _list(self, _request: web.Request) -> web.StreamResponse:
        return _json({"providers": [lazy.view() for lazy in self.providers.values()]})

    async def _provider_health(self, request: web.Request) -> web.StreamResponse:
        view = self._find(request.match_info["provider"]).view()
        return _json(view, status=200 if view.available else 503)

    async def _health(self, _request: web.Request) -> web.StreamResponse:
        views = self._views()
        recent = [view.stats.error_rate for view in views if view.stats.error_rate is not None]
        status = "draining" if self._draining else "healthy"
        if not self._draining and any(view.state is ProviderState.FAILED for view in views):
            status = "degraded" if any(view.available for view in views) else "unhealthy"
        body = {
            "status": status,
            "version": __version__,
            "uptime_s": round(time.monotonic() - self._started, 3),
            "memory_bytes": await asyncio.to_thread(resident),
            "error_rate": max(recent, default=None),
            "slots": sum(view.slots for view in views if view.available),
            "busy": sum(view.in_flight for view in views),
            "providers": {view.name: view for view in views},
        }
        return _json(body, status=200 if status in {"healthy", "degraded"} else 503)

    async def _readyz(self, _request: web.Request) -> web.StreamResponse:
        views = self._views()
        open_ = [view.name for view in views if view.available]
        loading = [
            {"provider": view.name, "phase": view.phase, "item": view.item, "percent": view.percent}
            for view in views
            if view.state is ProviderState.LOADING
        ]
        ready = bool(open_) and not self._draining
        body = {"ready": ready, "available": open_, "loading": loading, "draining": self._draining}
        return _json(body, status=200 if ready else 503)

    async def _metrics(self, _request: web.Request) -> web.StreamResponse:
        views = self._views()
        states = {(view.name, state.value): float(view.state is state) for view in views for state in ProviderState}
        self.metrics.replace("hostler_provider_state", states)
        for name, values in (
            ("hostler_provider_memory_bytes", {view.name: view.memory_bytes for view in views}),
            ("hostler_provider_load_seconds", {view.name: view.load_s for view in views}),
            ("hostler_provider_error_ratio", {view.name: view.stats.error_rate for view in views}),
            ("hostler_provider_in_flight", {view.name: view.in_flight for view in views}),
            ("hostler_provider_waiting", {view.name: view.waiting for view in views}),
        ):
            self.metrics.replace(name, {(key,): float(value) for key, value in values.items() if value is not None})
        text = await asyncio.to_thread(self.metrics.render)
        return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE})

    def _views(self) -> list[ProviderView]:
        return [lazy.view() for lazy in self.providers.values()]

    def _find(self, name: str) -> LazyProvider:
        found = self.providers.get(name)
        if found is None:
            hint = nearest(name, self.providers)
            message = f"there is no provider {name!r}{hint or f'; there are {listed(self.providers)}'}"
            raise RefusedError(404, "unknown_provider", message, facts={"known": sorted(self.providers)})
        return found

    def _verb(self, lazy: LazyProvider, spoken: str) -> Verb:
        if spoken not in ASKS:
            verbs = [verb.value for verb in Verb]
            raise RefusedError(404, "unknown_verb", f"there is no verb {spoken!r}; there are {listed(verbs)}")
        verb = Verb(spoken)
        if verb not in lazy.provider.verbs:
            able = [other.provider.name for other in self.providers.values() if verb in other.provider.verbs]
            message = f"provider {lazy.provider.name} does not {verb}; {listed(able)} can"
            raise RefusedError(404, "unsupported", message, facts={"able": sorted(able)})
        return verb

    def _wait(self, request: web.Request) -> Seconds:
        asked = _WAIT.search(request.headers.get("Prefer", ""))
        return self.settings.wait if asked is None else min(float(asked[1]), self.settings.wait_most)


_OPEN: Final = frozenset({"/health", "/readyz"})


def resident() -> Bytes | None:
    """Return the memory that this process holds now, or its peak where the system does not tell; None on neither."""
    try:
        return int(_STATEMENT.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def _decode(body: bytes, verb: Verb) -> Ask:
    try:
        return msgspec.json.decode(body, type=ASKS[verb])
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise RefusedError(422, "invalid_input", str(error)) from None


def _refusal(request: web.Request, error: RefusedError, request_id: str) -> web.Response:
    envelope = Envelope(
        success=False,
        provider_name=request.match_info.get("provider", ""),
        execution_time_ms=0.0,
        error_message=error.message,
        error=Trouble(code=error.code, message=error.message, facts=error.facts),
        metadata={"version": __version__, "request_id": request_id},
    )
    headers = {} if error.retry_after is None else {"Retry-After": f"{error.retry_after:g}"}
    return _json(envelope, status=error.status, headers=headers)


def _json(value: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(
        body=msgspec.json.encode(value),
        status=status,
        headers=headers,
        content_type="application/json",
        charset="utf-8",
    )
