"""`hostler gateway` and `hostler worker`: one part each, wired to the engine."""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Annotated, Any, Final

from cyclopts import Parameter

from hostler.cli.children import stop_requested, tether
from hostler.cli.config import Loaded, build_connector, load, parts_of, spec_name
from hostler.cli.fitness import fitness_checks, reporting_failure
from hostler.cli.flags import Tethered, ToEngine, given
from hostler.cli.followed import discovery_of, only_followed, placed
from hostler.cli.output import OK, Out
from hostler.contracts.worker import WorkerState
from hostler.kernel.errors import ConflictError, MissingExtraError
from hostler.kernel.settings import EngineSettings, Settings
from hostler.kernel.sources import refuse
from hostler.kernel.spec import Instance
from hostler.kernel.units import Seconds
from hostler.ports.blobs import Blobs
from hostler.ports.broker import Broker
from hostler.ports.discovery import Discovery, Placed
from hostler.ports.limiter import Limiter
from hostler.ports.registry import Registry
from hostler.valkeyio.engine import Engine
from hostler.valkeyio.folder import locate

STATE_POLL: Final[Seconds] = 0.02
"""How often a starting worker is looked at, to say that it is ready."""


async def gateway(
    *,
    bind: Annotated[str | None, Parameter(help="Address to listen on: HOST:PORT; port 0 takes any free one.")] = None,
    metrics_port: Annotated[int | None, Parameter(help="Serve /metrics on this port of 127.0.0.1 as well.")] = None,
    tethered: Tethered = False,
    common: ToEngine = ToEngine(),
) -> int:
    """Run the HTTP side: the API, the event streams, and the upkeep of every queue."""
    from hostler.gateway.app import build_app
    from hostler.gateway.serve import serve
    from hostler.telemetry.metrics import Metrics, exported

    out = Out(json=common.json)
    flags = given({"gateway.bind": ("--bind", bind), "gateway.metrics_port": ("--metrics-port", metrics_port)})
    loaded = _begin("gateway", {**common.settings(), **flags}, common, tethered=tethered)
    settings = loaded.settings
    stop = await stop_requested()
    metrics = Metrics()
    async with contextlib.AsyncExitStack() as stack:
        engine = await stack.enter_async_context(_engine(settings.engine, "gateway"))
        blobs = await stack.enter_async_context(_blobs(settings, engine))
        from hostler.broker.desk import EngineDesk
        from hostler.broker.foreman import EngineForeman
        from hostler.registry.endpoints import EngineEndpoints
        from hostler.registry.engine import EngineRegistry
        from hostler.registry.limits import EngineLimiter
        from hostler.registry.results import EngineResults

        foreman = EngineForeman(engine)
        await _declare(loaded, foreman)
        desk = await stack.enter_async_context(contextlib.aclosing(EngineDesk(engine)))
        app = build_app(
            desk,
            foreman,
            EngineRegistry(engine),
            EngineEndpoints(engine),
            blobs,
            settings,
            results=EngineResults(engine),
            limiter=EngineLimiter(engine),
            metrics=metrics,
            degraded=lambda: _degraded(engine),
            gauges=lambda: engine_gauges(engine),
        )

        def ready(url: str) -> None:
            out.answer({"event": "ready", "url": url, "pid": os.getpid()}, f"ready: {url}")

        with exported(metrics, settings.gateway.metrics_port):
            await serve(app, settings.gateway.bind, ready=ready, stop=stop)
    return OK


