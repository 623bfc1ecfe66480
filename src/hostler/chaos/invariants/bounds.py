"""Liveness within bounds, once faults are over: L1 to L5."""

from datetime import datetime, timedelta
from typing import Final

from hostler.chaos.acts import Act
from hostler.chaos.facts import Finding, History
from hostler.chaos.invariants.service import WholeRule
from hostler.chaos.record import Circuit, Fault
from hostler.chaos.recovery import Struck, failovers, recoveries, spread
from hostler.chaos.whole import Whole
from hostler.contracts.event import Event
from hostler.contracts.job import JobState
from hostler.kernel.units import Seconds
from hostler.policy.breaker import Mode
from hostler.policy.lifecycle import Verb

LEASE: Final[Seconds] = 10.0
"""Length of a lease unless a queue's terms say otherwise."""
SKEW: Final[Seconds] = 1.0
"""How far two readings of one machine's wall clock may lie apart while it is busy."""


SEEN: Final = timedelta(seconds=5)
"""How late it may be seen that a breaker opened: what a worker finds is told with its next heartbeat."""


def all_end(whole: Whole) -> list[Finding] | str:
    """L1: some time after the last fault every job has ended; what cannot be claimed since it is paused may wait."""
    if whole.mark("drained") is None or not whole.read:
        return "the record does not say that all work was waited for"
    if not whole.streams:
        return "no events are in the record"
    over = _over(whole)
    found: list[Finding] = []
    for history in whole.histories.values():
        for job, state in history.states.items():
            last = next(event for event in reversed(history.jobs[job]) if event.state is not None)
            if not state.terminal:
                if history.shut and state is not JobState.RUNNING:
                    continue
                found.append(Finding(invariant="L1", sentence=f"{job} is still {state}", jobs=(job,)))
            elif over is not None and (late := _after(history, over, last.at)) > whole.header.bounds.terminal:
                sentence = (
                    f"{job} ended {late:.1f} s after the last fault, {whole.header.bounds.terminal:g} are allowed"
                )
                found.append(Finding(invariant="L1", sentence=sentence, jobs=(job,), offsets=(last.offset,)))
    return found


def _after(history: History, over: datetime, at: datetime) -> Seconds:
    """Return how long after a moment this was, without the time in which its queue was paused."""
    return (at - over).total_seconds() - history.closed_for(over, at)


def _over(whole: Whole) -> datetime | None:
    """Return when the last fault was over; None when there was none."""
    healed = whole.mark("healed")
    ends = [fault.ended_at for fault in whole.faults]
    return healed.t_wall if healed is not None else max(ends, default=None)


def recovers(whole: Whole) -> list[Finding] | str:
    """L2: what a fault struck is claimed again in time."""
    if not whole.faults:
        return "no faults are in the record"
    if not (struck := recoveries(whole)):
        return "no fault struck work that had to be claimed again"
    bounds = whole.header.bounds
    found = [
        _late(one, f"was never claimed again after the {one.fault.kind} of {one.fault.target}")
        for one in struck
        if one.waited is None and not _gave_up(whole, one.job)
    ]
    found += [
        _late(one, f"waited {one.waited:.1f} s after the {one.fault.kind} of {one.fault.target}")
        for one in struck
        if one.waited is not None and one.waited > bounds.recovery_most
    ]
    share = spread([one.waited for one in struck if one.waited is not None])
    if not found and share.p99 is not None and share.p99 > bounds.recovery_p99:
        sentence = f"p99 of {share.count} recoveries is {share.p99:.1f} s, {bounds.recovery_p99:g} s is the bound"
        found.append(Finding(invariant="L2", sentence=sentence))
    return found


def _gave_up(whole: Whole, job: str) -> bool:
    """Tell whether the job ended in another way (cancelled, expired), or the record ends before it could be claimed."""
    history = whole.histories[whole.home[job]]
    return history.states.get(job) in (JobState.CANCELLED, JobState.EXPIRED) or history.shut or not whole.read


def _late(one: Struck, words: str) -> Finding:
    return Finding(invariant="L2", sentence=f"{one.job} {words}", jobs=(one.job,), offsets=(one.held.offset,))


def submits_answered(whole: Whole) -> list[Finding] | str:
    """L3: whoever asks to submit is answered, by yes or no, before long, faults or not."""
    acts = [act for act in whole.acts if act.op == "submit"]
    if not acts:
        return "no submits are in the record"
    if not whole.faults:
        return "no faults are in the record"
    length, first = longest_gap(acts)
    if length <= whole.header.bounds.submit_gap:
        return []
    sentence = f"nobody could submit for {length:.1f} s from {first.process}'s submit at {first.begin:.3f} on"
    return [Finding(invariant="L3", sentence=f"{sentence}, {whole.header.bounds.submit_gap:g} s are allowed")]


def takes_over(whole: Whole) -> list[Finding] | str:
    """L3: where another server takes over from the engine's, jobs are settled again before long."""
    bound = whole.header.bounds.failover
    gaps = failovers(whole)
    if not gaps:
        return "no fault by which another server had to take over is in the record"
    return [
        Finding(
            invariant="L3",
            sentence=f"nothing was settled for {gap:.1f} s around the {fault.kind} of {fault.target}, "
            f"less than {bound:g} s are allowed",
        )
        for fault, gap in gaps
        if gap >= bound
    ]


def longest_gap(acts: list[Act]) -> tuple[Seconds, Act]:
    """Return the longest time from the first unanswered ask to the next answer to anybody, and who asked first.

    Asks that were never answered count up to the last beginning of an ask.
    """
    answers = sorted(act.end for act in acts if act.type != "info")
    last = max(act.begin for act in acts)
    worst, who = 0.0, acts[0]
    for act in acts:
        answered = next((end for end in answers if end >= act.begin), last)
        if answered - act.begin > worst:
            worst, who = answered - act.begin, act
    return worst, who


