"""`hostler bench`: what this machine gives, and whether that is less than before."""

import asyncio
import os
import shutil
import tempfile
from pathlib import Path
from typing import Annotated, Final

import msgspec
from cyclopts import Parameter
from msgspec import Struct

from hostler.cli.bench.measure import BATCH, CALM, Figures, Machine, Run, busy, measure, read
from hostler.cli.flags import Common
from hostler.cli.output import FAILED, OK, Out
from hostler.kernel.errors import SettingsError
from hostler.kernel.settings import LogSettings
from hostler.kernel.units import Seconds
from hostler.kernel.version import __version__
from hostler.telemetry.logs import configure

LEAST, MOST = 1.0, 600.0
WORSE: Final = 0.2
"""Part by which a figure may be worse than before: machines that are shared differ by as much."""

_RATES: Final = ("submits_singly", "submits_batched", "drained")
_TIMES: Final = ("engine_us_submit", "engine_us_drain", "start_p50_ms", "start_p99_ms")


class Worse(Struct, frozen=True, kw_only=True):
    """A figure that is worse than before."""

    figure: str
    before: float
    now: float


async def command(
    *,
    seconds: Annotated[Seconds, Parameter(help="About how long it may take.")] = 20.0,
    compare: Annotated[Path | None, Parameter(help="What `--json` printed before: fail where that was better.")] = None,
    common: Common = Common(),
) -> int:
    """Measure submits, a worker and delays with an engine of this run's own, which syncs every write.

    Nothing of yours is touched. With `--compare` the exit code is 1 when a figure is more than a fifth worse.
    """
    say = Out(json=common.json)
    configure(LogSettings(level="error"), role="bench")
    if not LEAST <= seconds <= MOST:
        raise SettingsError(f"--seconds: expected {LEAST:g} to {MOST:g}, got {seconds:g}", problems=())
    before = None if compare is None else await asyncio.to_thread(_before, compare)
    folder = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="hb-"))
    load = busy()
    try:
        engine, figures = await measure(folder, seconds=seconds, tell=say.say)
    finally:
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
    run = Run(machine=Machine(cores=_cores(), load=load, engine=engine, version=__version__), figures=figures)
    worse = [] if before is None else slower(before.figures, figures)
    if say.json:
        say.document({**msgspec.to_builtins(run), "worse": msgspec.to_builtins(worse)})
    else:
        _show(say, run, worse)
    return FAILED if worse else OK


def slower(before: Figures, now: Figures) -> list[Worse]:
    """Return the figures that are worse than before by more than may be."""
    found: list[Worse] = []
    for name in (*_RATES, *_TIMES):
        was, is_ = float(getattr(before, name)), float(getattr(now, name))
        limit = was * (1 - WORSE) if name in _RATES else was / (1 - WORSE)
        if (is_ < limit) if name in _RATES else (is_ > limit):
            found.append(Worse(figure=name, before=was, now=is_))
    return found


def _before(path: Path) -> Run:
    try:
        return read(path.read_bytes())
    except OSError as error:
        raise SettingsError(f"--compare: {path} cannot be read ({error.strerror})", problems=()) from error
    except msgspec.MsgspecError as error:
        words = f"--compare: {path} is not what `hostler bench --json` prints ({error})"
        raise SettingsError(words, problems=()) from error


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _show(say: Out, run: Run, worse: list[Worse]) -> None:
    figures, machine = run.figures, run.machine
    rows = (
        ("submits, one awaited after the other", f"{figures.submits_singly:,.0f}/s"),
        (f"submits, {BATCH} at a time", f"{figures.submits_batched:,.0f}/s"),
        ("jobs through one worker process", f"{figures.drained:,.0f}/s"),
        (
            "inside the engine: submit, claim and settle",
            f"{figures.engine_us_submit:.0f} + {figures.engine_us_drain:.0f} us",
        ),
        ("so the engine alone could do", f"{figures.possible:,.0f} lives/s"),
        (
            f"submit to claim at {figures.paced:,.0f} jobs/s (1/{CALM})",
            f"p50 {figures.start_p50_ms:.1f} ms, p99 {figures.start_p99_ms:.1f} ms",
        ),
    )
    say.table(("what", "measured"), rows, empty="")
    say.say(f"{machine.cores} cores, load {machine.load:g} when it began, every write synced before its answer.")
    for one in worse:
        say.say(f"WORSE: {one.figure} is {one.now:,.1f}, it was {one.before:,.1f}")
