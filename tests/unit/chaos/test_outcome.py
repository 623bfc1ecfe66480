"""What a run came to is computed from its history: each kind of harm, put into one, shows in the numbers."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from msgspec import Raw

from hostler.chaos.load import IMAGE, POISON, QUEUE, WORK
from hostler.chaos.outcome import Facts, Outcome, facts_of, outcome_of
from hostler.chaos.reading import Record
from hostler.chaos.record import Effect, Events, Fault, Header, Line, Mark, Op, Roster
from hostler.chaos.report import markdown
from hostler.chaos.scenarios import SCENARIOS
from hostler.chaos.series import series_of, times_of
from hostler.chaos.shows import (
    all_good_work_ends,
    another_took_over,
    crowds_are_answered,
    good_work_passes_the_unservable,
    innocents_live,
    nothing_done_is_missed,
    one_at_a_time,
    poison_dies,
    retries_are_few_and_apart,
    taken_back,
    the_full_queue_says_when,
    work_waits_for_a_pause,
)
from hostler.chaos.values import Answer, Answers, Requests
from hostler.contracts.event import Event
from hostler.contracts.job import JobRequest, JobState
from hostler.contracts.needs import Needs
from hostler.contracts.worker import WorkerState

START = datetime(2026, 1, 1, tzinfo=UTC)
S = JobState
STATES = {
    "submit": S.READY,
    "claim": S.RUNNING,
    "finish": S.SUCCEEDED,
    "reap": S.READY,
    "retry": S.READY,
    "cancel": S.CANCELLED,
    "bury": S.DEAD,
    "expire": S.EXPIRED,
}
Move = tuple[float, str] | tuple[float, str, str]


class Story:
    """A history written by hand: one client's submits, and what became of each job."""

    def __init__(self) -> None:
        self._ops: list[Line] = []
        self._moves: list[tuple[float, Event]] = []
        self._rest: list[Line] = []
        self._jobs = 0

    def job(self, *moves: Move, kind: str = WORK, needs: Needs | None = None) -> str:
        self._jobs += 1
        job = f"{QUEUE}.{self._jobs}"
        request = JobRequest(kind=kind, payload=Raw(b"0"), idempotency_key=job, needs=needs or Needs())
        asked, answered = Requests(requests=(request,)), Answers(answers=(Answer(id=job),))
        self._op("invoke", self._jobs, asked)
        self._op("ok", self._jobs + 0.5, answered)
        fence = 0
        for at, verb, *who in ((0.0, "submit"), *moves):
            fence += verb == "claim"
            data = {"class": "poison", "workers": ["w1"]} if verb == "bury" else {}
            event = Event(
                offset=1, at=START + timedelta(seconds=at), type=verb, job=job, state=STATES.get(verb),
                attempt=fence or None, worker=who[0] if who else None, data=data,
            )  # fmt: skip
            self._moves.append((at, event))
        return job

    def order(self, verb: str, at: float) -> None:
        """Pause or resume the queue."""
        self._moves.append((at, Event(offset=1, at=START + timedelta(seconds=at), type=verb, job=None)))

    def forget(self, job: str, *, acknowledged: float) -> None:
        """Acknowledge a job of which nothing is known afterwards."""
        self._op("invoke", acknowledged - 0.5, Requests(requests=(JobRequest(kind=WORK, idempotency_key=job),)))
        self._op("ok", acknowledged, Answers(answers=(Answer(id=job),)))

    def ask_in_vain(self) -> None:
        self._op("invoke", 1, Requests(requests=(JobRequest(kind=WORK, idempotency_key="k"),)))
        self._op("info", 2, None)

    def line(self, *lines: Line) -> None:
        self._rest.extend(lines)

    def facts(self) -> Facts:
        ordered = sorted(self._moves, key=lambda one: one[0])
        events = tuple(msgspec.structs.replace(event, offset=n) for n, (_, event) in enumerate(ordered, 1))
        marks = [Mark(what=what, t_mono=100, t_wall=START + timedelta(seconds=100)) for what in ("healed", "drained")]
        lines = (*self._ops, Events(queue=QUEUE, events=events), *marks, *self._rest)
        return facts_of(Record(header=Header(began_at=START, seed=7, scenario="mixed"), lines=lines))

    def outcome(self) -> Outcome:
        return outcome_of(self.facts(), (), unavailable={}, folder="here")

    def _op(self, type_: str, at: float, value: object) -> None:
        moment = {"t_mono": at, "t_wall": START + timedelta(seconds=at)}
        line = {"process": "c", "op": "submit", "type": type_, **moment, "value": value}
        self._ops.append(msgspec.convert(line, Op))


