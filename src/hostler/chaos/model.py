"""One job as a register that operations read and move: what linearizability is judged against.

The model is nondeterministic: what the engine does by itself (a lease that is lost, a retry that is due) may happen
between any two operations, in the order of the events where those are known.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Final, NamedTuple

from msgspec import Struct

from hostler.contracts.fence import attempt_of
from hostler.contracts.job import JobState
from hostler.kernel.units import Seconds
from hostler.policy.lifecycle import JOB_MOVES, Verb

J = JobState


class State(NamedTuple):
    """How a job is, as far as any operation can tell."""

    state: JobState | None = None
    """None before it was submitted, and after it was purged."""
    fence: int = 0
    generation: int = 0
    known: bool = True
    """Whether the holder of the lease learnt its fence; it did not when the answer to its claim never came."""
    cancel: bool = False
    settled: str | None = None
    """The ending by which the last attempt was settled under `fence`; None when it runs, or was taken back."""
    moved: int = 0
    """How many of the engine's own moves have happened."""


class Call(Struct, frozen=True, kw_only=True):
    """One operation on one job."""

    verb: str
    begin: Seconds
    end: Seconds
    """Infinity when it may have happened at any time after `begin`, or never."""
    certain: bool
    """False: it may never have happened, and what it would have been answered is not known."""
    process: str
    refused: str | None = None
    """The code it was refused with; it changed nothing."""
    fence: int | None = None
    how: str | None = None
    """The ending that a `settle` asked for."""
    accepted: bool | None = None
    state: JobState | None = None
    """What it was told; None: not said."""
    attempt: int | None = None
    generation: int | None = None

    @property
    def changes(self) -> bool:
        """Tell whether it may have changed the job."""
        return self.refused is None and self.verb not in {"get", "renew", "progress"} and self.accepted is not False

    def __str__(self) -> str:
        asked = f" {self.how}" if self.how else ""
        under = "" if self.fence is None else f" under fence {self.fence}"
        if not self.certain:
            told = "was not answered"
        elif self.refused is not None:
            told = f"was refused ({self.refused})"
        elif self.accepted is False:
            told = "was refused as stale"
        else:
            told = f"was told {self.state}" if self.state else "was told yes"
        return f"{self.verb}{asked}{under} of {self.process} {told}"


class Own(Struct, frozen=True, kw_only=True):
    """One move of the engine's own, as its event tells."""

    verb: str
    state: JobState | None
    fence: int
    generation: int | None = None


_ENDINGS: Final = {
    "succeed": (J.SUCCEEDED,),
    "again": (J.READY, J.SCHEDULED, J.DEAD),
    "hold": (J.WAITING,),
    "die": (J.DEAD,),
    "stopped": (J.CANCELLED,),
}
_ENDED: Final = frozenset({J.SUCCEEDED, J.DEAD, J.CANCELLED, J.EXPIRED})


class JobModel:
    """The life of one job.

    `own` are the engine's own moves in order, None when they are not known. With `ghosts` a claim may have happened
    of which no answer was seen.
    """

    def __init__(self, *, own: tuple[Own, ...] | None, ghosts: bool) -> None:
        self._own = own
        self._ghosts = ghosts
        self._steps: Mapping[str, Callable[[State, Call], Iterator[State]]] = {
            "claim": self._claim,
            "get": self._get,
            "renew": self._renew,
            "progress": self._renew,
            "settle": self._settle,
            "cancel": self._cancel,
        }

    def step(self, now: State, call: Call) -> Iterator[State]:
        """Yield the states that this call, answered as it was, may lead to at once; nothing when it cannot be."""
        if call.refused is not None:
            yield from self._refusal(now, call)
        elif call.verb in _PLAIN:
            yield from _PLAIN[call.verb](now)
        elif call.verb in self._steps:
            yield from self._steps[call.verb](now, call)
        else:
            yield now

    def moves(self, now: State) -> Iterator[State]:
        """Yield the states that the engine's own next move may lead to."""
        if self._ghosts and now.state is J.READY:
            yield now._replace(state=J.RUNNING, known=False, settled=None)
        if self._own is not None:
            if now.moved < len(self._own):
                yield from _own(now, self._own[now.moved])
            return
        for (state, verb), targets in JOB_MOVES.items():
            if state is now.state and verb in _BY_ITSELF and (verb is not Verb.CANCEL or now.cancel):
                for target in targets:
                    yield _left(now, target, None)

    def _refusal(self, now: State, call: Call) -> Iterator[State]:
        if call.refused == "not-found":
            possible = now.state is None
        elif call.refused == "state-conflict":
            possible = _conflicts(now, call.verb)
        else:
            possible = True
        if possible:
            yield now

    def _claim(self, now: State, call: Call) -> Iterator[State]:
        fence = call.fence or 0
        free = now.state is J.READY or (now.state is J.RUNNING and not now.known)
        if free and fence > now.fence and call.generation in (None, now.generation):
            yield now._replace(state=J.RUNNING, fence=fence, known=True, settled=None, cancel=False)

    def _get(self, now: State, call: Call) -> Iterator[State]:
        attempt = now.fence if now.known and not self._ghosts else None
        if (
            now.state is call.state
            and call.generation in (None, now.generation)
            and (attempt is None or call.attempt in (None, attempt_of(attempt)))
        ):
            yield now

    def _renew(self, now: State, call: Call) -> Iterator[State]:
        if call.accepted is False or _holds(now, call):
            yield now

    def _settle(self, now: State, call: Call) -> Iterator[State]:
        held, repeated = _holds(now, call), now.fence == call.fence and now.settled == call.how
        if call.accepted is False:
            if not held and not repeated:
                yield now
            return
        if held:
            for target in (J.CANCELLED,) if now.cancel else _ENDINGS.get(call.how or "", ()):
                if call.state in (None, target):
                    yield _left(now, target, call.how)
        elif repeated:
            yield now

    def _cancel(self, now: State, call: Call) -> Iterator[State]:
        if now.state is J.RUNNING and call.state in (None, J.RUNNING):
            yield now._replace(cancel=True)
        elif now.state in (J.READY, J.SCHEDULED, J.WAITING) and call.state in (None, J.CANCELLED):
            yield now._replace(state=J.CANCELLED)
        elif now.state is J.CANCELLED and call.state in (None, J.CANCELLED):
            yield now


