"""The demo's verdict: computed from the events that the engine recorded and from what the services really did."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Final

import msgspec
from msgspec import Struct

from hostler.chaos.counts import executed_again
from hostler.chaos.record import Effect
from hostler.contracts.event import Event
from hostler.contracts.job import JobState
from hostler.kernel.units import Seconds
from hostler.policy.lifecycle import Verb

RECOVERY_MOST: Final[Seconds] = 30.0


class Promise(Struct, frozen=True, kw_only=True):
    """What the client was told about one submit."""

    job: str
    created: bool
    servable: bool
    duplicate: bool
    """It was sent with the key of an earlier one."""


class Kill(Struct, frozen=True, kw_only=True):
    """One worker's end."""

    worker: str
    at: datetime


class Verdict(Struct, frozen=True, kw_only=True):
    """The last line of the demo."""

    outcome: str
    """`ok`, or `failed`."""
    submitted: int
    """Distinct jobs that the gateway took."""
    succeeded: int
    deduplicated: int
    cancelled: int
    dead: int
    lost: int
    """Jobs that the gateway took, and that have no end."""
    recorded_twice: int
    """Ends beyond the first of a job."""
    executed_again: int
    """Runs that began although an earlier run of the job had not failed."""
    retried: int
    struck: int
    """Jobs that the killed worker held."""
    max_recovery_s: float | None
    """From the kill to the next claim, the longest of the struck jobs."""
    events: int
    effects: int
    took_s: float
    failures: tuple[str, ...]
    """What is not as it should be, one sentence each."""


def judge(
    promises: Sequence[Promise],
    events: Sequence[Event],
    effects: Sequence[Sequence[Effect]],
    kill: Kill | None,
    *,
    took: Seconds,
    findings: Sequence[str] = (),
) -> Verdict:
    """Compare what was promised with what was recorded and done; `findings` are broken invariants found elsewhere."""
    stories: dict[str, list[Event]] = defaultdict(list)
    for event in events:
        if event.job is not None:
            stories[event.job].append(event)
    taken = {promise.job: promise for promise in promises if promise.created}
    ends = {job: [e for e in stories[job] if e.state is not None and e.state.terminal] for job in taken}
    states = Counter(found[-1].state for found in ends.values() if found)
    struck = struck_by(kill, stories)
    known = [seconds for seconds in struck.values() if seconds is not None]
    recovery = max(known, default=None) if len(known) == len(struck) else None
    verdict = Verdict(
        outcome="ok",
        submitted=len(taken),
        succeeded=states[JobState.SUCCEEDED],
        deduplicated=sum(not promise.created for promise in promises),
        cancelled=states[JobState.CANCELLED],
        dead=states[JobState.DEAD],
        lost=sum(not found for found in ends.values()),
        recorded_twice=sum(max(0, len(found) - 1) for found in ends.values()),
        executed_again=executed_again(stories, [one for log in effects for one in log]),
        retried=sum(event.type == Verb.RETRY for event in events),
        struck=len(struck),
        max_recovery_s=None if recovery is None else round(recovery, 2),
        events=len(events),
        effects=sum(map(len, effects)),
        took_s=round(took, 1),
        failures=(),
    )
    failures = (*_failures(verdict, promises, ends, struck), *findings)
    return msgspec.structs.replace(verdict, outcome="failed" if failures else "ok", failures=failures)


def struck_by(kill: Kill | None, stories: Mapping[str, Sequence[Event]]) -> dict[str, float | None]:
    """Return the jobs that a killed worker held, with the seconds until each was claimed again (None: never)."""
    found: dict[str, float | None] = {}
    if kill is None:
        return found
    for job, story in stories.items():
        moves = [event for event in story if event.state is not None]
        before = [event for event in moves if event.at <= kill.at]
        if not before or before[-1].type != Verb.CLAIM or before[-1].worker != kill.worker:
            continue
        later = [event for event in moves if event.at > kill.at]
        if later and later[0].worker == kill.worker and later[0].type in (Verb.FINISH, Verb.FAIL, Verb.RETRY):
            continue  # its last word was already on the way
        claims = [event.at for event in later if event.type == Verb.CLAIM]
        found[job] = (claims[0] - kill.at).total_seconds() if claims else None
    return found


def _failures(
    verdict: Verdict,
    promises: Sequence[Promise],
    ends: Mapping[str, Sequence[Event]],
    struck: Mapping[str, float | None],
) -> Iterable[str]:
    if verdict.lost:
        missing = [job for job, found in ends.items() if not found]
        yield f"{verdict.lost} jobs have no end: {', '.join(missing[:5])}"
    if verdict.recorded_twice:
        yield f"{verdict.recorded_twice} ends were recorded twice"
    servable = sum(promise.created and promise.servable for promise in promises)
    if verdict.succeeded != servable:
        yield f"{verdict.succeeded} of {servable} jobs that can be served succeeded"
    unservable = sum(promise.created and not promise.servable for promise in promises)
    if verdict.cancelled != unservable:
        yield f"{verdict.cancelled} of {unservable} jobs that nobody can serve were cancelled"
    wrong = [promise.job for promise in promises if promise.duplicate and promise.created]
    if wrong:
        yield f"a key that was seen made another job: {', '.join(wrong[:5])}"
    if not struck:
        yield "the killed worker held no job"
    if any(value is None for value in struck.values()):
        yield "a job of the killed worker was never claimed again"
    if verdict.max_recovery_s is not None and verdict.max_recovery_s > RECOVERY_MOST:
        yield f"recovery took {verdict.max_recovery_s} s, over {RECOVERY_MOST:g} s"
    if not verdict.effects:
        yield "the services' logs of effects are empty"
