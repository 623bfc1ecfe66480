"""What a scenario must show beside that every invariant held; each yields a sentence for what it did not."""

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from hostler.chaos.counts import held_back
from hostler.chaos.invariants.service import FULL
from hostler.chaos.load import POISON
from hostler.chaos.outcome import Facts
from hostler.chaos.record import Effect, Mark, Roster
from hostler.chaos.values import Refused, Requests
from hostler.contracts.event import Event
from hostler.contracts.job import Job, JobRequest, JobState
from hostler.contracts.queue import RetryPolicy
from hostler.kernel.units import Seconds
from hostler.policy.lifecycle import Verb

Show = Callable[[Facts], Iterator[str]]

UNWORKABLE_WITHIN: Final[Seconds] = 6.0
"""From the first submit of what nobody can run to the word about it: 5 s are promised, and one look."""
CLAIMS_A_JOB: Final = 3.0
"""Most claims of a job, on average, while services fail: five attempts are allowed to each."""
_BUDGET: Final = RetryPolicy()


def all_good_work_ends(facts: Facts) -> Iterator[str]:
    """What can be run, and nobody cancelled, ends well, or dies with its budget used up."""
    good = 0
    for job, request in _requests(facts).items():
        state = facts.states.get(job)
        if request.kind == POISON or _unservable(request) or _cancelled(facts.stories[job]):
            continue
        good += 1
        if state is JobState.DEAD and not _spent(facts.stories[job], facts.jobs.get(job)):
            yield f"{job} is dead, and its attempts and crashes were not used up"
        elif state is not None and state.terminal and state not in (JobState.SUCCEEDED, JobState.DEAD):
            yield f"{job} is {state}, and nobody asked for that"
    if not good:
        yield "no work that could be run was submitted"


def another_took_over(facts: Facts) -> Iterator[str]:
    """The engine began another life at least once."""
    if not any(len(lives) > 1 for lives in facts.whole.lives.values()):
        yield "no other server took over"


def work_waits_for_a_pause(facts: Facts) -> Iterator[str]:
    """A queue was paused while work stood in its line, and that was done afterwards."""
    if not any(any(held_back(history.events)) for history in facts.whole.histories.values()):
        yield "no queue was paused while work waited in it"


def taken_back(facts: Facts) -> Iterator[str]:
    """Work was taken from workers that were gone, and others did it."""
    taken = again = 0
    for story in facts.stories.values():
        for place, event in enumerate(story):
            if event.type == Verb.REAP:
                taken += 1
                later = [other.worker for other in story[place:] if other.type == Verb.CLAIM]
                again += bool(later) and later[0] != event.worker
    if not taken:
        yield "nothing was taken back: no worker was gone while it held a job"
    elif not again:
        yield "what was taken back was never done by another worker"


def nothing_done_is_missed(facts: Facts) -> Iterator[str]:
    """What a service finished is recorded, unless it was cancelled."""
    done = {effect.job for effect in facts.whole.of(Effect) if effect.type == "finished"}
    for job in done:
        state = facts.states.get(job)
        if state is not JobState.SUCCEEDED and not _cancelled(facts.stories.get(job, ())):
            yield f"{job} was done by a service, and is {state}"
    if not done:
        yield "no service finished anything"


def one_at_a_time(facts: Facts) -> Iterator[str]:
    """Workers have one slot, and each held one job at most."""
    slots = {row.slots for row in facts.whole.of(Roster)}
    if slots != {1}:
        yield f"workers said that they have {sorted(map(str, slots))} slots, not one"
    held: dict[str, set[str]] = {}
    moves = [event for story in facts.stories.values() for event in story if event.state is not None]
    for event in sorted(moves, key=lambda event: event.at):
        for jobs in held.values():
            jobs.discard(event.job or "")
        if event.state is JobState.RUNNING and event.worker is not None:
            mine = held.setdefault(event.worker, set())
            mine.add(event.job or "")
            if len(mine) > 1:
                yield f"{event.worker} held {len(mine)} jobs: {', '.join(sorted(mine))}"


def crowds_are_answered(facts: Facts) -> Iterator[str]:
    """Every submit was answered in the end."""
    asked: set[str | None] = set()
    answered: set[str | None] = set()
    for act in facts.whole.acts:
        if isinstance(act.asked, Requests):
            keys = {request.idempotency_key for request in act.asked.requests}
            asked |= keys
            answered |= keys if act.type != "info" else set()
    if asked - answered:
        yield f"{len(asked - answered)} of {len(asked)} submits were never answered, however often they were sent"


