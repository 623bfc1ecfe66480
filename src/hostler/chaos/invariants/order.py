"""Invariants of claims: who may get a job (S10), in which order (S11), and not while paused (S17)."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

import msgspec

from hostler.chaos.facts import CLOSING, OPENING, Finding, History, Rule, Seen
from hostler.contracts.event import Event
from hostler.contracts.job import JobState
from hostler.contracts.offer import Offer
from hostler.policy.lanes import lane_key, lane_of
from hostler.policy.lifecycle import Verb
from hostler.policy.matching import lacks

NEAR: Final = timedelta(seconds=15)
"""How late it may be seen what a worker offers: its heartbeat, and one that was lost or held on the way."""
_STRIDE = 10_080
_SAME = 0.001
"""Seconds below which two effective arrivals of different priorities count as the same."""


def capable(history: History) -> list[Finding] | None:
    """S10: who claims a job offers what it needs and nothing that it avoids.

    What it offers is what the terms say it always does, or else what it was seen to offer around that time; whether
    it was well just then is not judged by that, since it changes faster than it is seen.
    """
    if (history.terms.offers is None and not history.seen) or not history.requests:
        return None
    found: list[Finding] = []
    for event in history.events:
        request = history.requests.get(event.job or "")
        worker = event.worker or ""
        if event.type != Verb.CLAIM or request is None:
            continue
        always = (history.terms.offers or {}).get(worker)
        offers = always if always is not None else _offered(history.seen.get(worker, ()), event.at)
        for lack in lacks(lane_of(request), offers, worker=worker) if offers else ():
            sentence = f"{event.job} went to {worker}, which does not meet {lack.key}"
            found.append(_finding("S10", sentence, (event.job or "",), event))
    return found


def _offered(seen: Sequence[Seen], at: datetime) -> tuple[Offer, ...]:
    """Return all that a worker was seen to offer from a while before a moment to a while after it."""
    until = [later.at for later in seen[1:]]
    shown = [
        one.offers
        for place, one in enumerate(seen)
        if one.at <= at + NEAR and (place == len(until) or until[place] >= at - NEAR)
    ]
    return tuple(msgspec.structs.replace(offer, healthy=True) for offers in shown for offer in offers)


def in_order(history: History) -> list[Finding] | None:
    """S11: inside a tenant the earliest effective arrival goes first, tenants go by the least share used.

    Judged among jobs of one lane that were never tried, have no concurrency key and no deadline: whoever
    may run one of them may run all, so nothing but order decides.
    """
    if not history.requests:
        return None
    return _Order(history).judge()


class _Order:
    """One pass over the events, with the line of each lane and tenant."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._born: dict[str, Event] = {}
        self._lanes: dict[str, str] = {}
        """Key of each job's lane: there are many events for one job."""
        self._lines: dict[str, dict[str, dict[str, tuple[float, int]]]] = {}
        self._passes: dict[str, int] = {}
        self._virtual = 0
        self._found: list[Finding] = []

    def judge(self) -> list[Finding]:
        for event in self._history.events:
            if event.job is None or event.state is None:
                continue
            if event.type == Verb.SUBMIT:
                self._born[event.job] = event
            if event.state is JobState.READY and not event.attempt:
                self._enter(event.job)
            elif event.type == Verb.CLAIM:
                self._claimed(event)
            else:
                self._leave(event.job)
        return self._found

    def _enter(self, job: str) -> None:
        request = self._history.requests.get(job)
        if request is None or request.concurrency_key is not None or request.deadline is not None:
            return
        if request.timeouts.queue is None:
            self._line(job)[job] = self._arrival(job)

    def _line(self, job: str) -> dict[str, tuple[float, int]]:
        return self._lane(job).setdefault(self._history.requests[job].tenant, {})

    def _lane(self, job: str) -> dict[str, dict[str, tuple[float, int]]]:
        key = self._lanes.get(job)
        if key is None:
            key = self._lanes[job] = lane_key(lane_of(self._history.requests[job]))
        return self._lines.setdefault(key, {})

    def _arrival(self, job: str) -> tuple[float, int]:
        born, request = self._born[job], self._history.requests[job]
        return born.at.timestamp() - request.priority * self._history.terms.head_start, born.offset

    def _leave(self, job: str) -> None:
        if job in self._history.requests and job in self._born:
            self._line(job).pop(job, None)

    def _claimed(self, event: Event) -> None:
        job = event.job or ""
        request = self._history.requests.get(job)
        if request is None or job not in self._born:
            return
        if job in self._line(job):
            self._overtaken(event, job)
            self._out_of_turn(event, job, request.tenant)
        self._leave(job)
        self._virtual = max(self._virtual, self._passes.get(request.tenant, 0))
        weight = self._history.terms.weights.get(request.tenant, 1)
        self._passes[request.tenant] = self._virtual + _STRIDE // weight

    def _overtaken(self, event: Event, job: str) -> None:
        line = self._line(job)
        first = min(line, key=lambda other: line[other])
        earlier = line[job][0] - line[first][0]
        equal = self._history.requests[first].priority == self._history.requests[job].priority
        if first != job and (earlier > _SAME or (equal and line[first] < line[job])):
            sentence = f"{job} was claimed before {first}, which arrived earlier in effect"
            self._found.append(_finding("S11", sentence, (job, first), self._born[first], event))

    def _out_of_turn(self, event: Event, job: str, tenant: str) -> None:
        lane = self._lane(job)
        mine = max(self._passes.get(tenant, 0), self._virtual)
        for other, line in lane.items():
            theirs = max(self._passes.get(other, 0), self._virtual)
            if line and theirs < mine:
                sentence = f"{tenant} was served with a share of {mine} before {other} with {theirs}"
                self._found.append(_finding("S11", sentence, (job, next(iter(line))), event))
                return


def not_while_paused(history: History) -> list[Finding]:
    """S17: nothing is claimed between a pause or drain and the resume."""
    found: list[Finding] = []
    closed: Event | None = None
    for event in history.events:
        if event.type in CLOSING:
            closed = closed or event
        elif event.type == OPENING:
            closed = None
        elif event.type == Verb.CLAIM and closed is not None:
            sentence = f"{event.job} was claimed after the {closed.type} of its queue"
            found.append(_finding("S17", sentence, (event.job or "",), closed, event))
    return found


def _finding(invariant: str, sentence: str, jobs: tuple[str, ...], *events: Event) -> Finding:
    return Finding(invariant=invariant, sentence=sentence, jobs=jobs, offsets=tuple(event.offset for event in events))


ORDER: tuple[tuple[str, Rule], ...] = (("S10", capable), ("S11", in_order), ("S17", not_while_paused))
