"""Stands before every request: who may knock, which name the request has, how long the answer took."""

import ipaddress
import re
import secrets
import time
import uuid
from collections.abc import Callable, Iterable
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
import structlog
from litestar.types import ASGIApp, HTTPScope, Message, Receive, Scope, Send

from hostler.gateway.operation import PROBLEM
from hostler.gateway.problems import as_hostler_error, headers_of, problem
from hostler.kernel.errors import ForeignOriginError, HostlerError, MethodError, WrongHostError
from hostler.telemetry.logs import logger
from hostler.telemetry.metrics import Metrics

_LOG = logger("gateway")
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_TRACEPARENT: Final = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-([0-9a-f]{2})")
_SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_NOT_ALLOWED: Final = 405


def is_loopback(host: str) -> bool:
    """Tell whether a host name or numeric address means this machine."""
    if host.rstrip(".").lower() in {"localhost", "ip6-localhost"}:
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _host_of(authority: str) -> str:
    """Return the host of a `Host` header; empty when it cannot be read."""
    try:
        parts = urlsplit(f"//{authority}")
        host = parts.hostname or ""
    except ValueError:
        return ""
    return "" if parts.username is not None or parts.path else host


class _Visit:
    """What the doorman knows of one request."""

    def __init__(self, scope: HTTPScope) -> None:
        self.headers: dict[str, str] = {}
        self.hosts = 0
        for name, value in scope["headers"]:
            key = name.decode("latin-1").lower()
            self.hosts += key == "host"
            self.headers.setdefault(key, value.decode("latin-1"))
        given = self.headers.get("x-request-id", "")
        self.request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        parent = _TRACEPARENT.fullmatch(self.headers.get("traceparent", ""))
        self.trace_id = parent[1] if parent else secrets.token_hex(16)
        self.traceparent = f"00-{self.trace_id}-{secrets.token_hex(8)}-{parent[2] if parent else '00'}"
        self.method = str(scope["method"])
        self.path = str(scope["path"])
        self.began = time.perf_counter()
        self.status = 0

    def judge(self) -> None:
        """Raise `WrongHostError` or `ForeignOriginError` for what a page elsewhere made a browser send."""
        if self.hosts != 1 or not is_loopback(_host_of(self.headers.get("host", ""))):
            raise WrongHostError(
                "This gateway answers to localhost and loopback addresses only; use http://127.0.0.1 and its port.",
                field="header.Host",
            )
        if self.method in _SAFE_METHODS:
            return
        origin = self.headers.get("origin")
        foreign = origin is not None and origin != f"http://{self.headers['host']}"
        if foreign or self.headers.get("sec-fetch-site", "same-origin") not in {"same-origin", "none"}:
            raise ForeignOriginError("Only pages of this gateway may change things.", field="header.Origin")


class Doorman:
    """The outermost layer: judges, names, measures, and answers what nobody inside answered."""

    def __init__(self, inner: ASGIApp, *, metrics: Metrics, methods: Callable[[str], Iterable[str]]) -> None:
        self._inner = inner
        self._metrics = metrics
        self._methods = methods

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._inner(scope, receive, send)
            return
        visit = _Visit(scope)
        scope["state"]["visit"] = visit
        sender = self._sender(visit, send)
        with structlog.contextvars.bound_contextvars(request_id=visit.request_id, trace_id=visit.trace_id):
            try:
                visit.judge()
                await self._inner(scope, receive, sender)
            except Exception as error:  # the last place where an answer can still be given
                if visit.status:
                    raise
                await self.refuse(visit, as_hostler_error(error), sender)
            finally:
                self._record(scope, visit)

    def _sender(self, visit: _Visit, send: Send) -> Send:
        async def sender(message: Message) -> None:
            if message["type"] == "http.response.start":
                visit.status = message["status"]
                extra = {
                    "x-request-id": visit.request_id,
                    "traceparent": visit.traceparent,
                    "x-content-type-options": "nosniff",
                }
                present = {name.lower() for name, _ in message["headers"]}
                if b"cache-control" not in present:
                    extra["cache-control"] = "no-store"
                headers = [(name.encode(), value.encode()) for name, value in extra.items()]
                kept = message["headers"]
                if visit.status == _NOT_ALLOWED or visit.method == "OPTIONS":
                    kept = [(name, value) for name, value in kept if name.lower() != b"allow"]
                    headers.append((b"allow", ", ".join(self._methods(visit.path)).encode()))
                message["headers"] = [*kept, *headers]
            await send(message)

        return sender

    async def refuse(self, visit: _Visit, error: HostlerError, send: Send) -> None:
        """Answer with the problem document of an error."""
        if isinstance(error, MethodError):
            error.facts["allow"] = list(self._methods(visit.path))
        document = problem(error, request_id=visit.request_id, instance=visit.path)
        body = msgspec.json.encode(document)
        headers: dict[str, Any] = {"content-type": PROBLEM, "content-length": str(len(body)), **headers_of(document)}
        await send(
            {
                "type": "http.response.start",
                "status": error.status,
                "headers": [(name.lower().encode(), str(value).encode()) for name, value in headers.items()],
            }
        )
        await send({"type": "http.response.body", "body": b"" if visit.method == "HEAD" else body, "more_body": False})

    def _record(self, scope: Scope, visit: _Visit) -> None:
        route = str(scope["state"].get("route", "unmatched"))
        took = time.perf_counter() - visit.began
        self._metrics.observe("hostler_http_request_seconds", visit.method, route, str(visit.status), value=took)
        _LOG.debug("http.request", method=visit.method, route=route, status=visit.status, duration_s=took)
