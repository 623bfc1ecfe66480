"""Invariants of one job's life: S3 to S8, S14."""

from collections import Counter
from itertools import pairwise, zip_longest

from hostler.chaos.facts import Finding, History, Rule, terminal
from hostler.contracts.event import Event
from hostler.contracts.job import Job, JobState
from hostler.policy.lifecycle import JOB_MOVES, Verb

_BY_SETTLE = frozenset({Verb.FINISH, Verb.FAIL, Verb.RETRY, Verb.WAIT, Verb.CANCEL})
_CLOSE = 0.05
"""Seconds by which a client's and the engine's clock may differ on one machine."""
_EARLY = 0.001
"""Seconds by which a retry may come before its time."""
_VERBS = frozenset(str(verb) for verb in Verb)


def one_end(history: History) -> list[Finding]:
    """S3: each generation of a job ends once, and nothing happens to it after its end but a replay or purge."""
    found: list[Finding] = []
    for job, events in history.jobs.items():
        ended: Event | None = None
        for event in events:
            if event.type == Verb.REPLAY:
                ended = None
            elif ended is not None and event.state is not None:
                sentence = f"{job} went on to {event.state} after it was {ended.state}"
                found.append(_finding("S3", sentence, job, ended, event))
            elif terminal(event):
                ended = event
    return found


def legal_moves(history: History) -> list[Finding]:
    """S4: offsets have no gaps, and each move is in the life table."""
    found: list[Finding] = []
    for before, after in pairwise(history.events):
        if after.offset != before.offset + 1:
            sentence = f"offset {before.offset} is followed by {after.offset}"
            found.append(Finding(invariant="S4", sentence=sentence, offsets=(before.offset, after.offset)))
        if after.at < before.at:
            sentence = f"time steps back between {before.offset} and {after.offset}"
            found.append(Finding(invariant="S4", sentence=sentence, offsets=(before.offset, after.offset)))
    for job, events in history.jobs.items():
        state: JobState | None = None
        for event in events:
            if event.state is None:
                continue
            if event.type not in _VERBS or event.state not in JOB_MOVES.get((state, Verb(event.type)), ()):
                sentence = f"{job} has no move {event.type} from {state} to {event.state}"
                found.append(_finding("S4", sentence, job, event))
            state = event.state
    return found


def exclusive(history: History) -> list[Finding]:
    """S5: one live lease per job; workers keep to their slots, concurrency keys to their limit."""
    found: list[Finding] = []
    held: dict[str, Event] = {}
    for event in history.events:
        if event.job is None or event.state is None:
            continue
        if event.state is not JobState.RUNNING:
            found.extend(_early(history, held.pop(event.job, None), event))
            continue
        if event.job in held:
            sentence = f"{event.job} was claimed by {event.worker} while {held[event.job].worker} held it"
            found.append(_finding("S5", sentence, event.job, held[event.job], event))
        held[event.job] = event
        found.extend(_crowded(history, held, event))
    return found


def _early(history: History, claim: Event | None, event: Event) -> list[Finding]:
    """Find a lease that was taken back before it can have run out, renewed or not."""
    lease = history.terms.lease
    if lease is None or claim is None or event.job is None or event.type not in (Verb.REAP, Verb.BURY):
        return []
    stood = (event.at - max([claim.at, *history.renewed.get((event.job, claim.attempt or 0), ())])).total_seconds()
    if stood >= lease - _CLOSE:
        return []
    sentence = f"the lease of {claim.worker} on {event.job} was taken back after {stood:.3f} s of {lease:g} s"
    return [_finding("S5", sentence, event.job, claim, event)]


