"""`hostler chaos soak`: a rig under steady load for as long as wanted, and what drifts meanwhile."""

import asyncio
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
from cyclopts import Parameter

from hostler.chaos.drift import Drift, Unit
from hostler.chaos.schedule import LEAST, MOST
from hostler.cli.flags import Common
from hostler.cli.output import FAILED, OK, Out
from hostler.cli.rig.command import SEED_MOST, folder_for, short_folder
from hostler.cli.rig.meter import measurable
from hostler.cli.rig.soak import Soak, soak
from hostler.kernel.errors import HostlerError, SettingsError
from hostler.kernel.settings import LogSettings
from hostler.kernel.units import Seconds
from hostler.telemetry.logs import configure

RATE: Final = 8.0
RATE_MOST: Final = 200.0
MEGA: Final = 1e6


async def command(
    *,
    seconds: Annotated[Seconds, Parameter(help="How long work comes; what was kept is waited for after it.")] = 600.0,
    rate: Annotated[float, Parameter(help="Jobs a second.")] = RATE,
    seed: Annotated[int, Parameter(help="One seed gives one load.")] = 1,
    out: Annotated[Path | None, Parameter(help="Folder for samples and report; a new one here unless given.")] = None,
    common: Common = Common(),
) -> int:
    """Load a rig of real processes on this machine, and show what drifts: memory, keys, files, latency.

    At the end nothing may be left but what lasts. The exit code is the verdict.
    """
    say = Out(json=common.json)
    configure(LogSettings(level="error"), role="soak")
    if not LEAST <= seconds <= MOST:
        raise SettingsError(f"--seconds: expected {LEAST:g} to {MOST:g}, got {seconds:g}", problems=())
    if not 0 < rate <= RATE_MOST:
        raise SettingsError(
            f"--rate: expected more than 0 and at most {RATE_MOST:g} a second, got {rate:g}", problems=()
        )
    if not 0 <= seed < SEED_MOST:
        raise SettingsError(f"--seed: expected 0 to {SEED_MOST - 1}, got {seed}", problems=())
    target = out or Path(f"soak-{seed}-{uuid.uuid4().hex[:6]}")
    samples = target / "samples.ndjson"
    await asyncio.to_thread(folder_for, target)
    folder = await asyncio.to_thread(short_folder)
    if (why := measurable()) is not None:
        say.say(why)
    say.answer({"event": "begin", "seed": seed, "seconds": seconds, "folder": str(target)}, f"samples go to {samples}")
    run = uuid.uuid4().hex[:8]

    def told(event: Mapping[str, Any]) -> None:
        _tell(say, event)

    try:
        found = await soak(folder, samples, seed=seed, seconds=seconds, rate=rate, run=run, report=told)
    except asyncio.CancelledError:
        shutil.rmtree(folder, ignore_errors=True)  # nobody waits any more
        raise
    except HostlerError as error:
        raise type(error)(f"{error.message} The rig's logs are in {folder}.", **error.facts) from error
    verdict = "failed" if found.violations else "ok"
    document = {"verdict": verdict, **msgspec.to_builtins(found), "unavailable": why, "folder": str(target)}
    await asyncio.to_thread((target / "report.json").write_bytes, msgspec.json.format(msgspec.json.encode(document)))
    _conclude(say, found, document)
    if found.violations:
        say.say(f"logs: {folder}")
        return FAILED
    await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
    return OK


def _tell(say: Out, event: Mapping[str, Any]) -> None:
    words = " ".join(f"{name} {value}" for name, value in event.items() if name != "event" and value != "")
    say.answer(event, f"{event['event']:<8} {words}")


def _conclude(say: Out, found: Soak, document: Mapping[str, Any]) -> None:
    if say.json:
        say.document(document)
        return
    columns = ("measure", "second quarter", "last quarter", "per hour", "may grow by", "")
    rows = [(one.name, *_figures(one), "GREW" if one.grew else "") for one in found.drift]
    say.table(columns, rows, empty="too short a run: no measure was taken often enough to see it drift")
    for sentence in found.violations:
        say.say(f"FAILED: {sentence}")
    left = ", ".join(f"{life} {number}" for life, number in sorted(found.keys_left.items()))
    say.say(
        f"verdict: {document['verdict']}  submitted {found.submitted}  lost {found.lost}  "
        f"keys left: {left}  report: {document['folder']}/report.json"
    )


def _figures(drift: Drift) -> tuple[str, str, str, str]:
    values = (drift.early, drift.late, drift.per_hour, drift.allowed)
    if drift.unit is Unit.BYTES:
        before, after, hourly, allowed = (f"{value / MEGA:.1f} MB" for value in values)
    elif drift.unit is Unit.SECONDS:
        before, after, hourly, allowed = (f"{value * 1000:.0f} ms" for value in values)
    else:
        before, after, hourly, allowed = (f"{value:.0f}" for value in values)
    return before, after, hourly, allowed
