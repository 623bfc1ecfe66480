"""`hostler sim`: simulated AI services, each like the real thing from outside."""

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from hostler.cli.flags import Common, Tethered
from hostler.cli.sim_run import judged, run, shares
from hostler.testing.sims.http import SimulationHTTPService
from hostler.testing.sims.knobs import FAILURE_CODES, SimKnobs

sim = App(name="sim", help="Run a simulated AI service, with its own knobs and a log of what it really did.")
sim.command("hostler.cli.sim_ollama:ollama", name="ollama", help="Simulate Ollama.")
sim.command("hostler.cli.sim_a1111:a1111", name="a1111", help="Simulate the web UI of AUTOMATIC1111 over HTTP.")


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
    knobs: dict[str, object] = {
        "duration": duration,
        "steps": steps,
        "failures": shares("--fail", fail),
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
    service = SimulationHTTPService(judged("http", knobs, SimKnobs), port=port, effects=effects)
    return await run(service, port=port, tethered=tethered, json=common.json)