def well(*, worker: str = "w1", at: float = 1) -> tuple[Move, ...]:
    return (at, "claim", worker), (at + 1, "finish", worker)


def kill(at: float) -> Fault:
    when = START + timedelta(seconds=at)
    return Fault(kind="worker_kill", target="worker-1", begin=at, end=at, began_at=when, ended_at=when, workers=("w1",))


def test_a_sound_history_is_ok_with_every_number() -> None:
    story = Story()
    story.job(*well())
    story.job((2, "claim", "w1"), (14, "reap", "w1"), (15, "claim", "w2"), (16, "finish", "w2"))
    story.line(kill(3))
    found = story.outcome()
    assert (found.verdict, found.violations) == ("ok", ())
    assert (found.submitted, found.lost, found.recorded_twice, found.executed_again) == (2, 0, 0, 1)
    assert found.faults == {"worker_kill": 1}
    assert (found.recovery_s.p50, found.recovery_s.max) == (12.0, 12.0)
    assert (found.seed, found.ended) == (7, {"succeeded": 2})


def test_a_job_without_an_end_is_lost() -> None:
    story = Story()
    story.job(*well())
    story.job((1, "claim", "w1"))
    assert (story.outcome().verdict, story.outcome().lost) == ("failed", 1)


def test_a_job_that_a_fail_over_may_lose_is_counted_apart_and_one_beside_its_time_is_lost() -> None:
    story = Story()
    story.job(*well())
    story.forget("gone", acknowledged=20.0)
    when = START + timedelta(seconds=19)
    fault = Fault(
        kind="primary_kill", target="primary", begin=19, end=25, began_at=when, ended_at=when, loses=((18.0, 20.5),)
    )
    story.line(fault)
    assert (story.outcome().lost, story.outcome().lost_in_window, story.outcome().submitted) == (0, 1, 2)
    story.forget("lost", acknowledged=21.0)
    assert (story.outcome().lost, story.outcome().lost_in_window, story.outcome().verdict) == (1, 1, "failed")


def test_a_pause_counts_when_work_waited_in_it_and_its_time_is_nobodys_recovery() -> None:
    story = Story()
    story.job((2, "claim", "w1"), (14, "reap", "w1"), (25, "claim", "w2"), (26, "finish", "w2"))
    story.line(kill(3))
    for verb, at in (("pause", 10.0), ("resume", 20.0), ("pause", 27.0), ("resume", 28.0)):
        story.order(verb, at)
    found = story.outcome()
    assert (found.verdict, found.pauses, found.recovery_s.max) == ("ok", 1, 12.0)
    assert list(work_waits_for_a_pause(story.facts())) == []


def test_a_fail_over_that_stops_work_for_ten_seconds_fails_the_run_and_says_so() -> None:
    def failed_over(again: float) -> Outcome:
        story = Story()
        story.job(*well(at=3))
        story.job((again - 0.5, "claim", "w1"), (again, "finish", "w1"))
        story.forget("gone", acknowledged=5.5)
        when = START + timedelta(seconds=5)
        story.line(
            Fault(kind="primary_kill", target="primary", begin=5, end=9, began_at=when, ended_at=when, loses=((4, 6),))
        )
        return story.outcome()

    assert (failed_over(13.5).verdict, failed_over(13.5).failover_s.max) == ("ok", 9.5)
    late = failed_over(14.0)
    assert (late.verdict, late.failover_s.max) == ("failed", 10.0)
    assert any("nothing was settled for 10.0 s around the primary_kill" in sentence for sentence in late.violations)


