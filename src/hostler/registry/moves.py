"""Which moves of a worker's state lead from what was known to what it says now: pure, from the one table."""

from collections import deque
from functools import cache

from hostler.contracts.worker import WorkerState
from hostler.policy.lifecycle import WORKER_MOVES

UNKNOWN = "none"
"""How a worker that the registry does not know is written."""

_ENDED = frozenset({WorkerState.STOPPED, WorkerState.FAILED, WorkerState.LOST})


@cache
def paths(state: WorkerState) -> dict[str, list[str]]:
    """Return, for each state before, the states that lead to `state`; a state that is absent has no way there.

    A worker that is sampled by its heartbeat may have made several moves since: all of them are told. An
    unknown worker that says anything but `starting` was forgotten while it lived on, so it comes back as from
    `lost`. `starting` under a name that is in use is another process: the one before is lost.
    """
    found = {UNKNOWN: _first(state)}
    for before in WorkerState:
        if before is state:
            continue
        found[before.value] = _again(before) if state is WorkerState.STARTING else _way(before, state)
    return {before: [step.value for step in steps] for before, steps in found.items() if steps}


def _first(state: WorkerState) -> list[WorkerState]:
    if (None, state) in WORKER_MOVES or (WorkerState.LOST, state) in WORKER_MOVES:
        return [state]
    return []


def _again(before: WorkerState) -> list[WorkerState]:
    return [WorkerState.STARTING] if before in _ENDED else [WorkerState.LOST, WorkerState.STARTING]


def _way(before: WorkerState, state: WorkerState) -> list[WorkerState]:
    """Return the shortest way that loses nobody on it."""
    line = deque[tuple[WorkerState, list[WorkerState]]]([(before, [])])
    seen = {before}
    while line:
        here, steps = line.popleft()
        if here is state:
            return steps
        for source, target in WORKER_MOVES:
            if source is here and target not in seen and target is not WorkerState.LOST:
                seen.add(target)
                line.append((target, [*steps, target]))
    return []
