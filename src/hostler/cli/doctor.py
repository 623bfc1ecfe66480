"""`hostler doctor`: is everything here as it should be, and if not, what to do."""

import asyncio
import importlib.util
import os
import shutil
import socket
import sys
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, cast

from cyclopts import Parameter
from msgspec import Struct

from hostler.cli.config import Loaded, build_connector, load, parts_of, spec_name
from hostler.cli.flags import ToEngine
from hostler.cli.output import FAILED, OK, Out
from hostler.contracts.service import EndpointState
from hostler.kernel.errors import HostlerError, LibraryMismatchError
from hostler.kernel.settings import Settings
from hostler.kernel.spec import Instance
from hostler.kernel.table import SECRET
from hostler.kernel.units import Bytes, Seconds
from hostler.kernel.version import __version__

Level = Literal["ok", "note", "bad"]

SKEW_MOST: Final[Seconds] = 1.0
"""Deadlines and delays go by the engine's clock; people read this machine's."""
DISK_LEAST: Final[Bytes] = 1_073_741_824
PROBE_MOST: Final[Seconds] = 10.0
OK_STATUS: Final = 200
GOOD_STATES: Final = frozenset({EndpointState.READY, EndpointState.LOADING, EndpointState.DEGRADED})
EXTRAS: Final[Mapping[str, tuple[str, ...]]] = {
    "demo": ("gguf", "numpy", "xllamacpp"),
    "s3": ("aiobotocore",),
    "pydantic": ("pydantic",),
    "grpc": ("grpc",),
}


class Finding(Struct, frozen=True, kw_only=True):
    """What one check found."""

    check: str
    level: Level
    message: str
    advice: str = ""
    """What to do, when there is something to do."""


async def doctor(
    *,
    replace_library: Annotated[
        bool,
        Parameter(
            negative="", help="Put this version's functions into the engine; first stop all of the other version."
        ),
    ] = False,
    common: ToEngine = ToEngine(),
) -> int:
    """Check settings, engine, gateway, services and this machine; exit 1 when something is bad."""
    out = Out(json=common.json)
    loaded = load(common.settings(), config=common.config)
    _show_settings(out, loaded)
    bad = 0
    async for finding in _findings(loaded, replace=replace_library):
        bad += finding.level == "bad"
        if out.json:
            out.document(finding)
        else:
            out.say(f"{finding.level:<5}{finding.check}: {finding.message}")
            if finding.advice:
                out.say(f"     -> {finding.advice}")
    outcome = {"outcome": "bad" if bad else "ok", "bad": bad}
    out.answer(outcome, f"{bad} {'thing needs' if bad == 1 else 'things need'} attention" if bad else "all is well")
    return FAILED if bad else OK


def _show_settings(out: Out, loaded: Loaded) -> None:
    rows = [(path, _value(loaded.settings, path), origin) for path, origin in sorted(loaded.reading.origins.items())]
    if out.json:
        out.document(
            {
                "config": loaded.file,
                "version": __version__,
                "settings": [{"name": path, "value": value, "source": source} for path, value, source in rows],
            }
        )
        return
    out.say(f"Hostler {__version__}, Python {sys.version.split()[0]}; settings file: {loaded.origin}")
    out.table(("setting", "value", "source"), [(p, "" if v is None else str(v), s) for p, v, s in rows], empty="")


def _value(settings: Settings, path: str) -> Any:
    if path in SECRET:
        return "(set)" if getattr(settings, path) else None
    head, _, rest = path.partition(".")
    if head == "connectors" and rest:
        entry, _, leaf = rest.rpartition(".")
        return getattr(settings.connectors[entry], leaf)
    value = getattr(settings, head)
    if path == "connectors":
        return sorted(value)
    shown = getattr(value, rest) if rest else value
    return _without_password(shown) if path == "engine.url" and shown else shown


def _without_password(url: str) -> str:
    scheme, sign, rest = url.partition("://")
    _, at, host = rest.rpartition("@")
    return f"{scheme}{sign}(hidden)@{host}" if at else url


async def _findings(loaded: Loaded, *, replace: bool) -> AsyncIterator[Finding]:
    for note in loaded.reading.notes:
        yield Finding(check="mapping", level="note", message=note)
    yield _extras()
    yield _disk(loaded.settings)
    async for finding in _engine(loaded.settings, replace=replace):
        yield finding
    yield await _gateway(loaded.settings)
    yield _bind(loaded.settings)
    async for finding in _endpoints(loaded):
        yield finding


def _extras() -> Finding:
    absent = [name for name, modules in EXTRAS.items() if not all(importlib.util.find_spec(m) for m in modules)]
    if not absent:
        return Finding(check="extras", level="ok", message=f"installed: {', '.join(EXTRAS)}")
    return Finding(
        check="extras",
        level="note",
        message=f"not installed: {', '.join(absent)}",
        advice=f"where one is needed: pip install 'hostler[{','.join(absent)}]'",
    )


def _disk(settings: Settings) -> Finding:
    folder = Path(settings.engine.data or ".hostler").absolute()
    place = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(place).free
    if not os.access(place, os.W_OK):
        return Finding(
            check="disk", level="bad", message=f"{place} cannot be written to", advice="name a folder with --data"
        )
    if free < DISK_LEAST:
        return Finding(
            check="disk",
            level="bad",
            message=f"{free / 1e9:.1f} GB free at {place}",
            advice="make room, or name a folder on another disk with --data",
        )
    return Finding(check="disk", level="ok", message=f"{free / 1e9:.0f} GB free at {place}")