def the_full_queue_says_when(facts: Facts) -> Iterator[str]:
    """Some of a crowd found the queue full, and were told when to come back; what they were told is S15's."""
    refused = [act for act in facts.whole.acts if isinstance(act.answered, Refused)]
    if not any(isinstance(act.answered, Refused) and act.answered.code == FULL for act in refused):
        yield "no queue was ever full"


def poison_dies(facts: Facts) -> Iterator[str]:
    """A poison job is dead after the crashes that its budget allows, and says whom it took down."""
    poison = [job for job, request in _requests(facts).items() if request.kind == POISON]
    if not poison:
        yield "no poison was submitted"
    for job in poison:
        if facts.states.get(job) is not JobState.DEAD:
            yield f"{job} is poison, and {facts.states.get(job)}"
            continue
        burial = facts.stories[job][-1]
        lost = [event for event in facts.stories[job] if event.type in (Verb.REAP, Verb.BURY)]
        charged = [event for event in lost if event.data.get("charged") is not False]
        if len(charged) != _BUDGET.crashes:
            yield f"{job} died after it took {len(charged)} workers down, not {_BUDGET.crashes}"
        if set(burial.data.get("workers", ())) != {event.worker for event in charged}:
            yield f"{job} does not name the workers that it took down"


def innocents_live(facts: Facts) -> Iterator[str]:
    """Nothing else dies of what poison did to the workers that it shared with it."""
    for job, request in _requests(facts).items():
        if request.kind != POISON and facts.stories[job][-1].type == Verb.BURY:
            yield f"{job} is dead as poison, and never harmed a worker"


def retries_are_few_and_apart(facts: Facts) -> Iterator[str]:
    """Failed work is tried again, later or elsewhere, and not often."""
    claims = sum(event.type == Verb.CLAIM for story in facts.stories.values() for event in story)
    retries = [event for story in facts.stories.values() for event in story if event.type == Verb.RETRY]
    if not retries:
        yield "nothing was tried again"
    if claims > CLAIMS_A_JOB * len(facts.stories):
        yield f"{claims} claims of {len(facts.stories)} jobs: that is a storm"


def good_work_passes_the_unservable(facts: Facts) -> Iterator[str]:
    """What nobody can run is named soon, never claimed, and holds nothing up."""
    requests = _requests(facts)
    stuck = [job for job, request in requests.items() if _unservable(request)]
    if not stuck:
        yield "nothing was submitted that nobody can run"
        return
    yield from (f"{job} was claimed, and nobody can run it" for job in stuck if _claimed(facts.stories[job]))
    first = min(facts.stories[job][0].at for job in stuck)
    said = [
        event.at for history in facts.whole.histories.values() for event in history.events if event.type == "unworkable"
    ]
    if not said or (min(said) - first).total_seconds() > UNWORKABLE_WITHIN:
        yield f"nobody said within {UNWORKABLE_WITHIN:g} s that there is work which nobody can run"
    good = [job for job in requests if job not in set(stuck)]
    healed = next((mark.t_wall for mark in facts.whole.of(Mark) if mark.what == "healed"), None)
    if not any(_claimed(facts.stories[job]) and (healed is None or facts.stories[job][-1].at < healed) for job in good):
        yield "no other work was done while they stood first in line"


def _requests(facts: Facts) -> dict[str, JobRequest]:
    return {job: request for history in facts.whole.histories.values() for job, request in history.requests.items()
            if job in facts.stories}  # fmt: skip


def _unservable(request: JobRequest) -> bool:
    return "tier" in request.needs.labels


def _cancelled(story: Sequence[Event]) -> bool:
    return any(event.type == Verb.CANCEL for event in story)


def _claimed(story: Sequence[Event]) -> bool:
    return any(event.type == Verb.CLAIM for event in story)


def _spent(story: Sequence[Event], job: Job | None) -> bool:
    lost = (Verb.REAP, Verb.BURY)
    charged = sum(event.type in lost and event.data.get("charged") is not False for event in story)
    counted = sum(attempt.counted for attempt in job.attempts) if job is not None else 0
    return charged >= _BUDGET.crashes or counted >= _BUDGET.attempts
