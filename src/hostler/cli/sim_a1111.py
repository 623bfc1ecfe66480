"""`hostler sim a1111`: a simulated web UI of AUTOMATIC1111, as its API clients see it."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from hostler.cli.flags import Common, Tethered
from hostler.cli.sim_run import judged, run, shares
from hostler.kernel.spec import CONVENTIONAL_PORTS
from hostler.testing.sims.a1111 import A1111Service
from hostler.testing.sims.a1111_work import FAILURES, A1111Knobs


async def a1111(
    *,
    port: Annotated[int, Parameter(help="Port on 127.0.0.1; 0 takes any free one.")] = CONVENTIONAL_PORTS["a1111"],
    effects: Annotated[Path | None, Parameter(help="File for the log of effects; in memory unless given.")] = None,
    duration: Annotated[float | None, Parameter(help="Seconds that a run takes, whatever its steps.")] = None,
    load: Annotated[float | None, Parameter(help="Seconds that it takes to load another checkpoint.")] = None,
    model: Annotated[tuple[str, ...], Parameter(help="Checkpoints that it has.", negative="")] = (),
    fail: Annotated[
        tuple[str, ...], Parameter(help=f"NAME=SHARE of runs that fail: {', '.join(FAILURES)}.", negative="")
    ] = (),
    hang: Annotated[float | None, Parameter(help="Share of runs that stop moving until interrupted.")] = None,
    drop: Annotated[float | None, Parameter(help="Share of requests whose connection is cut.")] = None,
    burst: Annotated[float | None, Parameter(help="Share of requests that begin a burst of server errors.")] = None,
    burst_length: Annotated[int | None, Parameter(help="Requests in one burst.")] = None,
    gpu_lost: Annotated[float | None, Parameter(help="Share of looks at the memory that find no GPU.")] = None,
    webui: Annotated[bool, Parameter(negative="--nowebui", help="Without it /internal is not served.")] = True,
    api_auth: Annotated[str | None, Parameter(help="user:password that /sdapi asks for.")] = None,
    seed: Annotated[int | None, Parameter(help="One seed gives one story.")] = None,
    tethered: Tethered = False,
    common: Common = Common(),
) -> int:
    """Simulate the web UI's API: pictures from words and pictures, progress, interrupt, checkpoints."""
    knobs: dict[str, object] = {
        "duration": duration,
        "load": load,
        "models": model or None,
        "failures": shares("--fail", fail),
        "hang_rate": hang,
        "drop_rate": drop,
        "burst_rate": burst,
        "burst_length": burst_length,
        "gpu_lost_rate": gpu_lost,
        "webui": webui,
        "auth": api_auth,
        "seed": seed,
    }
    service = A1111Service(judged("a1111", knobs, A1111Knobs), port=port, effects=effects)
    return await run(service, port=port, tethered=tethered, json=common.json)
