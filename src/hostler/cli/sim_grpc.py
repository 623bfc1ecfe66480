"""`hostler sim grpc`: the simulated service over gRPC."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from hostler.cli.flags import Common, Tethered
from hostler.cli.sim_flags import KnobFlags
from hostler.cli.sim_run import run
from hostler.connectors.transports.protobuf import extra
from hostler.kernel.spec import CONVENTIONAL_PORTS


async def grpc(
    *,
    port: Annotated[int, Parameter(help="Port on 127.0.0.1; 0 takes any free one.")] = CONVENTIONAL_PORTS[
        "simulation-grpc"
    ],
    effects: Annotated[Path | None, Parameter(help="File for the log of effects; in memory unless given.")] = None,
    knobs: KnobFlags = KnobFlags(),
    tethered: Tethered = False,
    common: Common = Common(),
) -> int:
    """Simulate an image service over gRPC."""
    extra("grpc.aio")
    from hostler.testing.sims.grpc import SimulationGRPCService

    service = SimulationGRPCService(knobs.knobs("grpc"), port=port, effects=effects)
    return await run(service, port=port, json=common.json, tethered=tethered)
