"""`hostler sim ollama`: a simulated Ollama."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from hostler.cli.flags import Common, Tethered
from hostler.cli.sim_run import judged, run, shares
from hostler.kernel.spec import CONVENTIONAL_PORTS
from hostler.testing.sims.ollama import OllamaHTTPService
from hostler.testing.sims.ollama_knobs import TROUBLES, OllamaKnobs


async def ollama(
    *,
    port: Annotated[int, Parameter(help="Port on 127.0.0.1; 0 takes any free one.")] = CONVENTIONAL_PORTS["ollama"],
    effects: Annotated[Path | None, Parameter(help="File for the log of effects; in memory unless given.")] = None,
    model: Annotated[tuple[str, ...], Parameter(help="Models that are installed.", negative="")] = (),
    embedder: Annotated[tuple[str, ...], Parameter(help="Models that embed and do no more.", negative="")] = (),
    library: Annotated[tuple[str, ...], Parameter(help="Models that can be pulled.", negative="")] = (),
    load: Annotated[float | None, Parameter(help="Seconds that it takes to load a model.")] = None,
    first_token: Annotated[float | None, Parameter(help="Seconds to the first token.")] = None,
    token: Annotated[float | None, Parameter(help="Seconds between tokens.")] = None,
    tokens: Annotated[int | None, Parameter(help="Tokens of an answer.")] = None,
    pull: Annotated[float | None, Parameter(help="Seconds that a pull takes.")] = None,
    size: Annotated[int | None, Parameter(help="Bytes of each model.")] = None,
    gpu_memory: Annotated[int | None, Parameter(help="Bytes that models share.")] = None,
    parallel: Annotated[int | None, Parameter(help="Requests of one model at a time.")] = None,
    backlog: Annotated[int | None, Parameter(help="Requests that may wait.")] = None,
    keep_alive: Annotated[float | None, Parameter(help="Seconds that an idle model stays in memory.")] = None,
    fail: Annotated[
        tuple[str, ...],
        Parameter(help=f"TROUBLE=SHARE of requests that meet it: {', '.join(TROUBLES)}.", negative=""),
    ] = (),
    health_failures: Annotated[float | None, Parameter(help="Share of health checks that fail.")] = None,
    seed: Annotated[int | None, Parameter(help="One seed gives one story.")] = None,
    tethered: Tethered = False,
    common: Common = Common(),
) -> int:
    """Simulate Ollama: chat, generate, embed, pull, and models that come and go in memory."""
    knobs: dict[str, object] = {
        "models": model or None,
        "embedders": embedder or None,
        "library": library or None,
        "load": load,
        "first_token": first_token,
        "token": token,
        "tokens": tokens,
        "pull": pull,
        "size": size,
        "gpu_memory": gpu_memory,
        "parallel": parallel,
        "backlog": backlog,
        "keep_alive": keep_alive,
        "failures": shares("--fail", fail),
        "health_failure_rate": health_failures,
        "seed": seed,
    }
    service = OllamaHTTPService(judged("ollama", knobs, OllamaKnobs), port=port, effects=effects)
    return await run(service, port=port, tethered=tethered, json=common.json)
