"""`hostler demo`: starts everything, submits a mixed load, kills a worker, and ends with a verdict."""

import asyncio
import contextlib
import shutil
import tempfile
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final

from cyclopts import Parameter

from hostler.cli.demo.load import Planned, plan
from hostler.cli.demo.run import Run
from hostler.cli.demo.screen import Screen
from hostler.cli.demo.stage import SIMULATORS, Stage
from hostler.cli.demo.verdict import Verdict
from hostler.cli.flags import Common
from hostler.cli.output import FAILED, OK, Out, console
from hostler.client import connect
from hostler.kernel.errors import HostlerError, SettingsError
from hostler.testing.llama import require_extra

JOBS_LEAST: Final = 20
JOBS_MOST: Final = 5_000


async def demo(
    *,
    jobs: Annotated[int, Parameter(help="Distinct jobs.")] = 300,
    seed: Annotated[int, Parameter(help="One seed gives one load, and one story of the simulated services.")] = 1,
    common: Common = Common(),
) -> int:
    """Run the main job on this machine and judge it: nothing lost, nothing recorded twice, a killed worker replaced.

    The exit code is the verdict. Everything lies in a temporary folder, which stays where it is after a failure.
    """
    if not JOBS_LEAST <= jobs <= JOBS_MOST:
        raise SettingsError(f"--jobs: expected {JOBS_LEAST} to {JOBS_MOST}, got {jobs}", problems=())
    out = Out(json=common.json)
    require_extra()
    folder = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="hostler-demo-", dir="/tmp"))  # noqa: S108 - a socket needs a short path
    load = plan(jobs, seed=seed, run=uuid.uuid4().hex[:8])
    out.answer(
        {"event": "begin", "seed": seed, "submits": len(load), "folder": str(folder)},
        f"seed {seed}: {len(load)} submits of {len({one.key for one in load})} jobs; everything lies in {folder}, "
        "which is removed when the verdict is ok",
    )
    began = time.monotonic()
    try:
        verdict = await _perform(out, folder, load, seed=seed, began=began)
    except HostlerError as error:
        raise type(error)(
            f"{error.message} The demo's logs are in {folder}.", **{**error.facts, "folder": str(folder)}
        ) from error
    _conclude(out, verdict, folder)
    if verdict.outcome != "ok":
        return FAILED
    await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
    return OK


async def _perform(out: Out, folder: Path, load: list[Planned], *, seed: int, began: float) -> Verdict:
    screen = Screen(console(stderr=out.json), total=len({one.key for one in load}))

    def report(event: Mapping[str, Any]) -> None:
        screen.process(event)
        if out.json:
            out.document(event)

    with contextlib.ExitStack() as shown:
        if not out.json:
            shown.enter_context(screen)
        screen.phase("starting: engine, gateway, 3 workers, 2 simulated services, llama.cpp")
        async with Stage(folder, report, seed=seed) as stage, connect(stage.url) as fleet:
            run = Run(stage, fleet, screen, report, began=began)
            return await run.perform(load)


def _conclude(out: Out, verdict: Verdict, folder: Path) -> None:
    if out.json:
        out.document(verdict)
        return
    for failure in verdict.failures:
        out.say(f"FAILED: {failure}")
    if verdict.failures:
        names = ", ".join(("gateway.log", "worker-N.log", *(f"{name}.effects.ndjson" for name in SIMULATORS)))
        out.say(f"logs: {folder} ({names}, data/engine.log)")
    recovery = "none" if verdict.max_recovery_s is None else f"{verdict.max_recovery_s:g}"
    out.say(
        f"verdict: {verdict.outcome}  submitted {verdict.submitted}  succeeded {verdict.succeeded}"
        f"  lost {verdict.lost}  recorded_twice {verdict.recorded_twice}  executed_again {verdict.executed_again}"
        f"  max_recovery_s {recovery}  (deduplicated {verdict.deduplicated}, cancelled {verdict.cancelled},"
        f" retried {verdict.retried}, struck {verdict.struck}, events {verdict.events}, effects {verdict.effects},"
        f" took {verdict.took_s:g} s)"
    )
    out.say(
        "executed_again: runs that began although an earlier one had not failed, as after a kill; each job is still"
        " recorded once. struck: jobs that the killed worker held. effects: lines of the services' own logs."
    )
