"""What a run of a rig came to: every number is computed from its history."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Literal

from msgspec import Struct

from hostler.chaos.counts import ended_again, executed_again, held_back
from hostler.chaos.judge import Report, judge
from hostler.chaos.reading import Record
from hostler.chaos.record import Effect, Final
from hostler.chaos.recovery import failovers, spread
from hostler.chaos.values import Answers
from hostler.chaos.whole import Whole
from hostler.contracts.event import Event
from hostler.contracts.job import Job, JobState
from hostler.kernel.units import Seconds

VIOLATIONS_MOST = 20
"""Sentences that are told; the report has them all."""


class Recovery(Struct, frozen=True, kw_only=True):
    """From the end of a fault to the next claim of the work it struck; None when nothing was struck."""

    p50: Seconds | None
    p99: Seconds | None
    max: Seconds | None


class Outcome(Struct, frozen=True, kw_only=True):
    """The last line of a run."""

    verdict: Literal["ok", "failed"]
    submitted: int
    """Distinct jobs that were acknowledged."""
    lost: int
    """Of those, jobs that have no end."""
    recorded_twice: int
    """Ends beyond the first of a job's generation."""
    executed_again: int
    """Runs that began although an earlier one of the job had not failed."""
    faults: dict[str, int]
    recovery_s: Recovery
    violations: tuple[str, ...]
    scenario: str
    seed: int
    ended: dict[str, int]
    """Jobs by how they ended."""
    deduplicated: int
    """Submits that were answered with an earlier job."""
    unanswered: int
    """Asks whose answer never came, repetitions included."""
    lost_in_window: int
    """Jobs that were acknowledged when a fault, by what is promised of the engine, might lose them, and did."""
    failover_s: Recovery
    """Longest time between two settled jobs around each fault of the primary by which something may be lost."""
    pauses: int
    """Times that a queue was paused, and work stood in its line that was done afterwards."""
    unavailable: dict[str, str]
    """Kinds of faults that this machine cannot show, with the reason."""
    folder: str


class Facts(Struct, frozen=True, kw_only=True):
    """What a scenario is judged by, beside every invariant."""

    stories: Mapping[str, Sequence[Event]]
    """Moves and other events, by job."""
    states: Mapping[str, JobState]
    """How its events leave each job."""
    jobs: Mapping[str, Job]
    """Jobs that could be read at the end."""
    whole: Whole
    report: Report
    executed_again: int


def facts_of(record: Record) -> Facts:
    """Judge a record, and count."""
    whole = Whole(record)
    stories = dict(chain.from_iterable(history.jobs.items() for history in whole.histories.values()))
    histories = whole.histories.values()
    return Facts(
        stories=stories,
        states=dict(chain.from_iterable(history.states.items() for history in histories)),
        jobs={line.job.id: line.job for line in whole.of(Final)},
        whole=whole,
        report=judge(record),
        executed_again=executed_again(stories, whole.of(Effect)),
    )


def outcome_of(facts: Facts, shown: Sequence[str], *, unavailable: Mapping[str, str], folder: str) -> Outcome:
    """Return the outcome; `shown` are the sentences of a scenario that did not show what it must."""
    report, header = facts.report, facts.whole.header
    answers = [act.answered.answers for act in facts.whole.acts if isinstance(act.answered, Answers)]
    taken = [answer for answer in chain.from_iterable(answers) if answer.id is not None]
    jobs = {answer.id for answer in taken}
    forgotten, gaps = facts.whole.forgotten, spread([gap for _, gap in failovers(facts.whole)])
    lost = sum(not (state := facts.states.get(job or "")) or not state.terminal for job in jobs - forgotten)
    broken = [f"{one}" for ruling in report.rulings for one in ruling.findings]
    twice = ended_again(facts.stories)
    violations = (*broken, *shown)
    return Outcome(
        verdict="failed" if violations or lost or twice or report.verdict != "held" else "ok",
        submitted=len(jobs),
        lost=lost,
        recorded_twice=twice,
        executed_again=facts.executed_again,
        faults=report.faults,
        recovery_s=Recovery(p50=report.recovery_s.p50, p99=report.recovery_s.p99, max=report.recovery_s.max),
        violations=violations[:VIOLATIONS_MOST],
        scenario=header.scenario or "",
        seed=header.seed or 0,
        ended=dict(Counter(map(str, facts.states.values()))),
        deduplicated=len(taken) - sum(answer.created for answer in taken),
        unanswered=sum(act.type == "info" for act in facts.whole.acts),
        lost_in_window=len(forgotten),
        failover_s=Recovery(p50=gaps.p50, p99=gaps.p99, max=gaps.max),
        pauses=sum(sum(map(bool, held_back(history.events))) for history in facts.whole.histories.values()),
        unavailable=dict(unavailable),
        folder=folder,
    )
