"""The demo's verdict is computed: each kind of harm, put into a history, turns it into a failure."""

from datetime import UTC, datetime, timedelta

import pytest

from hostler.chaos.record import Effect
from hostler.cli.demo.load import Group, plan
from hostler.cli.demo.verdict import Kill, Promise, Verdict, judge
from hostler.contracts.event import Event
from hostler.contracts.job import JobState

START = datetime(2026, 1, 1, tzinfo=UTC)
STATES = {
    "submit": JobState.READY,
    "claim": JobState.RUNNING,
    "finish": JobState.SUCCEEDED,
    "reap": JobState.READY,
    "cancel": JobState.CANCELLED,
}


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def ran(job: str, what: str) -> Effect:
    return Effect(job=job, fence=1, type=what)


def story(job: str, *moves: tuple[float, str, str | None]) -> list[Event]:
    return [
        Event(offset=1, at=at(seconds), type=verb, job=job, state=STATES.get(verb), worker=worker)
        for seconds, verb, worker in moves
    ]


KILL = Kill(worker="w1", at=at(5))
PROMISES = [
    Promise(job="q.1", created=True, servable=True, duplicate=False),
    Promise(job="q.2", created=True, servable=True, duplicate=False),
    Promise(job="q.3", created=True, servable=False, duplicate=False),
    Promise(job="q.1", created=False, servable=True, duplicate=True),
]
STRUCK = story(
    "q.1", (0, "submit", None), (1, "claim", "w1"), (15, "reap", None), (16.5, "claim", "w2"), (17, "finish", "w2")
)
PLAIN = story("q.2", (0, "submit", None), (1, "claim", "w2"), (2, "progress", "w2"), (3, "finish", "w2"))
NOBODY = story("q.3", (0, "submit", None), (20, "cancel", None))
EFFECTS = [[ran("q.2", "started"), ran("q.2", "finished")]]


def verdict(
    *stories: list[Event],
    promises: list[Promise] = PROMISES,
    effects: list[list[Effect]] = EFFECTS,
    kill: Kill | None = KILL,
) -> Verdict:
    events = sorted((event for one in stories for event in one), key=lambda event: event.at)
    return judge(promises, events, effects, kill, took=20.0)


def test_a_sound_history_is_ok_with_every_number() -> None:
    found = verdict(STRUCK, PLAIN, NOBODY)
    assert found.failures == ()
    assert found.outcome == "ok"
    assert (found.submitted, found.succeeded, found.deduplicated, found.cancelled) == (3, 2, 1, 1)
    assert (found.lost, found.recorded_twice, found.executed_again, found.struck) == (0, 0, 1, 1)
    assert found.max_recovery_s == 11.5


def test_a_job_without_an_end_is_lost() -> None:
    found = verdict(STRUCK, PLAIN[:-1], NOBODY)
    assert (found.outcome, found.lost) == ("failed", 1)
    assert "q.2" in found.failures[0]


def test_a_second_end_is_recorded_twice() -> None:
    found = verdict(STRUCK, [*PLAIN, *story("q.2", (4, "finish", "w1"))], NOBODY)
    assert (found.outcome, found.recorded_twice) == ("failed", 1)


def test_a_struck_job_that_is_never_claimed_again_fails() -> None:
    found = verdict(STRUCK[:3], PLAIN, NOBODY)
    assert found.max_recovery_s is None
    assert "a job of the killed worker was never claimed again" in found.failures


def test_slow_recovery_and_a_kill_that_struck_nothing_fail() -> None:
    slow = story(
        "q.1", (0, "submit", None), (1, "claim", "w1"), (40, "reap", None), (41, "claim", "w2"), (42, "finish", "w2")
    )
    assert any("recovery took" in failure for failure in verdict(slow, PLAIN, NOBODY).failures)
    assert "the killed worker held no job" in verdict(STRUCK, PLAIN, NOBODY, kill=None).failures


def test_a_key_that_made_a_second_job_fails() -> None:
    twice = [*PROMISES[:3], Promise(job="q.2", created=True, servable=True, duplicate=True)]
    assert any(
        "a key that was seen made another job" in text
        for text in verdict(STRUCK, PLAIN, NOBODY, promises=twice).failures
    )


@pytest.mark.parametrize(
    ("types", "again"),
    [
        (["started", "finished"], 0),
        (["started", "failed", "started", "finished"], 0),
        (["started", "finished", "started", "finished"], 1),
        (["started", "started", "finished"], 1),
    ],
)
def test_a_run_that_began_although_the_one_before_had_not_failed_is_counted(types: list[str], again: int) -> None:
    effects = [[ran("q.2", one) for one in types], [ran("q.1", "started")]]
    assert verdict(STRUCK, PLAIN, NOBODY, effects=effects).executed_again == again


def test_the_load_is_mixed_and_the_same_for_the_same_seed() -> None:
    load = plan(300, seed=1, run="r")
    assert load == plan(300, seed=1, run="r")
    assert load != plan(300, seed=2, run="r")
    assert {one.group for one in load} == set(Group)
    keys = {one.key for one in load}
    assert len(keys) == 300
    duplicates = [number for number, one in enumerate(load) if one.group is Group.DUPLICATE]
    assert all(any(other.key == load[number].key for other in load[:number]) for number in duplicates)