def test_a_second_end_is_recorded_twice_and_names_the_job() -> None:
    story = Story()
    job = story.job(*well(), (5, "finish", "w1"))
    found = story.outcome()
    assert (found.verdict, found.recorded_twice) == ("failed", 1)
    assert any(job in sentence for sentence in found.violations)


def test_a_run_that_began_although_the_one_before_went_well_is_executed_again() -> None:
    story = Story()
    job = story.job((1, "claim", "w1"), (12, "reap", "w1"), (13, "claim", "w2"), (14, "finish", "w2"), kind=IMAGE)
    kinds = ("started", "finished", "started", "finished")
    story.line(*(Effect(job=job, fence=1 + n // 2, type=kind, service="s") for n, kind in enumerate(kinds)))
    assert story.outcome().executed_again == 1


def test_the_report_says_every_number_fault_and_invariant_and_how_to_play_it_again() -> None:
    story = Story()
    story.job((2, "claim", "w1"), (14, "reap", "w1"), (15, "claim", "w2"), (16, "finish", "w2"))
    story.line(kill(3))
    text = markdown(story.outcome(), story.facts(), command="hostler chaos run --seed 7")
    assert "# mixed, seed 7: ok" in text
    assert "hostler chaos run --seed 7" in text
    assert "| lost | 0 |" in text
    assert "worker_kill | worker-1" in text
    assert "12.00 / 12.00 / 12.00" in text
    assert "| worker_kill | 1 | 12.00 | 12.00 | 12.00 |" in text
    assert all(f"| S{number} |" in text for number in range(1, 21))


def struck_for(seconds: float, *, fault: str = "worker_kill") -> Facts:
    story = Story()
    story.job((2, "claim", "w1"), (14, "reap", "w1"), (3 + seconds, "claim", "w2"), (30, "finish", "w2"))
    story.line(msgspec.structs.replace(kill(3), kind=fault))
    return story.facts()


def test_several_runs_are_judged_by_every_job_that_was_struck_in_any_of_them() -> None:
    runs = [struck_for(12), struck_for(13), struck_for(14.5, fault="machine_dead")]
    outcomes = [outcome_of(facts, (), unavailable={}, folder="f") for facts in runs]
    bad = msgspec.structs.replace(outcomes[1], verdict="failed", violations=("S1: it is gone",), lost=1)
    found = series_of([outcomes[0], bad, outcomes[2]], [times_of(facts) for facts in runs], folder="f")
    assert (found.recovery_s.count, found.recovery_s.p50, found.recovery_s.max) == (3, 13.0, 14.5)
    assert {kind: one.max for kind, one in found.recovery_by_fault_s.items()} == {
        "machine_dead": 14.5,
        "worker_kill": 13.0,
    }
    assert (found.runs, found.submitted, found.lost, found.faults["worker_kill"]) == (3, 3, 1, 2)
    assert (found.verdict, found.violations) == ("failed", ("seed 7: S1: it is gone",))
    assert series_of(outcomes, [], folder="f").verdict == outcomes[0].verdict


MOON = Needs(labels={"tier": "moon"})


def broken_budget(story: Story) -> None:
    story.job((1, "claim", "w1"), (2, "bury"))


def expired(story: Story) -> None:
    story.job((1, "expire"))


def nothing_lost(story: Story) -> None:
    story.job(*well())


def paused_in_vain(story: Story) -> None:
    """The only job that waits is never done."""
    story.job((20, "cancel"), needs=MOON)
    story.order("pause", 5)
    story.order("resume", 9)


def missed(story: Story) -> None:
    job = story.job((1, "claim", "w1"), (2, "expire"), kind=IMAGE)
    story.line(Effect(job=job, fence=1, service="s"))


def two_at_once(story: Story) -> None:
    story.job((1, "claim", "w1"), (5, "finish", "w1"))
    story.job((2, "claim", "w1"), (5, "finish", "w1"))
    story.line(Roster(worker="w1", at=START, state=WorkerState.READY, slots=1))


def unanswered(story: Story) -> None:
    story.ask_in_vain()


def poison_lives(story: Story) -> None:
    story.job(*well(), kind=POISON)


def poison_dies_too_soon(story: Story) -> None:
    story.job((1, "claim", "w1"), (12, "bury", "w1"), kind=POISON)


def innocent_dies(story: Story) -> None:
    story.job((1, "claim", "w1"), (12, "bury", "w1"))


def storm(story: Story) -> None:
    moves = [move for n in range(5) for move in ((n + 1, "claim", "w1"), (n + 1.5, "retry", "w1"))]
    story.job(*moves, (9, "claim", "w1"), (9.5, "finish", "w1"))


def unservable_claimed(story: Story) -> None:
    story.job(*well(), needs=MOON)


def unservable_unnamed(story: Story) -> None:
    story.job((20, "cancel"), needs=MOON)
    story.job(*well())


@pytest.mark.parametrize(
    ("show", "harm", "word"),
    [
        (all_good_work_ends, broken_budget, "not used up"),
        (all_good_work_ends, expired, "nobody asked"),
        (taken_back, nothing_lost, "nothing was taken back"),
        (nothing_done_is_missed, missed, "was done by a service"),
        (nothing_done_is_missed, nothing_lost, "no service finished"),
        (one_at_a_time, two_at_once, "held 2 jobs"),
        (another_took_over, nothing_lost, "no other server took over"),
        (work_waits_for_a_pause, nothing_lost, "no queue was paused"),
        (work_waits_for_a_pause, paused_in_vain, "no queue was paused while work waited in it"),
        (the_full_queue_says_when, nothing_lost, "no queue was ever full"),
        (crowds_are_answered, unanswered, "1 of 1 submits were never answered"),
        (poison_dies, poison_lives, "is poison, and succeeded"),
        (poison_dies, poison_dies_too_soon, "not 3"),
        (innocents_live, innocent_dies, "never harmed a worker"),
        (retries_are_few_and_apart, storm, "storm"),
        (retries_are_few_and_apart, nothing_lost, "nothing was tried again"),
        (good_work_passes_the_unservable, unservable_claimed, "was claimed"),
        (good_work_passes_the_unservable, unservable_unnamed, "nobody said"),
    ],
)
def test_what_a_scenario_must_show_is_missed_when_it_is_not_there(
    show: Callable[[Facts], Iterator[str]], harm: Callable[[Story], None], word: str
) -> None:
    story = Story()
    harm(story)
    assert any(word in sentence for sentence in show(story.facts()))


def test_every_scenario_has_something_to_show_and_three_kinds_of_faults_at_least() -> None:
    assert all(one.shows and len(set(one.kinds)) >= 3 for one in SCENARIOS.values())
    assert len(SCENARIOS) == 12


def test_a_service_may_end_an_old_run_after_another_service_did_a_newer_one_but_not_itself() -> None:
    story = Story()
    job = story.job((1, "claim", "w1"), (12, "reap", "w1"), (13, "claim", "w2"), (14, "finish", "w2"), kind=IMAGE)
    story.line(Effect(job=job, fence=2, service="b"), Effect(job=job, fence=1, service="a"))
    assert story.outcome().violations == ()
    story.line(Effect(job=job, fence=1, service="b"))
    assert any(sentence.startswith("S7") for sentence in story.outcome().violations)


def test_a_lost_lease_is_the_doing_of_the_last_fault_that_struck_its_holder() -> None:
    story = Story()
    story.job((2, "claim", "w1"), (24, "reap", "w1"), (25, "claim", "w2"), (26, "finish", "w2"))
    gateway = msgspec.structs.replace(kill(3), kind="gateway_kill", target="gateway-1", workers=())
    story.line(gateway, kill(13))
    assert story.outcome().recovery_s.max == 12.0
