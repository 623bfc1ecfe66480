"""Is there one order of a job's operations that explains every answer? A search after Wing, Gong and Lowe.

Each operation takes effect at one moment between its beginning and its end. Jobs are judged one by one: a history is
linearizable when the history of every job is.
"""

import math
from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

from msgspec import Struct

from hostler.chaos.model import Call, JobModel, State

NODES_MOST: Final = 200_000
"""Configurations that are looked at before a job is left undecided."""


class Outcome(Struct, frozen=True, kw_only=True):
    """What the search found for one job."""

    verdict: Literal["linearizable", "not linearizable", "not decided"]
    looked_at: int = 0
    witness: tuple[Call, ...] = ()
    """The fewest operations that no order explains, as they began."""


class _Node(NamedTuple):
    done: int
    """Which calls have taken effect, as bits."""
    state: State


def search(calls: Sequence[Call], model: JobModel, *, most: int = NODES_MOST) -> Outcome:
    """Look for an order; with none, for the fewest calls that already have none."""
    verdict, looked_at = _explained(calls, model, most)
    if verdict is None:
        return Outcome(verdict="not decided", looked_at=looked_at)
    if verdict:
        return Outcome(verdict="linearizable", looked_at=looked_at)
    return Outcome(verdict="not linearizable", looked_at=looked_at, witness=_smallest(calls, model, most))


def _explained(calls: Sequence[Call], model: JobModel, most: int) -> tuple[bool | None, int]:
    """Tell whether an order exists, None when `most` configurations did not decide it."""
    needed = sum(1 << place for place, call in enumerate(calls) if call.certain)
    start = _Node(0, State())
    seen = {start}
    waiting = [start]
    while waiting:
        node = waiting.pop()
        if node.done & needed == needed:
            return True, len(seen)
        horizon = min(call.end for place, call in enumerate(calls) if call.certain and not node.done >> place & 1)
        following = [_Node(node.done, state) for state in model.moves(node.state)]
        for place, call in enumerate(calls):
            if call.begin <= horizon and not node.done >> place & 1:
                following.extend(_Node(node.done | 1 << place, state) for state in model.step(node.state, call))
        for one in following:
            if one not in seen:
                seen.add(one)
                waiting.append(one)
        if len(seen) > most:
            return None, len(seen)
    return False, len(seen)


def _smallest(calls: Sequence[Call], model: JobModel, most: int) -> tuple[Call, ...]:
    """Cut the history as early as it fails, then leave out whatever it fails without."""
    kept: Sequence[Call] = calls
    for end in sorted(call.end for call in calls if call.certain):
        early = tuple(_as_of(call, end) for call in calls if call.begin <= end)
        if _explained(early, model, most)[0] is False:
            kept = early
            break
    for call in list(kept):
        fewer = tuple(one for one in kept if one is not call)
        if not (call.changes and call.certain) and _explained(fewer, model, most)[0] is False:
            kept = fewer
    return tuple(kept)


def _as_of(call: Call, end: float) -> Call:
    """Return a call as it was known at a time: one that had not ended yet may have happened or not."""
    if call.end <= end:
        return call
    return Call(
        verb=call.verb,
        begin=call.begin,
        end=math.inf,
        certain=False,
        process=call.process,
        fence=call.fence,
        how=call.how,
        generation=call.generation if call.verb == "claim" else None,
    )