def _submit(now: State) -> Iterator[State]:
    if now.generation == 0:
        for state in (J.READY, J.SCHEDULED):
            yield now._replace(state=state, generation=1)


def _known(now: State) -> Iterator[State]:
    if now.generation > 0:
        yield now


def _replay(now: State) -> Iterator[State]:
    if now.state is J.DEAD:
        yield now._replace(state=J.READY, generation=now.generation + 1, cancel=False, settled=None)


def _wake(now: State) -> Iterator[State]:
    if now.state in (J.WAITING, J.SCHEDULED):
        yield now._replace(state=J.READY)


def _purge(now: State) -> Iterator[State]:
    if now.state in _ENDED:
        yield now._replace(state=None)


_PLAIN: Final[Mapping[str, Callable[[State], Iterator[State]]]] = {
    "submit": _submit,
    "known": _known,
    "replay": _replay,
    "wake": _wake,
    "purge": _purge,
}
"""Verbs whose answer says nothing but that it was done."""
_BY_ITSELF: Final = frozenset({Verb.WAKE, Verb.REAP, Verb.BURY, Verb.EXPIRE, Verb.CANCEL})


def _holds(now: State, call: Call) -> bool:
    return now.state is J.RUNNING and now.known and now.fence == call.fence


def _left(now: State, target: JobState, how: str | None) -> State:
    """Return the state after an attempt, or a wait, ended."""
    settled = how if now.state is J.RUNNING else now.settled
    return now._replace(state=target, settled=settled, known=True, cancel=False)


def _conflicts(now: State, verb: str) -> bool:
    if verb == "cancel":
        return now.state in (J.SUCCEEDED, J.DEAD, J.EXPIRED)
    if verb == "replay":
        return now.state is not J.DEAD
    if verb == "wake":
        return now.state not in (J.WAITING, J.SCHEDULED)
    return verb != "purge" or now.state not in _ENDED


def _own(now: State, own: Own) -> Iterator[State]:
    moved = now.moved + 1
    if own.state is None:
        if own.verb == Verb.CANCEL and now.state is J.RUNNING:
            yield now._replace(cancel=True, moved=moved)
        elif own.verb == "purge" and now.state in _ENDED:
            yield now._replace(state=None, moved=moved)
        return
    if own.verb not in frozenset(Verb) or own.state not in JOB_MOVES.get((now.state, Verb(own.verb)), ()):
        return
    if own.verb == Verb.SUBMIT:
        yield now._replace(state=own.state, generation=1, moved=moved)
    elif own.verb == Verb.CLAIM:
        if own.fence > now.fence:
            yield now._replace(state=own.state, fence=own.fence, known=True, settled=None, cancel=False, moved=moved)
    elif own.verb == Verb.REPLAY:
        yield now._replace(state=own.state, generation=now.generation + 1, cancel=False, settled=None, moved=moved)
    else:
        yield _left(now, own.state, None)._replace(moved=moved)
