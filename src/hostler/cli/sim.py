"""`hostler sim`: simulated AI services, each like the real thing from outside."""

import os
from pathlib import Path
from typing import Annotated, Any

import msgspec
from cyclopts import App, Parameter

from hostler.cli.children import stop_requested, tether
from hostler.cli.flags import Common, Tethered
from hostler.cli.output import OK, Out
from hostler.kernel.errors import AddressInUseError, SettingsError
from hostler.testing.sims.http import SimulationHTTPService
from hostler.testing.sims.knobs import FAILURE_CODES, SimKnobs

sim = App(name="sim", help="Run a simulated AI service, with its own knobs and a log of what it really did.")
sim.command("hostler.cli.sim_ollama:ollama", name="ollama", help="Simulate Ollama.")


@sim.command(name="http")
async def http(
    *,
    port: Annotated[int, Parameter(help="Port on 127.0.0.1; 0 takes any free one.")] = 8299,
    effects: Annotated[Path | None, Parameter(help="File for the log of effects; in memory unless given.")] = None,
    duration: Annotated[float | None, Parameter(help="Seconds that a run takes, unless its input says.")] = None,
    steps: Annotated[int | None, Parameter(help="Steps of a run.")] = None,
    fail: Annotated[
        tuple[str, ...],
        Parameter(help=f"CODE=SHARE of runs that fail: {', '.join(FAILURE_CODES)}.", negative=""),
    ] = (),
    hang: Annotated[float | None, Parameter(help="Share of runs that never end.")] = None,
    missed: Annotated[float | None, Parameter(help="Share of runs whose end is not said, only shown.")] = None,
    drop: Annotated[float | None, Parameter(help="Share of streams that are cut.")] = None,
    burst: Annotated[float | None, Parameter(help="Share of requests that begin a burst of server errors.")] = None,
    burst_length: Annotated[int | None, Parameter(help="Requests in one burst.")] = None,
    health_failures: Annotated[float | None, Parameter(help="Share of health checks that fail.")] = None,
    loading: Annotated[float | None, Parameter(help="Seconds that it says it loads.")] = None,
    slots: Annotated[int | None, Parameter(help="Runs at the same time.")] = None,
    backlog: Annotated[int | None, Parameter(help="Runs that may wait for a slot.")] = None,
    seed: Annotated[int | None, Parameter(help="One seed gives one story.")] = None,
    tethered: Tethered = False,
    common: Common = Common(),
) -> int:
    """Simulate an image service over HTTP."""
    knobs = {
        "duration": duration,
        "steps": steps,
        "failures": _shares(fail),
        "hang_rate": hang,
        "missed_rate": missed,
        "drop_rate": drop,
        "burst_rate": burst,
        "burst_length": burst_length,
        "health_failure_rate": health_failures,
        "loading": loading,
        "slots": slots,
        "backlog": backlog,
        "seed": seed,
    }
    out = Out(json=common.json)
    service = SimulationHTTPService(_judged(knobs), port=port, effects=effects)
    if tethered:
        tether()
    stop = await stop_requested()
    try:
        async with service:
            out.answer({"event": "ready", "url": service.url, "pid": os.getpid()}, f"ready: {service.url}")
            await stop.wait()
    except OSError as error:
        if service.url:
            raise
        raise AddressInUseError(f"port {port} cannot be used ({error.strerror}): name another with --port") from error
    out.answer({"event": "stopped", "effects": len(service.effects.effects)}, "stopped")
    return OK


def _shares(failures: tuple[str, ...]) -> dict[str, float]:
    shares: dict[str, float] = {}
    for failure in failures:
        code, _, share = failure.partition("=")
        try:
            shares[code] = float(share)
        except ValueError as error:
            raise SettingsError(f"--fail: expected CODE=SHARE, got {failure!r}", problems=()) from error
    return shares


def _judged(knobs: dict[str, Any]) -> SimKnobs:
    try:
        return msgspec.convert({name: value for name, value in knobs.items() if value is not None}, SimKnobs)
    except (msgspec.ValidationError, ValueError) as error:
        raise SettingsError(f"hostler sim http: {error}", problems=()) from error