async def _engine(settings: Settings, *, replace: bool) -> AsyncIterator[Finding]:
    from hostler.valkeyio.engine import Engine
    from hostler.valkeyio.faults import mapped
    from hostler.valkeyio.library import Library

    where = Path(settings.engine.data or ".hostler").absolute()  # noqa: ASYNC240 - nothing else runs meanwhile
    if settings.engine.url is None and not where.exists():
        yield Finding(check="engine", level="note", message=f"no data folder yet; `hostler up` will make {where}")
        return
    try:
        async with Engine.open(settings.engine, role="doctor") as engine:
            yield Finding(check="engine", level="ok", message=f"{engine.version} answers at {engine.url}")
            if engine.promise:
                yield Finding(check="durability", level="ok", message=engine.promise)
            for reason in engine.degraded:
                yield Finding(check="engine", level="bad", message=reason, advice="until then it runs marked degraded")
            for warning in engine.warnings:
                yield Finding(check="engine", level="note", message=warning)
            with mapped():
                seconds, micros = await engine.command("TIME")
                skew = abs(time.time() - seconds - micros / 1e6)
                library = Library(engine)
                if replace:
                    await library.replace()
                await library.ensure()
            yield Finding(
                check="clock",
                level="ok" if skew <= SKEW_MOST else "bad",
                message=f"this clock and the engine's differ by {skew:.3f} s",
                advice="" if skew <= SKEW_MOST else "let both machines follow one time server (NTP)",
            )
            yield Finding(check="library", level="ok", message=f"functions {library.sha256[:12]} are in the engine")
    except LibraryMismatchError as error:
        yield Finding(check="library", level="bad", message=error.message)
    except HostlerError as error:
        yield Finding(check="engine", level="bad", message=error.message)


async def _gateway(settings: Settings) -> Finding:
    import aiohttp

    host, _, port = settings.gateway.bind.rpartition(":")
    address = f"http://{settings.gateway.bind}"
    if port == "0":
        return Finding(check="gateway", level="ok", message="takes any free port")
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session,
            session.get(f"{address}/readyz") as answer,
        ):
            body: Any = await answer.json()
        if isinstance(body, dict) and "status" in body and "version" in body:
            facts = cast("dict[str, Any]", body)
            ready = answer.status == OK_STATUS
            words = f"Hostler {facts['version']} answers at {address}: {facts['status']}"
            return Finding(check="gateway", level="ok" if ready else "bad", message=words)
    except (aiohttp.ClientError, TimeoutError, ValueError):
        pass
    with socket.socket(socket.AF_INET6 if host.startswith("[") else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host.strip("[]"), int(port)))
        except OSError as error:
            return Finding(
                check="gateway",
                level="bad",
                message=f"{settings.gateway.bind} cannot be used: {error.strerror}",
                advice="end what listens there, or name another address with --bind",
            )
    return Finding(check="gateway", level="ok", message=f"none runs; {settings.gateway.bind} is free")


def _bind(settings: Settings) -> Finding:
    host = settings.gateway.bind.rpartition(":")[0].strip("[]")
    if host in ("localhost", "::1") or host.startswith("127."):
        return Finding(check="bind", level="ok", message="the gateway listens on this machine only")
    return Finding(
        check="bind",
        level="bad",
        message=f"{settings.gateway.bind} is open to others, and there are no keys yet",
        advice="bind to 127.0.0.1, and put a proxy that authenticates in front",
    )


async def _endpoints(loaded: Loaded) -> AsyncIterator[Finding]:
    settings = loaded.settings
    specs = [(path, text) for path, text in _specs(settings) if text]
    listed = [(f"connectors.{name}", name) for name in settings.connectors]
    seen: set[str] = set()
    for path, text in (*specs, *listed):
        parts, problems = parts_of(text, name=spec_name(loaded.reading, path), settings=settings)
        for problem in problems:
            yield Finding(check="connectors", level="bad", message=problem)
        if problems:
            continue
        for instance in (instance for _, instances in parts for instance in instances):
            name = f"{instance.settings.connector} at {instance.settings.url}"
            if name not in seen:
                seen.add(name)
                yield await _endpoint(name, instance, settings)


def _specs(settings: Settings) -> tuple[tuple[str, str | None], ...]:
    return (("workers", settings.workers), ("worker.connectors", settings.worker.connectors))


async def _endpoint(name: str, instance: Instance, settings: Settings) -> Finding:
    try:
        async with asyncio.timeout(PROBE_MOST), build_connector(instance, settings) as connector:
            probe = await connector.probe()
    except TimeoutError:
        return Finding(check="endpoint", level="bad", message=f"{name}: no answer within {PROBE_MOST:g} s")
    good = probe.state in GOOD_STATES
    return Finding(
        check="endpoint",
        level="ok" if good else "bad",
        message=f"{name}: {probe.state}{f' ({probe.message})' if probe.message else ''}",
        advice="" if good else "start the service there, or correct its url in hostler.toml",
    )
