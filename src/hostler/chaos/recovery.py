"""How long the work that a fault struck waited for its next claim."""

import math
from bisect import bisect_left
from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise
from typing import Final

from msgspec import Struct

from hostler.chaos.facts import History
from hostler.chaos.record import Fault
from hostler.chaos.whole import Whole
from hostler.contracts.event import Event
from hostler.contracts.job import JobState
from hostler.kernel.units import Seconds
from hostler.policy.lifecycle import Verb

SETTLED: Final = (Verb.FINISH, Verb.FAIL, Verb.RETRY, Verb.WAIT)


class Struck(Struct, frozen=True, kw_only=True):
    """One job that a fault struck."""

    fault: Fault
    job: str
    held: Event
    """The claim under which it ran."""
    next: Event | None
    """Its first move after the fault began."""
    waited: Seconds | None
    """From the fault's end to the next claim, 0 when it was claimed before that; None when it never was.

    Without the time in which nobody could claim it since somebody had paused its queue.
    """


class Spread(Struct, frozen=True, kw_only=True):
    """Recovery times of a whole run, in seconds; None when nothing was struck."""

    count: int = 0
    p50: Seconds | None = None
    p99: Seconds | None = None
    max: Seconds | None = None
    histogram: dict[str, int] = {}
    """How many took up to so many seconds."""


_EDGES = (1, 2, 5, 10, 15, 20, 30, 60)


def spread(times: Sequence[Seconds]) -> Spread:
    """Return the spread of these times."""
    if not times:
        return Spread()
    ordered = sorted(times)
    histogram: dict[str, int] = {}
    for time in ordered:
        edge = next((str(edge) for edge in _EDGES if time <= edge), f"over {_EDGES[-1]}")
        histogram[edge] = histogram.get(edge, 0) + 1
    return Spread(
        count=len(ordered),
        p50=round(_share(ordered, 0.5), 3),
        p99=round(_share(ordered, 0.99), 3),
        max=round(ordered[-1], 3),
        histogram=histogram,
    )


def _share(ordered: Sequence[Seconds], share: float) -> Seconds:
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def failovers(whole: Whole) -> list[tuple[Fault, Seconds]]:
    """Return each fault by which the engine may lose something, with the longest time around it between settled jobs.

    What was lost is not among them: it counts as time without. Time in which nobody asked for anything does not count.
    """
    moves = sorted(event.at for stream in whole.streams.values() for event in stream if event.type in SETTLED)
    asked = sorted(act.begun_at for act in whole.acts if act.op == "submit")
    gaps = [pair for pair in pairwise(moves) if bisect_left(asked, pair[0]) < bisect_left(asked, pair[1])]
    return [
        (fault, max(((after - before).total_seconds() for before, after in gaps
                     if before <= fault.ended_at and after >= fault.began_at), default=0.0))
        for fault in whole.faults if fault.loses
    ]  # fmt: skip


def recoveries(whole: Whole) -> list[Struck]:
    """Return every job that a fault struck and that its holder did not end by itself.

    A fault that names workers struck the jobs that those held when it began; any other struck the jobs that ran then
    and lost their lease later. What a later fault did to the holder before the lease was lost is that one's doing.
    """
    found: list[Struck] = []
    for fault in whole.faults:
        for queue, history in whole.histories.items():
            if not fault.queues or queue in fault.queues:
                found.extend(one for one in _struck(history, fault) if not _of_another(whole, one))
    return found


def _struck(history: History, fault: Fault) -> list[Struck]:
    found: list[Struck] = []
    for job, events in history.jobs.items():
        moves = [event for event in events if event.state is not None]
        before = [event for event in moves if event.at <= fault.began_at]
        if not before or before[-1].state is not JobState.RUNNING:
            continue
        held, later = before[-1], moves[len(before) :]
        after = later[0] if later else None
        if fault.workers and held.worker not in fault.workers:
            continue
        lost = after is None or after.type == Verb.REAP or (bool(fault.workers) and after.type == Verb.BURY)
        if not lost or (after is None and not fault.workers):
            continue  # its holder went on and ended it, or goes on still
        waited = _waited(history, later, fault.ended_at)
        found.append(Struck(fault=fault, job=job, held=held, next=after, waited=waited))
    return found


def _of_another(whole: Whole, one: Struck) -> bool:
    """Tell whether a later fault struck the holder before its lease was lost."""
    for other in whole.faults:
        later = other.begin > one.fault.begin and (one.next is None or other.began_at < one.next.at)
        if later and one.held.worker in other.workers:
            return True
    return False


def _waited(history: History, later: Sequence[Event], since: datetime) -> Seconds | None:
    if later and later[0].state is not None and later[0].state.terminal:
        return max(0.0, (later[0].at - since).total_seconds())  # poison: its recovery is its burial
    claim = next((event for event in later if event.type == Verb.CLAIM), None)
    if claim is None:
        return None
    return max(0.0, (claim.at - since).total_seconds() - history.closed_for(since, claim.at))
