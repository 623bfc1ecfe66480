"""The fleet that is played on paper loses nothing, repeats itself, and costs what its parts cost."""

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def fleet(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The simulation, which is no part of the package."""
    monkeypatch.syspath_prepend(str(ROOT))  # pyright: ignore[reportUnknownMemberType] - its own type
    return import_module("benchmarks.fleet")


@pytest.mark.parametrize("served", [1, 3, 10])
def test_every_job_waits_or_was_begun_and_no_worker_runs_more_than_it_has_room_for(fleet: Any, served: int) -> None:
    crowded = fleet.Fleet(shards=10, workers=100, jobs=150.0, slots=4, work=3.0, served=served)
    play = fleet.Play(crowded, seconds=20.0, seed=5)
    found = play.run()
    waiting = sum(map(len, play._lines))
    assert waiting > 0
    assert found.submitted == found.begun + waiting
    assert found.begun == found.said["settle"] + sum(found.held)
    assert max(found.held) == crowded.slots


def test_a_seed_plays_the_same_again_and_nobody_waits_while_anybody_has_room(fleet: Any) -> None:
    small = fleet.Fleet(shards=10, workers=100, jobs=100.0, slots=4, work=3.0, served=10)
    first, again = (fleet.Play(small, seconds=10.0, seed=3).run() for _ in range(2))
    assert first == again
    assert sum(first.held) < small.workers * small.slots
    assert first.wait(0.99) == 0.0


def test_what_comes_by_the_clock_grows_with_the_workers_and_with_the_shards_that_each_serves(fleet: Any) -> None:
    shards, registry = fleet.by_the_clock(fleet.Fleet(shards=10, workers=100, jobs=100.0, served=10), 2.0)
    twice, _ = fleet.by_the_clock(fleet.Fleet(shards=10, workers=200, jobs=100.0, served=10), 2.0)
    fewer, same = fleet.by_the_clock(fleet.Fleet(shards=10, workers=100, jobs=100.0, served=5), 2.0)
    assert twice == {name: 2 * count for name, count in shards.items()}
    assert fewer["empty claim"] * 2 == shards["empty claim"]
    assert (fewer["renew"], same) == (shards["renew"], registry)