async def worker(
    *,
    connectors: Annotated[str | None, Parameter(help="SPEC: connectors to serve, as simulation-http:2,chat.")] = None,
    handlers: Annotated[str | None, Parameter(help="Modules of handlers, with commas.")] = None,
    slots: Annotated[int | None, Parameter(help="Jobs that run at the same time.")] = None,
    worker_id: Annotated[str | None, Parameter(name="--id", help="Name of this worker; made up unless given.")] = None,
    metrics_port: Annotated[int | None, Parameter(help="Serve /metrics on this port of 127.0.0.1.")] = None,
    tethered: Tethered = False,
    common: ToEngine = ToEngine(),
) -> int:
    """Run one worker; SIGTERM drains it: running jobs may end within the grace time, the rest is given back."""
    from hostler.registry.endpoints import EngineEndpoints
    from hostler.registry.limits import EngineLimiter
    from hostler.telemetry.metrics import Metrics, exported
    from hostler.telemetry.observed import observed
    from hostler.worker.signals import run_until_told

    out = Out(json=common.json)
    flags = given(
        {
            "worker.connectors": ("--connectors", connectors),
            "worker.handlers": ("--handlers", tuple(handlers.split(",")) if handlers else None),
            "worker.slots": ("--slots", slots),
            "worker.id": ("--id", worker_id),
            "worker.metrics_port": ("--metrics-port", metrics_port),
        }
    )
    loaded = _begin("worker", {**common.settings(), **flags}, common, tethered=tethered)
    settings = loaded.settings
    try:
        instances, followed = _instances(loaded)
    except MissingExtraError:
        async with _engine(settings.engine, "worker") as engine, reporting_failure(engine, settings.worker):
            raise
    metrics = Metrics()
    async with _engine(settings.engine, "worker") as engine, _blobs(settings, engine) as blobs:
        limiter = observed(EngineLimiter(engine), port="limiter", metrics=metrics)
        async with reporting_failure(engine, settings.worker):
            served = tuple(placed(instance, loaded, blobs, limiter) for instance in instances)
            discovery = discovery_of(EngineEndpoints(engine), followed, settings, blobs, limiter)
            made = await _worker(loaded, engine, blobs, served, discovery, limiter, metrics)
        with exported(metrics, settings.worker.metrics_port):
            running = asyncio.create_task(run_until_told(made))
            while made.state is WorkerState.STARTING and not running.done():
                await asyncio.wait({running}, timeout=STATE_POLL)
            if made.state in {WorkerState.READY, WorkerState.BUSY}:
                out.answer({"event": "ready", "worker": made.id, "pid": os.getpid()}, f"worker {made.id} is ready")
            await running
    out.answer({"event": "stopped", "worker": made.id}, f"worker {made.id} stopped")
    return OK


async def _worker(  # noqa: PLR0917 - the parts of a worker, each from where it is opened
    loaded: Loaded,
    engine: Engine,
    blobs: Blobs,
    served: tuple[Placed, ...],
    discovery: Discovery,
    limiter: Limiter,
    metrics: Any,
) -> Any:
    """Put one worker together from the engine's adapters."""
    from hostler.broker.engine import EngineBroker
    from hostler.broker.foreman import EngineForeman
    from hostler.registry.engine import EngineRegistry
    from hostler.registry.results import EngineResults
    from hostler.telemetry.observed import observed
    from hostler.worker.handlers import HandlerSet
    from hostler.worker.system import SystemClock, SystemDice
    from hostler.worker.worker import Worker

    settings = loaded.settings

    @asynccontextmanager
    async def link() -> AsyncGenerator[tuple[Broker, Registry]]:
        # The heartbeat's own way to the engine, on the loop of its thread: a busy work loop cannot hold it up.
        async with _engine(settings.engine, "heartbeat") as own:
            yield EngineBroker(own), EngineRegistry(own)

    sys.path.insert(0, os.getcwd())  # noqa: PTH109 - a plain string, where the operator stands: modules of handlers are found there
    foreman = EngineForeman(engine)
    await _declare(loaded, foreman)
    return Worker(
        observed(EngineBroker(engine), port="broker", metrics=metrics),
        observed(foreman, port="foreman", metrics=metrics),
        observed(EngineRegistry(engine), port="registry", metrics=metrics),
        served,
        await asyncio.to_thread(HandlerSet.load, settings.worker.handlers, strict=True),
        settings.worker,
        clock=SystemClock(),
        dice=SystemDice(),
        blobs=blobs,
        discovery=discovery,
        results=observed(EngineResults(engine), port="results", metrics=metrics),
        limiter=limiter,
        heartbeat_link=link,
        checks=fitness_checks(engine, blobs, settings.worker),
    )


