"""A queue that lives is judged by its own events, jobs and books, and a damaged one is found out."""

import asyncio
from pathlib import Path

from hostler.contracts.api import JobFilter
from hostler.contracts.job import JobState
from hostler.contracts.lease import Die
from hostler.contracts.queue import KindSpec, QueueSpec
from hostler.kernel.settings import EngineSettings
from hostler.testing.broker_house import TRANSIENT
from hostler.testing.front import Front
from hostler.valkeyio.engine import Engine
from hostler.valkeyio.keys import prefix

from .conftest import Shell

QUEUE = "images"


async def test_a_live_queue_is_judged_by_what_it_keeps(
    engine: Engine, engine_settings: EngineSettings, shell: Shell
) -> None:
    front = Front(engine)
    await front.foreman.declare_kind(KindSpec(name="draw", queue=QUEUE))
    await front.hire()
    for _ in range(4):
        await front.submit()
    first, second = await front.claim(2)
    await front.end(first)
    await front.end(second, Die(failure=TRANSIENT))
    asked = ("chaos", "check", "--queue", QUEUE, "--engine", str(engine_settings.url), "--json")
    kept = shell.folder / "kept.ndjson"

    whole = await asyncio.to_thread(shell.run, *asked, "--keep", str(kept))
    verdicts = {one["invariant"]: one["verdict"] for one in whole.last["rulings"]}
    assert (whole.code, whole.last["verdict"], whole.last["jobs"]) == (0, "held", 4), whole.err
    assert {name for name, word in verdicts.items() if word == "held"} >= {"S3", "S4", "S5", "S6", "S12", "S13"}
    assert (verdicts["S1"], verdicts["LIN"], verdicts["L1"]) == ("not judged",) * 3

    await engine.command("ZREM", f"{prefix(QUEUE)}dead", second.job_id.rpartition(".")[2])
    damaged = await asyncio.to_thread(shell.run, *asked)
    broken = [one["invariant"] for one in damaged.last["rulings"] if one["verdict"] == "broken"]
    assert (damaged.code, broken) == (1, ["S12"]), damaged.out

    again = await asyncio.to_thread(shell.run, "chaos", "check", str(kept), "--json")
    assert (again.code, again.last["verdict"]) == (0, "held")
    stranger = await asyncio.to_thread(
        shell.run, "chaos", "check", "--queue", "nowhere", "--engine", str(engine_settings.url)
    )
    assert (stranger.code, "no queue nowhere" in stranger.err) == (1, True)
    refused = await asyncio.to_thread(shell.run, *asked, "--keep", str(kept))
    assert (refused.code, Path(kept).exists()) == (2, True)
    await front.aclose()


async def test_a_live_queue_in_shards_is_judged_shard_by_shard(
    engine: Engine, engine_settings: EngineSettings, shell: Shell
) -> None:
    front = Front(engine)
    await front.foreman.declare_queue(QueueSpec(name=QUEUE, shards=3))
    await front.foreman.declare_kind(KindSpec(name="draw", queue=QUEUE))
    await front.hire()
    for number in range(12):
        await front.submit(concurrency_key=f"k{number}")
    ended = 0
    for number in range(3):
        for lease in await front.claim(2, queue=f"{QUEUE}~{number}"):
            await front.end(lease)
            ended += 1
    asked = ("chaos", "check", "--engine", str(engine_settings.url), "--json", "--queue")

    whole = await asyncio.to_thread(shell.run, *asked, QUEUE)
    verdicts = {one["invariant"]: one["verdict"] for one in whole.last["rulings"]}
    assert (whole.code, whole.last["verdict"], whole.last["jobs"]) == (0, "held", 12), whole.err
    assert {name for name, word in verdicts.items() if word == "held"} >= {"S3", "S4", "S6", "S12", "S13"}

    last = await front.foreman.stats(f"{QUEUE}~2")
    one = await asyncio.to_thread(shell.run, *asked, f"{QUEUE}~2")
    assert (one.code, one.last["jobs"]) == (0, last.totals["submitted"])
    done = (await front.desk.find(JobFilter(queue=f"{QUEUE}~2", states=(JobState.SUCCEEDED,))))[0][0]
    await engine.command("ZREM", f"{prefix(f'{QUEUE}~2')}done", done.id.rpartition(".")[2])
    damaged = await asyncio.to_thread(shell.run, *asked, QUEUE)
    broken = {one["invariant"]: str(one) for one in damaged.last["rulings"] if one["verdict"] == "broken"}
    assert (damaged.code, list(broken)) == (1, ["S12"]), damaged.out
    assert f"{QUEUE}~2" in broken["S12"]
    assert ended
    await front.aclose()
