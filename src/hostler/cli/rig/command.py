"""`hostler chaos run`: starts a rig, breaks it by a seeded schedule, and ends with a verdict."""

import asyncio
import shutil
import tempfile
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
from cyclopts import Parameter

from hostler.chaos.kinds import Kind
from hostler.chaos.load import Group
from hostler.chaos.load import plan as plan_load
from hostler.chaos.outcome import Outcome, facts_of, outcome_of
from hostler.chaos.reading import read_history
from hostler.chaos.report import markdown
from hostler.chaos.scenarios import SCENARIOS, Scenario
from hostler.chaos.schedule import LEAST, MOST, SHORT, plan_pauses
from hostler.chaos.schedule import plan as plan_faults
from hostler.chaos.series import Series, Times, series_of, times_of
from hostler.cli.flags import Common
from hostler.cli.output import FAILED, OK, Out
from hostler.cli.rig.faults import unable
from hostler.cli.rig.run import Play, perform
from hostler.cli.rig.stage import Cast, targets
from hostler.kernel.errors import HostlerError, SettingsError
from hostler.kernel.settings import LogSettings
from hostler.kernel.units import Seconds
from hostler.telemetry.logs import configure
from hostler.worker.system import SystemClock

JOBS_LEAST: Final = 200
"""Of a run of 30 s or more."""
SEED_MOST: Final = 2**32
RUNS_MOST: Final = 1000


async def run(
    *,
    scenario: Annotated[str, Parameter(help="What to play; an unknown name lists all.")] = "mixed",
    seed: Annotated[int, Parameter(help="One seed gives one load and one schedule of faults.")] = 1,
    runs: Annotated[int, Parameter(help="So many runs, of this seed and those after it; the end is of all.")] = 1,
    engine: Annotated[
        Literal["alone", "sentinel"] | None,
        Parameter(help="One server alone, or a primary, two replicas and three sentinels; as the scenario says."),
    ] = None,
    seconds: Annotated[float | None, Parameter(help="How long work comes and things break; a drain follows.")] = None,
    out: Annotated[Path | None, Parameter(help="Folder for history and report; a new one here unless given.")] = None,
    common: Common = Common(),
) -> int:
    """Break a rig of real processes on this machine, and judge it: nothing lost, nothing recorded twice.

    The exit code is the verdict. The rig's own files stay where they are after a failure.
    """
    say = Out(json=common.json)
    configure(LogSettings(level="error"), role="chaos")
    chosen = _scenario(scenario)
    length = chosen.seconds if seconds is None else seconds
    if not LEAST <= length <= MOST:
        raise SettingsError(f"--seconds: expected {LEAST:g} to {MOST:g}, got {length:g}", problems=())
    if not 0 <= seed < SEED_MOST:
        raise SettingsError(f"--seed: expected 0 to {SEED_MOST - 1}, got {seed}", problems=())
    if not 1 <= runs <= RUNS_MOST:
        raise SettingsError(f"--runs: expected 1 to {RUNS_MOST}, got {runs}", problems=())
    unavailable = {kind: why for kind, why in (await asyncio.to_thread(unable)).items() if kind in chosen.kinds}
    watched = (engine or chosen.engine) == "sentinel"
    target = out or Path(f"chaos-{scenario}-{seed}-{uuid.uuid4().hex[:6]}")
    words = f"--seconds {length:g}" + (f" --engine {engine}" if engine else "")
    ended: list[tuple[Outcome, Times]] = []
    for number in range(seed, seed + runs):
        play = _play(chosen, seed=number, seconds=length, without=unavailable, watched=watched)
        place = target if runs == 1 else target / f"seed-{number}"
        ended.append(await _one(say, chosen, play, place, unavailable, words, alone=runs == 1))
    outcomes, times = [outcome for outcome, _ in ended], [each for _, each in ended]
    if runs > 1:
        await asyncio.to_thread(_conclude_all, say, series_of(outcomes, times, folder=str(target)), target)
    return OK if all(outcome.verdict == "ok" for outcome in outcomes) else FAILED


async def _one(  # noqa: PLR0917 - what one run needs
    say: Out, chosen: Scenario, play: Play, target: Path, unavailable: Mapping[Kind, str], words: str, *, alone: bool
) -> tuple[Outcome, Times]:
    """Play one run, judge it, and say what it came to: at the end unless it is one of several."""
    await asyncio.to_thread(folder_for, target)
    folder = await asyncio.to_thread(short_folder)
    _begin(say, play, target, unavailable)
    try:
        history = await perform(play, folder, target, SystemClock(), lambda event: _report(say, event))
    except asyncio.CancelledError:
        shutil.rmtree(folder, ignore_errors=True)  # nobody waits any more, and nothing of it is asked for
        raise
    except HostlerError as error:
        raise type(error)(f"{error.message} The rig's logs are in {folder}.", **error.facts) from error
    command = f"hostler chaos run --scenario {chosen.name} --seed {play.seed} {words}"
    outcome, times = await asyncio.to_thread(_judged, chosen, history, unavailable, command)
    _conclude(say, outcome, folder, last=alone)
    if outcome.verdict == "ok":
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
    return outcome, times


def _scenario(name: str) -> Scenario:
    chosen = SCENARIOS.get(name)
    if chosen is None:
        known = "; ".join(f"{one.name} ({one.about})" for one in SCENARIOS.values())
        raise SettingsError(f"--scenario: there is no {name!r}; there are {known}", problems=())
    return chosen


