"""`hostler sim websocket`: the simulated service over WebSockets."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from hostler.cli.flags import Common, Tethered
from hostler.cli.sim_flags import KnobFlags
from hostler.cli.sim_run import run
from hostler.kernel.spec import CONVENTIONAL_PORTS
from hostler.testing.sims.websocket import SimulationWebsocketService


async def websocket(
    *,
    port: Annotated[int, Parameter(help="Port on 127.0.0.1; 0 takes any free one.")] = CONVENTIONAL_PORTS[
        "simulation-websocket"
    ],
    effects: Annotated[Path | None, Parameter(help="File for the log of effects; in memory unless given.")] = None,
    knobs: KnobFlags = KnobFlags(),
    tethered: Tethered = False,
    common: Common = Common(),
) -> int:
    """Simulate an image service over WebSockets."""
    service = SimulationWebsocketService(knobs.knobs("websocket"), port=port, effects=effects)
    return await run(service, port=port, tethered=tethered, json=common.json)