def _crowded(history: History, held: dict[str, Event], event: Event) -> list[Finding]:
    found: list[Finding] = []
    slots = None if history.terms.slots is None else history.terms.slots.get(event.worker or "")
    mine = [one for one in held.values() if one.worker == event.worker]
    if slots is not None and len(mine) > slots:
        sentence = f"{event.worker} has {slots} slots and holds {len(mine)} jobs"
        found.append(_group("S5", sentence, mine))
    request = history.requests.get(event.job or "")
    if request is not None and request.concurrency_key is not None:
        key = request.concurrency_key
        same = [one for job, one in held.items() if _key(history, job) == key]
        if len(same) > history.terms.key_running:
            found.append(_group("S5", f"{len(same)} jobs of the concurrency key {key!r} run together", same))
    return found


def _key(history: History, job: str) -> str | None:
    request = history.requests.get(job)
    return None if request is None else request.concurrency_key


def fenced(history: History) -> list[Finding]:
    """S6: a fence rises with every claim, and what is accepted under a lease carries the lease's fence and holder."""
    found: list[Finding] = []
    by_worker = {Verb.FINISH, Verb.FAIL, Verb.RETRY, Verb.WAIT, Verb.PROGRESS}
    endings: dict[tuple[str, int], Event] = {}
    for job, events in history.jobs.items():
        claim: Event | None = None
        for event in events:
            if event.type == Verb.CLAIM:
                if claim is not None and (event.attempt or 0) <= (claim.attempt or 0):
                    sentence = f"{job} was claimed with fence {event.attempt} after {claim.attempt}"
                    found.append(_finding("S6", sentence, job, claim, event))
                claim = event
            elif event.type in by_worker and (
                claim is None or (event.attempt, event.worker) != (claim.attempt, claim.worker)
            ):
                sentence = f"{event.type} of {job} was accepted under fence {event.attempt} of {event.worker}"
                found.append(_finding("S6", sentence, job, *([claim] if claim else []), event))
            if event.type in _BY_SETTLE and event.state is not None and event.attempt is not None:
                endings.setdefault((job, event.attempt), event)
    for told in history.told or ():
        if told.accepted and (told.job, told.fence) not in endings:
            sentence = f"a settlement of {told.job} under fence {told.fence} was accepted and left no event"
            found.append(Finding(invariant="S6", sentence=sentence, jobs=(told.job,)))
    return found


def effects_fenced(history: History) -> list[Finding] | None:
    """S7: no effect of a service under an older fence than it had, no more effects than claims, no success without."""
    if history.effects is None:
        return None
    found: list[Finding] = []
    highest: dict[tuple[str | None, str], int] = {}
    for effect in history.effects:
        place = (effect.service, effect.job)
        if effect.fence < highest.get(place, 0):
            sentence = f"{effect.job} had an effect under fence {effect.fence} after one under {highest[place]}"
            found.append(Finding(invariant="S7", sentence=sentence, jobs=(effect.job,)))
        highest[place] = max(effect.fence, highest.get(place, 0))
    effects = Counter(effect.job for effect in history.effects)
    for job, events in history.jobs.items():
        claims = [event for event in events if event.type == Verb.CLAIM]
        done = effects[job]
        if done > len(claims) + history.unclaimed.get(job, 0):
            found.append(_finding("S7", f"{job} had {done} effects in {len(claims)} attempts", job, *claims))
        request = history.requests.get(job)
        finish = next((event for event in events if event.type == Verb.FINISH), None)
        if finish is not None and request is not None and request.kind in history.terms.effectful and not done:
            found.append(_finding("S7", f"{job} succeeded and no service did anything for it", job, finish))
    return found


def budgets(history: History) -> list[Finding] | None:
    """S8: attempts and crashes stay within their budgets, a retry comes no earlier and waits no longer than it may."""
    delays = _delays(history)
    if history.final is None and not delays:
        return None
    found: list[Finding] = []
    for job, seen in (history.final or {}).items():
        for generation in range(1, seen.generation + 1):
            found.extend(_spent(history, job, seen, generation))
    for job, events in history.jobs.items():
        for event, after in zip_longest(events, events[1:]):
            delay = delays.get((job, event.attempt or 0))
            if delay is not None and event.type == Verb.RETRY:
                found.extend(_out_of_time(history, delay, event, after))
    return found