def _play(scenario: Scenario, *, seed: int, seconds: Seconds, without: Iterable[Kind], watched: bool) -> Play:
    kinds = [kind for kind in scenario.kinds if kind not in without]
    cast = Cast(
        slots=scenario.slots,
        knobs=scenario.knobs,
        watched=watched,
        small_disk=Kind.DISK_FULL in kinds,
        power_cut=Kind.POWER_CUT in kinds,
        faked_clock=Kind.CLOCK_JUMP in kinds,
        metered=Group.METERED in scenario.mix,
        depth=scenario.depth,
        level="debug",
    )
    jobs = round(scenario.rate * seconds) + scenario.poison + scenario.head
    load = plan_load(
        seed,
        jobs=max(JOBS_LEAST if seconds >= SHORT else 1, jobs),
        seconds=seconds,
        run=uuid.uuid4().hex[:8],
        mix=scenario.mix,
        poison=scenario.poison,
        head=scenario.head,
        waves=scenario.waves,
        duration=scenario.duration,
    )
    strikes = plan_faults(seed, seconds=seconds, targets=targets(cast), kinds=kinds, spacing=scenario.spacing)
    return Play(
        seed=seed,
        scenario=scenario.name,
        cast=cast,
        load=load,
        strikes=strikes,
        pauses=plan_pauses(seed, seconds=seconds, queues=scenario.pauses),
        bounds=scenario.bounds,
    )


def short_folder() -> Path:
    """Make a folder for what a rig needs itself: its engine's socket needs a short path."""
    return Path(tempfile.mkdtemp(prefix="hc-", dir="/tmp"))


def folder_for(folder: Path) -> None:
    """Make the folder of a run's report; `SettingsError` when it cannot be made, or is that of another run."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(f"--out: {folder} cannot be made ({error.strerror})", problems=()) from error
    if any(folder.glob("*.ndjson")):
        raise SettingsError(f"--out: {folder} holds a history already", problems=())


def _begin(say: Out, play: Play, target: Path, unavailable: Mapping[Kind, str]) -> None:
    for kind, why in unavailable.items():
        say.answer({"event": "unavailable", "kind": kind.value, "why": why}, f"{kind.value} is left out: {why}")
    told = {"jobs": len(play.load), "faults": len(play.strikes), "pauses": len(play.pauses)}
    say.answer(
        {"event": "begin", "scenario": play.scenario, "seed": play.seed, **told, "folder": str(target)},
        f"{play.scenario}, seed {play.seed}: {len(play.load)} submits, {len(play.strikes)} faults, "
        f"{len(play.pauses)} pauses; "
        f"history and report go to {target}",
    )


def _report(say: Out, event: Mapping[str, Any]) -> None:
    words = " ".join(f"{name} {value}" for name, value in event.items() if name != "event" and value != "")
    say.answer(event, f"{event['event']:<8} {words}")


def _judged(scenario: Scenario, history: Path, unavailable: Mapping[Kind, str], command: str) -> tuple[Outcome, Times]:
    """Judge a history, and write the reports beside it."""
    facts = facts_of(read_history(history))
    shown = [sentence for show in scenario.shows for sentence in show(facts)]
    left_out = {kind.value: why for kind, why in unavailable.items()}
    outcome = outcome_of(facts, shown, unavailable=left_out, folder=str(history.parent))
    whole = msgspec.json.encode({"outcome": outcome, "report": facts.report})
    (history.parent / "report.json").write_bytes(msgspec.json.format(whole) + b"\n")
    (history.parent / "report.md").write_text(markdown(outcome, facts, command=command))
    return outcome, times_of(facts)


def _conclude_all(say: Out, series: Series, target: Path) -> None:
    (target / "series.json").write_bytes(msgspec.json.format(msgspec.json.encode(series)) + b"\n")
    if say.json:
        say.document(series)
        return
    recovery = series.recovery_s
    shown = "none" if recovery.max is None else f"{recovery.p50:g} / {recovery.p99:g} / {recovery.max:g}"
    say.say(
        f"{series.runs} runs: {series.verdict}  submitted {series.submitted}  lost {series.lost}"
        f"  recorded_twice {series.recorded_twice}  executed_again {series.executed_again}"
        f"  recovery_s p50/p99/max {shown} of {recovery.count} jobs  report: {series.folder}/series.json"
    )


def _conclude(say: Out, outcome: Outcome, folder: Path, *, last: bool) -> None:
    if say.json:
        say.document(outcome if last else {"event": "run", **msgspec.to_builtins(outcome)})
        return
    for sentence in outcome.violations:
        say.say(f"FAILED: {sentence}")
    if outcome.verdict != "ok":
        say.say(f"logs: {folder}")
    recovery = outcome.recovery_s
    shown = "none" if recovery.max is None else f"{recovery.p50:g} / {recovery.p99:g} / {recovery.max:g}"
    faults = ", ".join(f"{kind} {number}" for kind, number in outcome.faults.items()) or "none"
    say.say(
        f"verdict: {outcome.verdict}  submitted {outcome.submitted}  lost {outcome.lost}"
        f"  recorded_twice {outcome.recorded_twice}  executed_again {outcome.executed_again}"
        f"  recovery_s p50/p99/max {shown}  faults: {faults}  report: {outcome.folder}/report.md"
    )
