"""Invariants of the books: S1, S2, S9, S12, S13, S15."""

from collections import Counter
from datetime import datetime, timedelta

from hostler.chaos.facts import Finding, History, Rule
from hostler.contracts.event import Event
from hostler.contracts.job import JobState
from hostler.policy.lifecycle import Verb


def nothing_lost(history: History) -> list[Finding] | None:
    """S1: every acknowledged job has its events and, unless it was purged, can be read at the end."""
    if history.submitted is None:
        return None
    found: list[Finding] = []
    for job in dict.fromkeys(one.id for one in history.submitted):
        if job not in history.jobs:
            found.append(_of("S1", f"{job} was acknowledged and has no event", job))
        elif history.final is not None and job in history.states and job not in history.final:
            found.append(_of("S1", f"{job} was acknowledged and cannot be read any more", job))
    return found


def no_phantom(history: History) -> list[Finding] | None:
    """S2: every job and every effect has a submit."""
    if history.submitted is None:
        return None
    known = {one.id for one in history.submitted}
    strangers = [job for job in history.jobs if job not in known]
    found = [_of("S2", f"{job} was never submitted", job) for job in strangers[history.terms.unknown_submits :]]
    effects = dict.fromkeys(effect.job for effect in history.effects or ())
    found.extend(
        _of("S2", f"an effect names {job}, which never was", job) for job in effects if job not in history.jobs
    )
    return found


def one_job_per_key(history: History) -> list[Finding] | None:
    """S9: within its window an idempotency key has one job."""
    if history.submitted is None:
        return None
    found: list[Finding] = []
    first: dict[tuple[str, str], tuple[str, datetime]] = {}
    born = {job: events[0].at for job, events in history.jobs.items()}
    for one in history.submitted:
        request = one.request
        if request is None or request.idempotency_key is None or one.id not in born:
            continue
        scope = (request.tenant, request.idempotency_key)
        known = first.get(scope)
        if known is None or born[one.id] >= known[1] + timedelta(seconds=history.terms.window):
            first[scope] = (one.id, born[one.id])
        elif known[0] != one.id and known[0] in history.states:
            sentence = f"the key {scope[1]!r} of {scope[0]} made both {known[0]} and {one.id}"
            found.append(Finding(invariant="S9", sentence=sentence, jobs=(known[0], one.id)))
    return found


def conserved(history: History) -> list[Finding] | None:
    """S12: the queue's own counters are what its events add up to, and its audit finds nothing."""
    if history.stats is None and history.audit is None:
        return None
    found = [Finding(invariant="S12", sentence=f"audit: {sentence}") for sentence in history.audit or ()]
    stats = history.stats
    if stats is None:
        return found
    counted = Counter(history.states.values())
    said = {"ready": stats.ready, "scheduled": stats.scheduled, "running": stats.running, "waiting": stats.waiting}
    for state, number in said.items():
        if counted[JobState(state)] != number:
            sentence = f"{number} jobs are said to be {state}, the events leave {counted[JobState(state)]}"
            found.append(Finding(invariant="S12", sentence=sentence))
    submits = sum(1 for event in history.events if event.type == Verb.SUBMIT)
    if stats.totals.get("submitted", 0) != submits:
        sentence = f"{stats.totals.get('submitted', 0)} jobs are said to be submitted, {submits} events say so"
        found.append(Finding(invariant="S12", sentence=sentence))
    return found


def dead_are_kept(history: History) -> list[Finding] | None:
    """S13: what can be read is in the state that its events say; the dead are there until replayed or purged."""
    if history.final is None:
        return None
    found: list[Finding] = []
    for job, state in history.states.items():
        seen = history.final.get(job)
        if seen is not None and seen.state is not state:
            found.append(_of("S13", f"{job} is {seen.state} and its events say {state}", job))
        elif seen is None and state is JobState.DEAD:
            found.append(_of("S13", f"{job} is dead and was not kept", job))
    return found


def bounded(history: History) -> list[Finding] | None:
    """S15: the queue, and each tenant in it, is never deeper than its limit."""
    terms = history.terms
    if terms.depth is None and terms.tenant_depth is None:
        return None
    found: list[Finding] = []
    live: dict[str, str] = {}
    for event in history.events:
        if event.job is None or event.state is None:
            continue
        if event.state.terminal:
            live.pop(event.job, None)
            continue
        request = history.requests.get(event.job)
        live[event.job] = request.tenant if request is not None else ""
        if event.type == Verb.SUBMIT:
            found.extend(_too_deep(history, live, event))
    return found


def _too_deep(history: History, live: dict[str, str], event: Event) -> list[Finding]:
    depth, tenant_depth = history.terms.depth, history.terms.tenant_depth
    found: list[Finding] = []
    if depth is not None and len(live) > depth:
        found.append(_at("S15", f"{len(live)} jobs in a queue for {depth}", event))
    mine = sum(1 for tenant in live.values() if tenant == live[event.job or ""])
    if tenant_depth is not None and mine > tenant_depth:
        found.append(_at("S15", f"{mine} jobs of one tenant, {tenant_depth} are allowed", event))
    return found


def _of(invariant: str, sentence: str, job: str) -> Finding:
    return Finding(invariant=invariant, sentence=sentence, jobs=(job,))


def _at(invariant: str, sentence: str, event: Event) -> Finding:
    return Finding(
        invariant=invariant, sentence=sentence, jobs=(event.job,) if event.job else (), offsets=(event.offset,)
    )


BOOKS: tuple[tuple[str, Rule], ...] = (
    ("S1", nothing_lost),
    ("S2", no_phantom),
    ("S9", one_job_per_key),
    ("S12", conserved),
    ("S13", dead_are_kept),
    ("S15", bounded),
)
