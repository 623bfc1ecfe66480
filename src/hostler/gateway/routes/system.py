"""The gateway itself: health, readiness, metrics, the API's description, a front page."""

import asyncio
from collections.abc import Callable
from html import escape
from typing import Any, Final

from hostler.contracts.api import Health
from hostler.gateway.measure import Scrape
from hostler.gateway.operation import JSON, Answer, Call, Nothing, Operation, Reply
from hostler.gateway.rooms import Rooms
from hostler.kernel.errors import EngineError, EngineTimeoutError, EngineUnavailableError
from hostler.kernel.units import Seconds
from hostler.kernel.version import __version__
from hostler.telemetry.metrics import CONTENT_TYPE

PATIENCE: Final[Seconds] = 2.0
"""Longest that `readyz` waits for the engine."""
_PAGE: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Hostler</title></head>
<body><h1>Hostler {version}</h1>
<p>This is the gateway of a Hostler. Programs speak to it over HTTP; people use the command <code>hostler</code>.</p>
<ul>{links}</ul></body></html>
"""
_LINKS: Final = {
    "/v1/openapi.json": "the API, described",
    "/v1/queues": "queues",
    "/v1/jobs": "jobs",
    "/v1/dead": "dead jobs",
    "/v1/workers": "workers",
    "/readyz": "is it ready?",
    "/metrics": "metrics",
}


class SystemRoutes:
    """The handlers outside of jobs, queues and workers."""

    def __init__(self, rooms: Rooms, scrape: Scrape, document: Callable[[], bytes]) -> None:
        self._rooms = rooms
        self._scrape = scrape
        self._document = document

    async def get_health(self, _call: Call, _query: Nothing, _body: None) -> Answer:
        """Say that this process is alive."""
        return Answer(body=Health(status="alive", version=__version__))

    async def get_readiness(self, _call: Call, _query: Nothing, _body: None) -> Answer:
        """Say whether work can be done: 503 with the reason while the engine does not answer."""
        try:
            async with asyncio.timeout(PATIENCE):
                await self._rooms.foreman.registry()
        except TimeoutError as error:
            raise EngineTimeoutError(f"Not ready: the engine did not answer within {PATIENCE:g} s.") from error
        except EngineError as error:
            raise EngineUnavailableError(f"Not ready: {error.message}", cause=error.code) from error
        degraded = self._rooms.degraded()
        status = "degraded" if degraded else "ready"
        return Answer(body=Health(status=status, version=__version__, degraded=degraded))

    async def get_metrics(self, _call: Call, _query: Nothing, _body: None) -> Answer:
        """Return every metric in the Prometheus text format."""
        return Answer(body=await self._scrape.render(), media_type=CONTENT_TYPE)

    async def get_openapi(self, _call: Call, _query: Nothing, _body: None) -> Answer:
        """Return this document."""
        return Answer(body=self._document())

    async def get_front_page(self, _call: Call, _query: Nothing, _body: None) -> Answer:
        """Return a page with links for people who came with a browser."""
        links = "".join(f'<li><a href="{path}">{escape(text)}</a></li>' for path, text in _LINKS.items())
        page = _PAGE.format(version=escape(__version__), links=links)
        return Answer(
            body=page.encode(),
            media_type="text/html; charset=utf-8",
            headers={"Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'"},
        )

    def operations(self) -> tuple[Operation[Any, Any], ...]:
        """Return the routes."""
        rows: tuple[tuple[str, Any, Reply, tuple[type[EngineError], ...]], ...] = (
            ("/healthz", self.get_health, Reply(about="Alive.", type=Health), ()),
            (
                "/readyz",
                self.get_readiness,
                Reply(about="Ready, or ready but degraded.", type=Health),
                (EngineUnavailableError,),
            ),
            ("/metrics", self.get_metrics, Reply(about="The metrics.", media_type=CONTENT_TYPE), ()),
            (
                "/v1/openapi.json",
                self.get_openapi,
                Reply(about="OpenAPI 3.1.", type=dict[str, Any], media_type=JSON),
                (),
            ),
            ("/", self.get_front_page, Reply(about="HTML.", media_type="text/html; charset=utf-8"), ()),
        )
        return tuple(
            Operation(method="GET", path=path, handler=handler, replies={200: reply}, errors=errors, tag="system")
            for path, handler, reply, errors in rows
        )
