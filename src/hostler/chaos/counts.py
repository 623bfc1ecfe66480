"""The numbers of a run that everybody asks for, from its history alone."""

from collections.abc import Iterable, Mapping, Sequence

from hostler.chaos.facts import CLOSING, OPENING
from hostler.chaos.record import Effect
from hostler.contracts.event import Event
from hostler.contracts.job import JobState
from hostler.policy.lifecycle import Verb


def ended_again(stories: Mapping[str, Sequence[Event]]) -> int:
    """Count ends beyond the first of each generation of a job."""
    again = 0
    for story in stories.values():
        ends = 0
        for event in story:
            if event.type == Verb.REPLAY:
                ends = 0
            elif event.state is not None and event.state.terminal:
                again += ends > 0
                ends += 1
    return again


def executed_again(stories: Mapping[str, Sequence[Event]], effects: Iterable[Effect]) -> int:
    """Count runs that began although an earlier one of the job had not failed.

    A service's own log says it where there is one; elsewhere each claim after a lost lease counts as one.
    """
    runs: dict[str, list[str]] = {}
    for effect in effects:
        runs.setdefault(effect.job, []).append(effect.type)
    again = 0
    for types in runs.values():
        open_ended = types.count("started") - types.count("failed") - types.count("cancelled")
        again += max(0, open_ended - 1)
    for job, story in stories.items():
        if job not in runs:
            reaped = False
            for event in story:
                again += reaped and event.type == Verb.CLAIM
                reaped = event.type == Verb.REAP or (reaped and event.type != Verb.CLAIM)
    return again


def held_back(events: Sequence[Event]) -> tuple[int, ...]:
    """Count for each pause of a queue the jobs that stood ready when it ended, and were claimed later."""
    ready: set[str | None] = set()
    stood: list[set[str | None]] = []
    claimed: list[set[str | None]] = []
    shut = False
    for event in events:
        if event.type in CLOSING:
            shut = True
        elif event.type == OPENING and shut:
            stood.append(set(ready))
            claimed.append(set())
            shut = False
        if event.state is JobState.READY:
            ready.add(event.job)
        elif event.state is not None:
            ready.discard(event.job)
        if event.type == Verb.CLAIM:
            for jobs in claimed:
                jobs.add(event.job)
    return tuple(len(waited & done) for waited, done in zip(stood, claimed, strict=True))