def _instances(loaded: Loaded) -> tuple[tuple[Instance, ...], tuple[Instance, ...]]:
    """Return the endpoints that are configured, and the entries whose endpoints are followed."""
    settings = loaded.settings
    spec = settings.worker.connectors
    parts, problems = parts_of(spec, name=spec_name(loaded.reading, "worker.connectors"), settings=settings)
    if not parts and not problems and not settings.worker.handlers:
        problems = ("a worker needs something to do: name --connectors SPEC, or --handlers MODULE",)
    refuse(problems)
    every = [instance for _, instances in parts for instance in instances]
    fixed = [instance for instance in every if instance.settings.url and not only_followed(instance, settings)]
    return tuple(fixed), tuple(instance for instance in every if instance.followed)


def _begin(role: str, flags: Mapping[str, tuple[str, Any]], common: ToEngine, *, tethered: bool) -> Loaded:
    """Load the settings, begin logging, say where the settings came from."""
    from hostler.telemetry.logs import configure, logger

    loaded = load(flags, config=common.config)
    configure(loaded.settings.log, role=role)
    logger("cli").info("settings", file=loaded.origin)
    if tethered:
        tether()
    return loaded


async def _declare(loaded: Loaded, foreman: Any) -> None:
    """Put what the configuration says about queues and kinds into the engine, connectors' kinds included.

    A queue whose shards cannot be others now keeps the row that it has.
    """
    from hostler.telemetry.logs import logger

    for queue in loaded.queues:
        try:
            await foreman.declare_queue(queue)
        except ConflictError as error:
            logger("cli").warning("queue stays as it is", queue=queue.name, reason=error.message)
    for kind in loaded.kinds:
        await foreman.declare_kind(kind)
    named = {kind.name for kind in loaded.kinds}
    for name in loaded.settings.connectors:
        parts, _ = parts_of(name, name=f"connectors.{name}", settings=loaded.settings)
        for instance in (instance for _, instances in parts for instance in instances):
            for kind in build_connector(instance, loaded.settings).kinds():
                if kind.name not in named:
                    await foreman.declare_kind(kind)


@asynccontextmanager
async def _engine(settings: EngineSettings, role: str) -> AsyncGenerator[Engine]:
    """Open the engine, with this version's functions in it."""
    from hostler.valkeyio.faults import mapped
    from hostler.valkeyio.library import Library

    async with Engine.open(settings, role=role) as engine:
        with mapped():
            await Library(engine).ensure()
        yield engine


@asynccontextmanager
async def _blobs(settings: Settings, engine: Engine) -> AsyncGenerator[Blobs]:
    """Open the blob store: where the settings say, else beside the embedded engine."""
    from hostler.blobs.opening import open_blobs
    from hostler.telemetry.logs import logger

    folder = engine.data or locate(None).root
    if engine.data is None and settings.blobs.url is None:
        logger("cli").warning(
            "blobs lie on this machine: set blobs.url where workers run elsewhere", folder=str(folder)
        )
    async with open_blobs(settings.blobs.url, folder) as blobs:
        yield blobs


def _degraded(engine: Engine) -> tuple[str, ...]:
    return engine.degraded if engine.up else (engine.down_reason or "the engine does not answer", *engine.degraded)


def engine_gauges(engine: Engine) -> dict[str, dict[tuple[str, ...], float]]:
    """Return what the engine's client measures of itself, by the catalogue's names."""
    pools = engine.pools()
    return {
        "hostler_engine_up": {(): float(engine.up)},
        "hostler_engine_pool_in_use": {(name,): float(usage.in_use) for name, usage in pools.items()},
        "hostler_engine_pool_limit": {(name,): float(usage.limit) for name, usage in pools.items()},
        "hostler_engine_pool_waiting": {(name,): float(usage.waiting) for name, usage in pools.items()},
        "hostler_engine_pool_waits_total": {(name,): float(usage.waits) for name, usage in pools.items()},
        "hostler_engine_pool_wait_seconds_total": {(name,): usage.waited for name, usage in pools.items()},
        "hostler_engine_pool_refused_total": {(name,): float(usage.refused) for name, usage in pools.items()},
    }