def _delays(history: History) -> dict[tuple[str, int], float]:
    """Return how long each retry had to wait, by job and fence: as its worker asked, or as its event says."""
    said = {
        (event.job or "", event.attempt or 0): event.data["delay"]
        for event in history.events
        if event.type == Verb.RETRY and "delay" in event.data
    }
    asked: dict[tuple[str, int], float | None] = {}
    for told in history.told or ():
        if told.accepted:  # the first word counts: what is sent again by the same fence changes nothing
            asked.setdefault((told.job, told.fence), told.delay)
    return said | {attempt: delay for attempt, delay in asked.items() if delay is not None}


def _spent(history: History, job: str, seen: Job, generation: int) -> list[Finding]:
    mine = [attempt for attempt in seen.attempts if attempt.generation == generation]
    counted = sum(1 for attempt in mine if attempt.counted)
    excused = {
        event.attempt
        for event in history.jobs.get(job, ())
        if event.type == Verb.REAP and event.data.get("charged") is False
    }
    lost = sum(1 for attempt in mine if attempt.outcome == "reap" and attempt.number not in excused)
    found: list[Finding] = []
    if history.terms.attempts is not None and counted > history.terms.attempts:
        sentence = f"{job} used {counted} of {history.terms.attempts} attempts"
        found.append(Finding(invariant="S8", sentence=sentence, jobs=(job,)))
    if history.terms.crashes is not None and lost > history.terms.crashes and seen.generation == generation:
        sentence = f"{job} was lost {lost} times, {history.terms.crashes} make it poison"
        found.append(Finding(invariant="S8", sentence=sentence, jobs=(job,)))
    return found


def _out_of_time(history: History, delay: float, event: Event, after: Event | None) -> list[Finding]:
    job = event.job or ""
    found: list[Finding] = []
    if event.state is JobState.READY and delay > _EARLY:
        found.append(_finding("S8", f"{job} came back at once, {delay} s were asked for", job, event))
    elif after is not None and after.type == Verb.WAKE and "reason" not in after.data:
        waited = (after.at - event.at).total_seconds()
        if waited < delay - _EARLY:
            found.append(_finding("S8", f"{job} came back after {waited} s of {delay} s", job, event, after))
    cap = history.terms.backoff_cap
    if cap is not None and delay > cap:
        found.append(_finding("S8", f"{job} waits {delay} s, {cap} s is the most", job, event))
    return found


def cancelled_means_cancelled(history: History) -> list[Finding]:
    """S14: once a cancel was asked for, the job ends cancelled (or expired) and no result of it is accepted."""
    found: list[Finding] = []
    for job, events in history.jobs.items():
        asked: Event | None = None
        for event in events:
            if event.type == Verb.CANCEL and event.state is None:
                asked = event
            elif asked is not None and event.state is not None:
                if event.state not in (JobState.CANCELLED, JobState.EXPIRED):
                    sentence = f"{job} was asked to stop and went on to {event.state}"
                    found.append(_finding("S14", sentence, job, asked, event))
                asked = None
    return found


def _finding(invariant: str, sentence: str, job: str, *events: Event) -> Finding:
    return Finding(invariant=invariant, sentence=sentence, jobs=(job,), offsets=tuple(event.offset for event in events))


def _group(invariant: str, sentence: str, events: list[Event]) -> Finding:
    return Finding(
        invariant=invariant,
        sentence=sentence,
        jobs=tuple(event.job for event in events if event.job),
        offsets=tuple(event.offset for event in events),
    )


LIFE: tuple[tuple[str, Rule], ...] = (
    ("S3", one_end),
    ("S4", legal_moves),
    ("S5", exclusive),
    ("S6", fenced),
    ("S7", effects_fenced),
    ("S8", budgets),
    ("S14", cancelled_means_cancelled),
)
