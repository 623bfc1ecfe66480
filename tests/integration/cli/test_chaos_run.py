"""`hostler chaos run`: a rig of real processes that is broken, judges itself, and leaves nothing behind."""

import json
import os
import signal
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from hostler.chaos.kinds import KINDS
from hostler.chaos.reading import read_history
from hostler.chaos.record import Fault
from hostler.chaos.scenarios import SCENARIOS
from hostler.testing.eventually import eventually
from hostler.testing.programs import ended

from .conftest import Ran, Shell

LAST_LINE = ("verdict", "submitted", "lost", "recorded_twice", "executed_again", "faults", "recovery_s", "violations")


def left_by(ran: Ran) -> list[int]:
    return [line["pid"] for line in ran.lines if line.get("event") == "started" and not ended(line["pid"])]


@pytest.mark.timeout(300)
@pytest.mark.row("002:276", "001:385")
def test_a_broken_rig_loses_nothing_records_nothing_twice_and_its_history_says_so_again(shell: Shell) -> None:
    ran = shell.run("chaos", "run", "--seed", "4", "--seconds", "20", "--out", "kept", "--json", within=290)
    assert ran.code == 0, ran.out[-3000:] + ran.err[-3000:]
    told = ran.last
    assert tuple(told)[: len(LAST_LINE)] == LAST_LINE
    assert (told["verdict"], told["lost"], told["recorded_twice"], told["violations"]) == ("ok", 0, 0, [])
    assert told["submitted"] > 120
    assert told["faults"]["poison"] >= 3
    assert len(set(told["faults"]) & {kind.value for kind in KINDS}) >= 1
    assert 0 < told["recovery_s"]["p50"] <= told["recovery_s"]["max"] < 45
    assert told["ended"]["dead"] >= 1
    assert set(told["ended"]) <= {"succeeded", "dead", "cancelled", "expired"}
    assert sum(told["ended"].values()) >= told["submitted"]
    assert left_by(ran) == []

    kept = shell.folder / "kept"
    assert "seed 4: ok" in (kept / "report.md").read_text()
    report = json.loads((kept / "report.json").read_text())
    assert report["outcome"] == told
    words = {ruling["invariant"]: ruling["verdict"] for ruling in report["report"]["rulings"]}
    assert {name for name, word in words.items() if word != "held"} <= {"L5"}, words
    heard = next(line for line in ran.lines if line.get("event") == "heard")
    assert (heard["missed"], heard["gone"]) == (0, 0)
    assert told["pauses"] == 1
    assert heard["connections"] > 2 * heard["readers"] > 60
    again = shell.run("chaos", "check", "kept", "--json", within=60)
    assert (again.code, again.last["verdict"], again.last["faults"]) == (0, "held", told["faults"])


def heed_interrupts() -> None:
    """Undo what a shell sets for programs in its background, and what they would inherit: SIGINT is ignored there."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextmanager
def running(shell: Shell, *arguments: str) -> Generator[tuple[subprocess.Popen[str], Path]]:
    log = shell.folder / "run.log"
    with log.open("w") as out:
        process = subprocess.Popen(
            shell.command("chaos", "run", "--json", *arguments), cwd=shell.folder, env=shell.environment, stdout=out,
            stderr=subprocess.DEVNULL, text=True, preexec_fn=heed_interrupts,  # noqa: PLW1509 - one call, no locks
        )  # fmt: skip
        try:
            yield process, log
        finally:
            process.kill()
            process.wait(10)


def said(log: Path, event: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.endswith("}")]
    return [line for line in lines if line.get("event") == event]


@pytest.mark.timeout(150)
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
async def test_nothing_outlives_a_run_that_is_ended_in_the_middle(shell: Shell, how: signal.Signals) -> None:
    """Even a child that the rig had frozen ends with it."""
    with running(shell, "--scenario", "three-jobs", "--seconds", "300") as (process, log):
        await eventually(lambda: said(log, "ready"), within=90, every=0.2)
        pids = [line["pid"] for line in said(log, "started")]
        frozen = next(line["pid"] for line in said(log, "started") if line["name"] == "worker-1")
        os.kill(frozen, signal.SIGSTOP)
        os.kill(process.pid, how)
        await eventually(lambda: process.poll() is not None, within=30, every=0.1)
        await eventually(lambda: all(ended(pid) for pid in pids), within=20, every=0.1)


def test_an_unknown_scenario_names_all_and_wrong_numbers_are_wrong_usage(shell: Shell) -> None:
    ran = shell.run("chaos", "run", "--scenario", "no-such")
    assert ran.code == 2
    assert all(name in ran.err for name in SCENARIOS)
    assert shell.run("chaos", "run", "--seconds", "1").code == 2
    assert shell.run("chaos", "run", "--runs", "0").code == 2


@pytest.mark.long
@pytest.mark.timeout(400)
def test_several_runs_leave_a_history_each_and_end_with_what_they_came_to_together(shell: Shell) -> None:
    words = ("--scenario", "three-jobs", "--seed", "5", "--seconds", "6", "--runs", "2")
    ran = shell.run("chaos", "run", *words, "--out", "kept", "--json", within=380)
    assert ran.code == 0, ran.out[-3000:] + ran.err[-3000:]
    each = [line for line in ran.lines if line.get("event") == "run"]
    assert [line["seed"] for line in each] == ran.last["seeds"] == [5, 6]
    assert ran.last["submitted"] == sum(line["submitted"] for line in each)
    assert (ran.last["verdict"], ran.last["runs"], ran.last["lost"]) == ("ok", 2, 0)
    for seed in (5, 6):
        assert shell.run("chaos", "check", f"kept/seed-{seed}", "--json", within=60).code == 0
    assert json.loads((shell.folder / "kept" / "series.json").read_text()) == ran.last
    assert left_by(ran) == []


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.row("001:386")
@pytest.mark.parametrize("scenario", list(SCENARIOS))
def test_every_scenario_shows_what_it_must(shell: Shell, scenario: str) -> None:
    ran = shell.run("chaos", "run", "--scenario", scenario, "--seed", "1", "--out", "kept", "--json", within=580)
    assert ran.code == 0, ran.out[-3000:] + ran.err[-3000:]
    told = ran.last
    assert (told["verdict"], told["lost"], told["recorded_twice"], told["violations"]) == ("ok", 0, 0, [])
    assert told["submitted"] >= 200
    assert len(set(told["faults"]) - {"poison", "ended"}) >= 3
    assert (told["failover_s"]["max"] or 0) < 10
    assert (told["failover_s"]["max"] is not None) == (scenario == "fail-over")
    assert (told["pauses"] > 0) == bool(SCENARIOS[scenario].pauses)
    faults = [line for line in read_history(shell.folder / "kept").lines if isinstance(line, Fault)]
    stops = [fault for fault in faults if fault.kind == "primary_stop"]
    assert [len(fault.loses) for fault in stops] == [1 + ("now it is the one" in fault.how) for fault in stops]
    assert left_by(ran) == []
