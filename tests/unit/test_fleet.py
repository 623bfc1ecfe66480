"""The fleet that is played on paper loses nothing, repeats itself, and costs what its parts cost."""

import pytest
from benchmarks.fleet import COSTS, Fleet, Play, by_the_clock, fail_over, load

SMALL = Fleet(shards=10, workers=100, jobs=100.0, slots=4, work=3.0, served=10)


@pytest.mark.parametrize("served", [1, 3, 10])
def test_every_job_waits_or_was_begun_and_no_worker_runs_more_than_it_has_room_for(served: int) -> None:
    fleet = Fleet(shards=10, workers=100, jobs=150.0, slots=4, work=3.0, served=served)  # more than they can do
    play = Play(fleet, seconds=20.0, seed=5)
    found = play.run()
    waiting = sum(len(line) for line in play._lines)  # pyright: ignore[reportPrivateUsage] - what is left
    assert waiting > 0
    assert found.submitted == found.begun + waiting
    assert found.begun == found.said["settle"] + sum(found.held)
    assert max(found.held) == fleet.slots


def test_a_seed_plays_the_same_again() -> None:
    first, again = (Play(SMALL, seconds=10.0, seed=3).run() for _ in range(2))
    assert first == again


def test_while_anybody_has_room_nobody_waits() -> None:
    found = Play(SMALL, seconds=10.0, seed=1).run()
    assert max(found.held) <= SMALL.slots
    assert sum(found.held) < SMALL.workers * SMALL.slots
    assert found.wait(0.99) == 0.0


def test_what_comes_by_the_clock_grows_with_the_workers_and_with_the_shards_that_each_serves() -> None:
    shards, registry = by_the_clock(SMALL, 2.0)
    twice, _ = by_the_clock(Fleet(shards=10, workers=200, jobs=100.0, served=10), 2.0)
    fewer, same = by_the_clock(Fleet(shards=10, workers=100, jobs=100.0, served=5), 2.0)
    assert twice == {name: 2 * count for name, count in shards.items()}
    assert fewer["empty claim"] * 2 == shards["empty claim"]
    assert (fewer["renew"], same) == (shards["renew"], registry)
    assert load({"submit": 1e6 / COSTS["submit"]}) == pytest.approx(1.0)


def test_a_fail_over_is_caught_up_with_sooner_where_less_comes_meanwhile() -> None:
    late, until = fail_over(SMALL)
    more, longer = fail_over(Fleet(shards=10, workers=100, jobs=1000.0, slots=4, served=10))
    assert more == 10 * late
    assert longer > until > 0