def leases_end(whole: Whole) -> list[Finding] | str:
    """L4: no lease is stuck after its holder is gone, and none is lost without a fault."""
    deaths = [fault for fault in whole.faults if fault.workers and fault.begin == fault.end]
    whole_story = whole.mark("began") is not None and bool(whole.streams)
    if not deaths and not whole_story:
        return "no worker died in the record, and it does not say that it names every fault"
    return [*_stuck(whole, deaths), *(_causeless(whole) if whole_story else ())]


def _causeless(whole: Whole) -> list[Finding]:
    """Find leases that were lost though nothing was broken while they stood, nor shortly before."""
    found: list[Finding] = []
    for history in whole.histories.values():
        lease = history.terms.lease or LEASE
        for job, events in history.jobs.items():
            claim: Event | None = None
            for event in events:
                claim = event if event.type == Verb.CLAIM else claim
                if (
                    event.type in (Verb.REAP, Verb.BURY)
                    and claim is not None
                    and not _broken(whole, claim, event, lease)
                ):
                    sentence = f"{claim.worker} lost its lease of {job}, and nothing was broken"
                    found.append(
                        Finding(invariant="L4", sentence=sentence, jobs=(job,), offsets=(claim.offset, event.offset))
                    )
    return found


def _broken(whole: Whole, claim: Event, reap: Event, lease: Seconds) -> bool:
    slack = timedelta(seconds=SKEW + lease)
    return any(
        fault.began_at <= reap.at
        and fault.ended_at >= claim.at - slack
        and (not fault.workers or claim.worker in fault.workers)
        for fault in whole.faults
    )


def _stuck(whole: Whole, deaths: list[Fault]) -> list[Finding]:
    """Find leases that stood longer than their length and the reaper's turn, a grace after other faults included."""
    found: list[Finding] = []
    for one in recoveries(whole):
        if one.fault not in deaths:
            continue
        lease = whole.histories[whole.home[one.job]].terms.lease or LEASE
        bound = lease + whole.header.bounds.reaper + SKEW + _grace(whole, one.fault, lease)
        ended = one.next.at if one.next is not None else _end(whole)
        stood = (ended - one.fault.began_at).total_seconds()
        if stood > bound:
            sentence = (
                f"the lease of {one.job} stood {stood:.1f} s after {one.held.worker} was gone, {bound:.1f} allowed"
            )
            found.append(Finding(invariant="L4", sentence=sentence, jobs=(one.job,), offsets=(one.held.offset,)))
    return found


def _grace(whole: Whole, death: Fault, lease: Seconds) -> Seconds:
    """Seconds more for each fault of something else than a worker that began before the lease was overdue."""
    overdue = lease + whole.header.bounds.reaper + SKEW
    more = 0.0
    for fault in whole.faults:
        if fault is death or whole.holders.intersection(fault.workers) or fault.end < death.begin:
            continue
        if fault.begin <= death.begin + more + overdue:
            more += fault.end - max(fault.begin, death.begin) + lease
    return more


def _end(whole: Whole) -> datetime:
    last = whole.mark("read")
    events = [stream[-1].at for stream in whole.streams.values() if stream]
    return last.t_wall if last is not None else max(events)


def breakers_close(whole: Whole) -> list[Finding] | str:
    """L5: the breaker of a service that answers again closes in time."""
    lines = whole.of(Circuit)
    if all(line.breaker is None for line in lines):
        return "no breakers are in the record"
    found: list[Finding] = []
    judged = False
    for fault in whole.faults:
        for endpoint in fault.endpoints:
            mine = [line for line in lines if line.endpoint == endpoint]
            for process in dict.fromkeys(line.process for line in mine):
                verdict = _closes(whole, fault, sorted((one for one in mine if one.process == process), key=_at))
                judged = judged or verdict is not None
                found.extend(verdict or [])
    return found if judged else "no fault opened a breaker"


def _at(line: Circuit) -> datetime:
    return line.at


def _closes(whole: Whole, fault: Fault, lines: list[Circuit]) -> list[Finding] | None:
    """Judge one breaker after one fault; None when it was not opened by it."""
    until = next((other.began_at for other in whole.faults if other.begin > fault.end), None)
    shut = (Mode.OPEN, Mode.HALF_OPEN)
    seen_until = fault.ended_at + SEEN
    opened = [line for line in lines if fault.began_at <= line.at <= seen_until and line.breaker in shut]
    if not opened:
        return None
    bound = whole.header.bounds.breaker
    over = (Mode.CLOSED, None)  # None: whose breaker it was is gone, or says nothing of it any more
    closed = next((line for line in lines if line.at > opened[0].at and line.breaker in over), None)
    ended = closed.at if closed is not None else until or _end(whole)
    took = min(
        (_after(history, fault.ended_at, ended) for history in whole.histories.values()),
        default=(ended - fault.ended_at).total_seconds(),
    )  # without calls it is not tried
    if took <= bound:
        return []  # closed in time, or the record ends before it had to be
    sentence = (
        f"the breaker of {opened[0].endpoint} was open {took:.1f} s after {fault.kind} was over, {bound:g} allowed"
    )
    return [Finding(invariant="L5", sentence=sentence)]


BOUNDS: Final[tuple[tuple[str, WholeRule], ...]] = (
    ("L1", all_end),
    ("L2", recovers),
    ("L3", submits_answered),
    ("L3", takes_over),
    ("L4", leases_end),
    ("L5", breakers_close),
)
