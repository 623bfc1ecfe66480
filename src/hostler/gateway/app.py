"""Builds the gateway from the ports that it is given."""

import random
import re
from collections.abc import Callable
from typing import Any, Final

import litestar
from litestar.exceptions import HTTPException

from hostler.gateway.dispatch import Request, Response, refuse, route_of
from hostler.gateway.doorman import Doorman
from hostler.gateway.hub import Hub
from hostler.gateway.measure import JobMeter, Scrape
from hostler.gateway.openapi import document
from hostler.gateway.operation import Operation
from hostler.gateway.rooms import Gauges, Rooms, no_gauges, nothing_degraded
from hostler.gateway.routes.blobs import BlobRoutes
from hostler.gateway.routes.cache import CacheRoutes
from hostler.gateway.routes.jobs import JobRoutes
from hostler.gateway.routes.limits import LimitRoutes
from hostler.gateway.routes.many import ManyRoutes
from hostler.gateway.routes.queues import QueueRoutes
from hostler.gateway.routes.services import ServiceRoutes
from hostler.gateway.routes.system import SystemRoutes
from hostler.gateway.routes.workers import WorkerRoutes
from hostler.gateway.tail import Tail, Tails
from hostler.gateway.upkeep import Upkeep, kept_up
from hostler.kernel.settings import Settings
from hostler.ports.blobs import Blobs
from hostler.ports.broker import Desk, Foreman
from hostler.ports.clock import Dice
from hostler.ports.limiter import Limiter
from hostler.ports.registry import EndpointRegistry, Registry
from hostler.ports.results import Results
from hostler.telemetry.metrics import Metrics
from hostler.telemetry.observed import observed

HUB: Final = "hub"
"""Where `serve` finds the hub in the application's state, to end its streams."""


class _SystemDice:
    def roll(self) -> float:
        return random.random()  # noqa: S311 - jitter, not a secret


def build_app(  # noqa: PLR0917 - the ports and the settings: the order is part of the interface
    desk: Desk,
    foreman: Foreman,
    registry: Registry,
    endpoints: EndpointRegistry,
    blobs: Blobs,
    settings: Settings,
    *,
    results: Results,
    limiter: Limiter,
    metrics: Metrics | None = None,
    degraded: Callable[[], tuple[str, ...]] = nothing_degraded,
    gauges: Callable[[], Gauges] = no_gauges,
    dice: Dice | None = None,
) -> litestar.Litestar:
    """Return the gateway as an ASGI application.

    While it runs (its lifespan), it ticks every queue once a second and reads every queue's stream.
    `degraded` says what `readyz` shows as less safe than it should be; `gauges` gives values of the
    catalogue's gauges and counters that only the wiring knows, asked for at each scrape.
    """
    metrics = metrics or Metrics()
    dice = dice or _SystemDice()
    rooms = Rooms(
        desk=observed(desk, port="desk", metrics=metrics),
        foreman=observed(foreman, port="foreman", metrics=metrics),
        registry=observed(registry, port="registry", metrics=metrics),
        endpoints=observed(endpoints, port="endpoints", metrics=metrics),
        blobs=observed(blobs, port="blobs", metrics=metrics),
        results=observed(results, port="results", metrics=metrics),
        limiter=observed(limiter, port="limiter", metrics=metrics),
        settings=settings,
        metrics=metrics,
        hub=Hub(most=settings.gateway.streams, metrics=metrics),
        degraded=degraded,
        gauges=gauges,
    )
    meter = JobMeter(metrics, rooms.desk)
    tails = Tails(lambda queue: Tail(queue, rooms, meter.counted), dice)
    operations = operations_of(rooms, Scrape(rooms, lambda: tails.offsets))
    app = litestar.Litestar(
        route_handlers=[route_of(row, body_limit=settings.gateway.body_limit) for row in operations],
        exception_handlers={HTTPException: _refuse_routing, Exception: refuse},
        lifespan=[lambda _: kept_up(Upkeep(rooms.foreman, tails, dice), tails, rooms.hub)],
        openapi_config=None,
        logging_config=None,
        request_max_body_size=None,
    )
    app.state[HUB] = rooms.hub
    app.asgi_handler = Doorman(app.asgi_handler, metrics=metrics, methods=_methods(operations))
    return app


def operations_of(rooms: Rooms, scrape: Scrape) -> tuple[Operation[Any, Any], ...]:
    """Return every operation of the gateway."""
    found: list[Operation[Any, Any]] = []
    written: list[bytes] = []

    def described() -> bytes:
        if not written:
            written.append(document(found))
        return written[0]

    rows = (
        JobRoutes(rooms),
        ManyRoutes(rooms),
        BlobRoutes(rooms),
        QueueRoutes(rooms),
        WorkerRoutes(rooms),
        ServiceRoutes(rooms),
        CacheRoutes(rooms),
        LimitRoutes(rooms),
        SystemRoutes(rooms, scrape, described),
    )
    for row in rows:
        found.extend(row.operations())
    return tuple(found)


def _refuse_routing(request: Request, error: HTTPException) -> Response:
    return refuse(request, error)


def _methods(operations: tuple[Operation[Any, Any], ...]) -> Callable[[str], list[str]]:
    """Return what tells the methods of a path; a template without parameters wins, as it does in routing."""
    plain: dict[str, set[str]] = {}
    patterns: list[tuple[re.Pattern[str], str]] = []
    for row in operations:
        if "{" in row.template:
            patterns.append((re.compile(re.sub(r"{\w+}", "[^/]+", row.template) + r"/?"), row.method))
        else:
            plain.setdefault(row.template.rstrip("/"), set()).add(row.method)

    def methods(path: str) -> list[str]:
        exact = plain.get(path.rstrip("/"))
        found = exact or {method for pattern, method in patterns if pattern.fullmatch(path)}
        return sorted(found | {"OPTIONS"})

    return methods
