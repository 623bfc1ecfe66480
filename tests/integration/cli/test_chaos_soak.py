"""`hostler chaos soak`: a rig under steady load, what drifts, and what is left of it."""

import json
import mmap
import os
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from hostler.chaos.leftovers import left
from hostler.cli.rig.meter import open_files, resident
from hostler.valkeyio.engine import Engine

from .conftest import Shell

LAST_LINE = ("verdict", "seconds", "submitted", "lost", "ended", "drift", "keys_left", "violations")


@pytest.mark.timeout(200)
def test_a_rig_under_load_keeps_its_size_and_is_left_with_what_lasts(shell: Shell) -> None:
    ran = shell.run("chaos", "soak", "--seconds", "10", "--rate", "10", "--out", "kept", "--json", within=190)
    assert ran.code in {0, 1}, ran.err[-3000:]
    told: dict[str, Any] = ran.last
    assert told["violations"] == []
    assert ran.code == 0
    assert tuple(told)[: len(LAST_LINE)] == LAST_LINE
    assert (told["verdict"], told["lost"], told["violations"]) == ("ok", 0, [])
    assert told["submitted"] > 80
    assert sum(told["ended"].values()) == told["submitted"]
    measured = {one["name"]: one for one in told["drift"]}
    for part in ("gateway-1", "gateway-2", "worker-1", "worker-2", "worker-3", "engine"):
        assert measured[f"{part}'s memory"]["early"] > 1e6
        assert measured[f"{part}'s files"]["early"] > 5
    assert {"engine's data", "keys: job"} <= set(measured)
    assert "keys: timed" not in measured  # answers are kept for longer than this run: they rise with every job
    assert set(told["keys_left"]) <= {"queue", "registry", "class", "lane", "idle", "timed"}

    lines = (shell.folder / "kept" / "samples.ndjson").read_text().splitlines()
    assert [json.loads(line)["at"] for line in lines] == sorted(json.loads(line)["at"] for line in lines)
    assert len(lines) >= measured["keys: job"]["samples"] >= 8
    assert any("submit p99" in json.loads(line)["measures"] for line in lines)
    assert json.loads((shell.folder / "kept" / "report.json").read_text()) == told


async def test_a_key_that_outlives_its_declared_life_is_named(engine: Engine) -> None:
    await engine.command("SET", "h:{q}:op:1", "an answer", "PX", 60_000)
    await engine.command("HSET", "h:{q}:meta", "off", "1")
    assert await left(engine, within=0.0) == ({"timed": 1, "queue": 1}, ())
    late = {"h:{q}:op:2": "has no end", "h:{q}:j:7": "is still there", "h:{q}:nonsense": "is of no declared family"}
    for key in late:
        await engine.command("SET", key, "x")
    counts, sentences = await left(engine, within=0.0)
    assert counts == {"timed": 2, "queue": 1, "job": 1, "leaked": 1}
    assert {sentence.partition(" ")[0]: sentence.partition(" ")[2].partition(" (")[0] for sentence in sentences} == late


def test_memory_and_open_files_of_a_process_are_what_it_really_has(tmp_path: Path) -> None:
    me = os.getpid()
    files, memory = open_files(me), resident(me)
    with ExitStack() as stack:
        for number in range(5):
            stack.enter_context((tmp_path / str(number)).open("w"))
        assert open_files(me) == files + 5
    assert open_files(me) == files
    ballast = mmap.mmap(-1, 64_000_000)
    for place in range(0, len(ballast), mmap.PAGESIZE):
        ballast[place] = 1
    assert resident(me) - memory > 50_000_000
    ballast.close()
