"""The load of a run: of every sort, at its moment, the same for the same seed."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hostler.chaos.load import MIXED, POISON, Group, Planned, plan

seeds = st.integers(min_value=0, max_value=2**32)


def load(seed: int = 1, jobs: int = 240, **more: object) -> tuple[Planned, ...]:
    return plan(seed, jobs=jobs, seconds=30, run="r", **more)  # type: ignore[arg-type] - as the test asks


@settings(deadline=None, max_examples=40)
@given(seed=seeds, jobs=st.integers(min_value=1, max_value=500))
def test_one_seed_gives_one_load_of_so_many_jobs_in_time(seed: int, jobs: int) -> None:
    found = load(seed, jobs)
    assert msgspec.json.encode(found) == msgspec.json.encode(load(seed, jobs))
    assert len(found) == jobs
    assert list(found) == sorted(found, key=lambda one: one.at)
    assert all(0 <= one.at < 30 for one in found)


def test_a_load_has_every_sort_of_work() -> None:
    assert {one.group for one in load()} == set(Group)
    assert [one.group for one in load()].count(Group.POISON) == 1


@settings(deadline=None, max_examples=40)
@given(seed=seeds)
def test_a_duplicate_is_an_earlier_request_again_and_every_other_key_is_its_own(seed: int) -> None:
    seen: set[str | None] = set()
    for one in load(seed):
        assert (one.request.idempotency_key in seen) == (one.group is Group.DUPLICATE)
        seen.add(one.request.idempotency_key)


def test_the_head_comes_first_and_nobody_can_run_it() -> None:
    found = load(head=50, poison=0, mix={Group.WORK: 1.0})
    assert all(one.at == 0 and one.request.needs.labels for one in found[:50])
    assert all(one.at > 0 and not one.request.needs.labels for one in found[50:])


def test_crowds_come_at_once() -> None:
    assert len({one.at for one in load(waves=3, poison=0)}) == 3


def test_poison_is_what_kills_a_worker() -> None:
    found = load(poison=2)
    assert [one.request.kind for one in found if one.group is Group.POISON] == [POISON, POISON]
    assert sum(MIXED.values()) == pytest.approx(1.0)
