"""Linearizability, job by job: the client log cut into one history per job, and the search over each."""

import math
from collections.abc import Iterator, Mapping
from itertools import zip_longest
from typing import Final

import msgspec
from msgspec import Struct

from hostler.chaos.acts import Act, merged
from hostler.chaos.facts import Finding
from hostler.chaos.model import Call, JobModel, Own
from hostler.chaos.search import NODES_MOST, search
from hostler.chaos.values import Answers, Endings, Leases, Refs, Refused, Seen, Stale, Value, Words
from hostler.chaos.whole import Whole
from hostler.contracts.event import Event
from hostler.contracts.fence import attempt_of
from hostler.contracts.job import JobState
from hostler.policy.lifecycle import Verb

CALLS_MOST: Final = 400
"""Operations of one job; one with more is left undecided."""
NAME: Final = "LIN"
_ONE_JOB: Final = frozenset({"get", "cancel", "replay", "wake", "purge"})
_BY_SETTLE: Final = frozenset({Verb.FINISH, Verb.FAIL, Verb.RETRY, Verb.WAIT})


class Linear(Struct, frozen=True, kw_only=True):
    """What the searches over all jobs found."""

    findings: tuple[Finding, ...]
    jobs: int
    undecided: tuple[str, ...]


def linearizable(whole: Whole, *, most: int = NODES_MOST) -> Linear | str:
    """LIN: each job's operations have one order, within their times, that explains every answer."""
    if not whole.acts:
        return "no client log is in the record"
    if not whole.header.one_clock:
        return "the clients' clocks do not compare"
    calls = _by_job(whole)
    ghosts = any(act.op == "claim" and act.type == "info" for act in whole.acts)
    recorded = any(act.op == "claim" for act in whole.acts)
    if not recorded and not whole.streams:
        return "neither events nor the calls of workers are in the record"
    found: list[Finding] = []
    undecided: list[str] = []
    for job, mine in calls.items():
        queue = whole.home.get(job)
        known = queue in whole.streams and queue not in whole.partial
        events = whole.histories[queue].jobs.get(job, []) if queue is not None and known else []
        own = _own_moves(events, mine) if known else None
        if own is None and not (recorded and any(call.verb == "submit" for call in mine)):
            continue  # what moved it is not known
        if len(mine) > CALLS_MOST:
            undecided.append(job)
            continue
        ordered = sorted(mine, key=lambda call: call.begin)
        outcome = search(ordered, JobModel(own=own, ghosts=ghosts), most=most)
        if outcome.verdict == "not decided":
            undecided.append(job)
        elif outcome.verdict == "not linearizable":
            words = "; ".join(str(call) for call in outcome.witness)
            found.append(
                Finding(invariant=NAME, sentence=f"no order of {job}'s operations explains: {words}", jobs=(job,))
            )
    return Linear(findings=tuple(found), jobs=len(calls), undecided=tuple(undecided))


def _by_job(whole: Whole) -> Mapping[str, list[Call]]:
    """Cut the log: one call per job that an operation names."""
    calls: dict[str, list[Call]] = {}
    for act in merged(_certain(whole)):
        for job, call in _calls(act):
            calls.setdefault(job, []).append(call)
    lost = [act.begin for act in whole.acts if act.op == "submit" and act.type == "info"]
    for mine in calls.values():
        if lost and not any(call.verb == "submit" for call in mine):
            mine.append(Call(verb="submit", begin=min(lost), end=math.inf, certain=False, process="somebody"))
    return calls


def _certain(whole: Whole) -> list[Act]:
    """Return the operations without looks that say nothing, or say what was lost afterwards.

    Of others whose answer the engine may have lost, nobody knows any more whether they happened.
    """
    found: list[Act] = []
    for act in whole.acts:
        undone = whole.undone(act)
        if act.op == "get" and (undone or act.type == "info"):
            continue
        found.append(msgspec.structs.replace(act, type="info", end=math.inf) if undone else act)
    return found


def _calls(act: Act) -> Iterator[tuple[str, Call]]:
    """Yield the calls of one operation by job; what could not have named a job yields nothing."""
    base = Call(verb=act.op, begin=act.begin, end=act.end, certain=act.type != "info", process=act.process)
    if act.op in _ONE_JOB and act.job is not None:
        yield act.job, _of_one_job(act, base)
    elif isinstance(act.answered, Answers):
        for answer in act.answered.answers:
            if answer.id is not None:
                yield answer.id, _with(base, verb="submit" if answer.created else "known")
    elif isinstance(act.answered, Leases):
        for lease in act.answered.leases:
            yield lease.job, _with(base, fence=attempt_of(lease.fence), generation=lease.generation)
    elif isinstance(act.asked, Endings) and act.type != "fail":
        yield from _settles(act.asked, act.answered, base)
    elif isinstance(act.asked, Refs) and isinstance(act.answered, Stale):
        for ref in act.asked.leases:
            yield ref.job_id, _with(base, fence=attempt_of(ref.fence), accepted=ref not in act.answered.lost)


def _of_one_job(act: Act, base: Call) -> Call:
    if act.type == "fail":
        return _with(base, refused=act.answered.code if isinstance(act.answered, Refused) else "refused")
    if isinstance(act.answered, Seen):
        return _with(base, state=act.answered.state, attempt=act.answered.attempt, generation=act.answered.generation)
    return base


def _settles(asked: Endings, answered: Value | None, base: Call) -> Iterator[tuple[str, Call]]:
    words = answered.words if isinstance(answered, Words) else ()
    for one, word in zip_longest(asked.endings, words):
        state = word.state if word is not None and word.accepted else None
        accepted = None if word is None else word.accepted
        yield one.job, _with(base, fence=attempt_of(one.fence), how=one.how, accepted=accepted, state=state)


def _with(
    call: Call,
    *,
    verb: str | None = None,
    refused: str | None = None,
    fence: int | None = None,
    how: str | None = None,
    accepted: bool | None = None,
    state: JobState | None = None,
    attempt: int | None = None,
    generation: int | None = None,
) -> Call:
    return Call(
        verb=verb or call.verb,
        begin=call.begin,
        end=call.end,
        certain=call.certain,
        process=call.process,
        refused=refused or call.refused,
        fence=fence,
        how=how,
        accepted=accepted,
        state=state,
        attempt=attempt,
        generation=generation,
    )


def _own_moves(events: list[Event], calls: list[Call]) -> tuple[Own, ...]:
    """Return the events that no call of the log accounts for, in order."""
    claimed = {call.fence for call in calls if call.verb == "claim"}
    settled = {call.fence for call in calls if call.verb == "settle" and call.accepted is not False}
    asked = {call.verb for call in calls if call.changes}
    found: list[Own] = []
    state: JobState | None = None
    for event in events:
        fence = event.attempt or 0
        by_client = (
            (event.type == Verb.CLAIM and fence in claimed)
            or (event.type in _BY_SETTLE and fence in settled)
            or (
                event.type == Verb.CANCEL and state is JobState.RUNNING and event.state is not None and fence in settled
            )
            or (
                event.type == Verb.CANCEL
                and (state is not JobState.RUNNING or event.state is None)
                and "cancel" in asked
            )
            or (event.type == Verb.WAKE and "reason" in event.data and "wake" in asked)
            or (event.type in (Verb.SUBMIT, Verb.REPLAY, "purge") and str(event.type) in asked)
        )
        moves = event.state is not None or event.type in (Verb.CANCEL, "purge")
        if moves and not by_client:
            found.append(Own(verb=event.type, state=event.state, fence=fence))
        state = event.state or state
    return tuple(found)
