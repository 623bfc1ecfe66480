"""A judge of recorded histories: the queue's own events beside what its clients were told.

    verdict = check(events, submitted=[...], final={...}, told=[...], effects=[...], terms=Terms(...))
    assert verdict.clean, verdict

Each invariant (S1 to S15 and S17 of the reliability facts) is judged by itself, from as much as was recorded:
what is missing is named in `unjudged`, never taken as good. A finding has the fewest events that show it.
"""

from collections.abc import Mapping, Sequence

from hostler.chaos.facts import Finding, History, Submission, Told, Verdict
from hostler.chaos.invariants.books import BOOKS
from hostler.chaos.invariants.life import LIFE
from hostler.chaos.invariants.order import ORDER
from hostler.chaos.record import Effect, Terms
from hostler.contracts.event import Event
from hostler.contracts.job import Job
from hostler.contracts.queue import QueueStats

RULES = (*LIFE, *ORDER, *BOOKS)


def check(
    events: Sequence[Event],
    *,
    submitted: Sequence[Submission] | None = None,
    final: Mapping[str, Job] | None = None,
    told: Sequence[Told] | None = None,
    effects: Sequence[Effect] | None = None,
    stats: QueueStats | None = None,
    audit: Sequence[str] | None = None,
    terms: Terms | None = None,
) -> Verdict:
    """Judge the events of one queue, from its first offset on.

    `submitted` are the acknowledged submits in the order of their answers, `final` the jobs that can still
    be read at the end, `told` what settles were answered, `effects` what the services did, `stats` and `audit`
    the queue's own books at the end. Whatever is None is not judged by.
    """
    history = History(
        events=tuple(events),
        submitted=submitted,
        final=final,
        told=told,
        effects=effects,
        stats=stats,
        audit=audit,
        terms=terms or Terms(),
    )
    findings: list[Finding] = []
    judged: list[str] = []
    unjudged: list[str] = []
    for name, rule in RULES:
        found = rule(history)
        if found is None:
            unjudged.append(name)
        else:
            judged.append(name)
            findings.extend(found)
    return Verdict(findings=tuple(findings), judged=tuple(dict.fromkeys(judged)), unjudged=_never(judged, unjudged))


def _never(judged: Sequence[str], unjudged: Sequence[str]) -> tuple[str, ...]:
    return tuple(name for name in dict.fromkeys(unjudged) if name not in judged)


__all__ = ["Effect", "Finding", "Submission", "Terms", "Told", "Verdict", "check"]
