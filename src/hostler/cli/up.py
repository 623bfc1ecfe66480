"""`hostler up`: the whole system on this machine, as processes that are watched and end together."""

import asyncio
import contextlib
import socket
from collections.abc import Mapping
from typing import Annotated, Any, Final

from cyclopts import Parameter

from hostler.cli.children import Children, ChildSpec, passed_on, stop_requested
from hostler.cli.config import Loaded, load, parts_of, spec_name
from hostler.cli.flags import ToEngine, given
from hostler.cli.output import OK, Out
from hostler.kernel.errors import AddressInUseError
from hostler.kernel.settings import Settings
from hostler.kernel.sources import refuse
from hostler.kernel.units import Seconds
from hostler.valkeyio.folder import hold_up, locate
from hostler.valkeyio.urls import redact

READY_WITHIN: Final[Seconds] = 60.0
"""Longest start of one part; an engine with half a million waiting jobs loads in seconds."""


async def up(
    *,
    bind: Annotated[str | None, Parameter(help="Address of the gateway: HOST:PORT.")] = None,
    workers: Annotated[
        str | None, Parameter(help="SPEC: which workers and how many, as simulation-http:2,comfyui-http or none.")
    ] = None,
    handlers: Annotated[str | None, Parameter(help="Modules of handlers that every worker runs, with commas.")] = None,
    slots: Annotated[int | None, Parameter(help="Jobs that one worker runs at the same time.")] = None,
    common: ToEngine = ToEngine(),
) -> int:
    """Run the whole system on this machine: engine, gateway and workers, each watched and started again if it crashes.

    Services are not started: a worker needs the address of a running one.
    """
    out = Out(json=common.json)
    modules = tuple(handlers.split(",")) if handlers else ()
    flags = given(
        {
            "gateway.bind": ("--bind", bind),
            "workers": ("--workers", workers),
            "worker.handlers": ("--handlers", modules),
            "worker.slots": ("--slots", slots),
        }
    )
    loaded = load({**common.settings(), **flags}, config=common.config)
    names = _workers_of(loaded)
    stop = await stop_requested()
    with _held(loaded.settings):
        _free(loaded.settings.gateway.bind)
        _announce(out, loaded)
        shared = (*passed_on(_shared(common)), "--json")
        worker_flags = (*passed_on((("--handlers", handlers), ("--slots", slots))), *shared)
        async with Children(lambda event: _report(out, event), grace=loaded.settings.worker.grace + 10) as children:
            gateway = await children.start(
                ChildSpec(name="gateway", arguments=("gateway", "--bind", loaded.settings.gateway.bind, *shared))
            )
            said = await children.ready(gateway, within=READY_WITHIN)
            # A port that the system chose stays the same when the gateway has to be started again.
            gateway.arguments = ("gateway", "--bind", said["url"].removeprefix("http://"), *shared)
            started = [
                await children.start(ChildSpec(name=name, arguments=("worker", "--connectors", spec, *worker_flags)))
                for name, spec in names
            ]
            for worker in started:
                await children.ready(worker, within=READY_WITHIN)
            out.answer(
                {"event": "ready", "url": said["url"], "workers": [name for name, _ in names]},
                f"ready: {said['url']}, workers: {', '.join(name for name, _ in names) or 'none'}; Ctrl-C ends it all",
            )
            await _until(stop, children)
            out.say("ending: workers give back what they cannot finish")
    out.answer({"event": "stopped"}, "stopped")
    return OK


def _shared(common: ToEngine) -> tuple[tuple[str, Any], ...]:
    """Return the flags that every child gets as `up` got them."""
    return (
        ("--engine", common.engine),
        ("--data", common.data),
        ("--wait-engine", common.wait_engine),
        ("--allow-degraded", common.allow_degraded),
        ("--log-level", common.log_level),
        ("--config", common.config),
    )


def _workers_of(loaded: Loaded) -> list[tuple[str, str]]:
    """Return the workers to run: a name for each, and the SPEC that makes it serve its own instance."""
    settings = loaded.settings
    parts, problems = parts_of(settings.workers or "none", name=spec_name(loaded.reading, "workers"), settings=settings)
    refuse(problems)
    found = [
        (f"worker-{item.name}-all", f"{item.name}:*")
        if item.all
        else (f"worker-{item.name}-{index}", f"{item.name}#{index}")
        for item, _ in parts
        for index in item.indexes
    ]
    if not found and settings.worker.handlers:
        found.append(("worker-handlers", "none"))
    return found


def _held(settings: Settings) -> contextlib.AbstractContextManager[object]:
    if settings.engine.url is not None:
        return contextlib.nullcontext()
    return hold_up(settings.engine.data, settings.gateway.bind)


def _free(bind: str) -> None:
    """Refuse an address that something else listens on, before anything is started."""
    host, _, port = bind.rpartition(":")
    family = socket.AF_INET6 if host.startswith("[") else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host.strip("[]"), int(port)))
        except OSError as error:
            raise AddressInUseError(
                f"{bind} cannot be used ({error.strerror}): end what listens there, or name another with --bind",
                bind=bind,
            ) from error


def _announce(out: Out, loaded: Loaded) -> None:
    settings = loaded.settings
    engine = redact(settings.engine.url) if settings.engine.url else str(locate(settings.engine.data).root)
    out.answer(
        {"event": "starting", "config": loaded.file, "engine": engine},
        f"settings file: {loaded.origin}\nengine: {engine}",
    )


def _report(out: Out, event: Mapping[str, Any]) -> None:
    if out.json:
        out.document(event)
    elif event["event"] == "ended":
        then = "; it is started again" if event["again"] else ""
        out.say(f"{event['name']} (process {event['pid']}) ended with {event['code']}{then}")
    elif event["start"] > 1:
        out.say(f"{event['name']} runs again (process {event['pid']})")


async def _until(stop: asyncio.Event, children: Children) -> None:
    """Return when the operator wants to stop; raise when a part can never run."""
    waiting = asyncio.create_task(stop.wait())
    await asyncio.wait({waiting, children.failed}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if children.failed.done():
        raise children.failed.result()
