"""`hostler sim comfyui`: a simulated ComfyUI, its API and its socket, in the dialect of either age."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from hostler.cli.flags import Common, Tethered
from hostler.cli.sim_run import judged, run, shares
from hostler.kernel.spec import CONVENTIONAL_PORTS
from hostler.testing.sims.comfyui import ComfyuiService
from hostler.testing.sims.comfyui_knobs import COMFYUI_FAILURES, ComfyuiKnobs, Dialect


async def comfyui(
    *,
    port: Annotated[int, Parameter(help="Port on 127.0.0.1; 0 takes any free one.")] = CONVENTIONAL_PORTS["comfyui"],
    effects: Annotated[Path | None, Parameter(help="File for the log of effects; in memory unless given.")] = None,
    dialect: Annotated[Dialect | None, Parameter(help="Age of the server: new, or old as in 2024.")] = None,
    duration: Annotated[float | None, Parameter(help="Seconds that the number of steps below takes.")] = None,
    steps: Annotated[int | None, Parameter(help="Steps of a sampler that take that long.")] = None,
    load: Annotated[float | None, Parameter(help="Seconds that it takes to load a checkpoint.")] = None,
    model: Annotated[tuple[str, ...], Parameter(help="Checkpoints that it has.", negative="")] = (),
    fail: Annotated[
        tuple[str, ...],
        Parameter(help=f"CODE=SHARE of prompts that fail: {', '.join(COMFYUI_FAILURES)}.", negative=""),
    ] = (),
    hang: Annotated[float | None, Parameter(help="Share of prompts that stop moving until interrupted.")] = None,
    missed: Annotated[float | None, Parameter(help="Share of prompts whose end is not said, only in history.")] = None,
    drop: Annotated[float | None, Parameter(help="Share of prompts whose socket is cut.")] = None,
    swallow: Annotated[float | None, Parameter(help="Share of submits whose answer is lost.")] = None,
    burst: Annotated[float | None, Parameter(help="Share of requests that begin a burst of server errors.")] = None,
    burst_length: Annotated[int | None, Parameter(help="Requests in one burst.")] = None,
    health_failures: Annotated[float | None, Parameter(help="Share of health checks that fail.")] = None,
    image_bytes: Annotated[int | None, Parameter(help="Least size of a picture.")] = None,
    seed: Annotated[int | None, Parameter(help="One seed gives one story.")] = None,
    tethered: Tethered = False,
    common: Common = Common(),
) -> int:
    """Simulate ComfyUI: graphs of nodes without a GPU, one at a time, with progress, previews and history."""
    knobs: dict[str, object] = {
        "dialect": dialect,
        "duration": duration,
        "steps": steps,
        "load": load,
        "models": model or None,
        "failures": shares("--fail", fail),
        "hang_rate": hang,
        "missed_rate": missed,
        "drop_rate": drop,
        "swallow_rate": swallow,
        "burst_rate": burst,
        "burst_length": burst_length,
        "health_failure_rate": health_failures,
        "image_bytes": image_bytes,
        "seed": seed,
    }
    service = ComfyuiService(judged("comfyui", knobs, ComfyuiKnobs), port=port, effects=effects)
    return await run(service, port=port, tethered=tethered, json=common.json)
