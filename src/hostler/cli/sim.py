"""`hostler sim`: simulated AI services, each like the real thing from outside."""

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from hostler.cli.flags import Common, Tethered
from hostler.cli.sim_flags import KnobFlags
from hostler.cli.sim_run import run
from hostler.kernel.spec import CONVENTIONAL_PORTS
from hostler.testing.sims.http import SimulationHTTPService

sim = App(name="sim", help="Run a simulated AI service, with its own knobs and a log of what it really did.")
sim.command("hostler.cli.sim_ollama:ollama", name="ollama", help="Simulate Ollama.")
sim.command("hostler.cli.sim_a1111:a1111", name="a1111", help="Simulate the web UI of AUTOMATIC1111 over HTTP.")
sim.command("hostler.cli.sim_grpc:grpc", name="grpc", help="Simulate an image service over gRPC.")
sim.command("hostler.cli.sim_comfyui:comfyui", name="comfyui", help="Simulate ComfyUI, its API and its socket.")
sim.command("hostler.cli.sim_websocket:websocket", name="websocket", help="Simulate an image service over WebSockets.")


@sim.command(name="http")
async def http(
    *,
    port: Annotated[int, Parameter(help="Port on 127.0.0.1; 0 takes any free one.")] = CONVENTIONAL_PORTS["simulation"],
    effects: Annotated[Path | None, Parameter(help="File for the log of effects; in memory unless given.")] = None,
    knobs: KnobFlags = KnobFlags(),
    tethered: Tethered = False,
    common: Common = Common(),
) -> int:
    """Simulate an image service over HTTP."""
    service = SimulationHTTPService(knobs.knobs("http"), port=port, effects=effects)
    return await run(service, port=port, tethered=tethered, json=common.json)
