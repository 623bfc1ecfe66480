"""When what is broken: one seed gives one schedule."""

import itertools
import random
from collections.abc import Mapping, Sequence
from typing import Final

from msgspec import Struct

from hostler.chaos.kinds import KINDS, Kind, Part
from hostler.kernel.errors import SettingsError
from hostler.kernel.units import Fraction, Seconds

LEAST: Final[Seconds] = 5.0
MOST: Final[Seconds] = 86_400.0
"""Of a run."""
PERIOD: Final[Seconds] = 18.0
"""One fault in each, about."""
SHORT: Final[Seconds] = 30.0
"""From here on a run has three kinds of faults at least."""
KINDS_LEAST: Final = 3
BUSY: Final = 0.7
"""Most of a period that a fault takes: the rest is without."""
LEAD: Final = 0.05
TAIL: Final = 0.05
"""Shares of a period before its fault and after it."""
SPACED_END: Final = 0.3
"""Share of a period in which its fault is over, where faults are to be spaced."""
TWO_AT_ONCE: Final = 0.25
"""Share of long periods in which two things go wrong."""
LONG: Final[Seconds] = 15.0
PAUSE_EACH: Final[Seconds] = 30.0
"""A queue is paused about once in so long a time."""
PAUSE_LEAST: Final = 0.1
PAUSE_MOST: Final = 0.2
"""Shares of that time that a pause takes."""
PAUSE_FROM: Final = 0.2
PAUSE_TO: Final = 0.7
"""Between these shares of it a pause begins."""


class Strike(Struct, frozen=True, kw_only=True):
    """One fault of a schedule."""

    kind: Kind
    target: str
    begin: Seconds
    """Since the schedule began."""
    length: Seconds
    strength: Fraction
    """How bad, where it can be more or less so."""

    @property
    def end(self) -> Seconds:
        """Return when it is over."""
        return self.begin + self.length


class Pause(Struct, frozen=True, kw_only=True):
    """One pause of one queue, as an operator orders it."""

    queue: str
    begin: Seconds
    """Since the schedule began."""
    length: Seconds


def plan_pauses(seed: int, *, seconds: Seconds, queues: Sequence[str]) -> tuple[Pause, ...]:
    """Return when which queue is paused, by the begin: one at a time, in turn, each over before the run is."""
    if not queues:
        return ()
    dice = random.Random(f"pauses {seed}")  # noqa: S311 - a schedule that repeats itself, not a secret
    count = max(1, round(seconds / PAUSE_EACH))
    period = seconds / count
    turns = dice.sample(queues, k=len(queues))
    return tuple(
        Pause(
            queue=turns[number % len(turns)],
            begin=round((number + dice.uniform(PAUSE_FROM, PAUSE_TO)) * period, 3),
            length=round(dice.uniform(PAUSE_LEAST, PAUSE_MOST) * min(period, PAUSE_EACH), 3),
        )
        for number in range(count)
    )


def plan(
    seed: int,
    *,
    seconds: Seconds,
    targets: Mapping[Part, Sequence[str]],
    kinds: Sequence[Kind] = tuple(Kind),
    spacing: Seconds | None = None,
) -> tuple[Strike, ...]:
    """Return the faults of a run, by their begin; `targets` are the names of what can be struck.

    Time is cut into periods with one fault each (sometimes two together, in long ones), so at least a quarter of
    all time has none. Kinds come in rounds: none comes again before each that fits had its turn, but as the second
    of two. A run of 30 s or more has at least three kinds. With `spacing` there is one fault in so many seconds, in
    the first third of them, and never a second beside it. `SettingsError` when that cannot be.
    """
    if not LEAST <= seconds <= MOST:
        raise SettingsError(f"a schedule is of {LEAST:g} to {MOST:g} s, not {seconds:g}", problems=())
    dice = random.Random(seed)  # noqa: S311 - a schedule that repeats itself, not a secret
    least = KINDS_LEAST if seconds >= SHORT else 1
    count = max(least, round(seconds / PERIOD) if spacing is None else int(seconds // spacing))
    period = seconds / count
    if spacing is not None and period < spacing:
        raise SettingsError(f"{least} faults that are {spacing:g} s apart do not fit into {seconds:g} s", problems=())
    end = 1 - TAIL if spacing is None else SPACED_END
    room = period * (BUSY if spacing is None else SPACED_END - LEAD)
    fit = [kind for kind in kinds if targets.get(KINDS[kind].part) and KINDS[kind].least <= room]
    if len(fit) < min(KINDS_LEAST, count):
        names = ", ".join(fit) or "none"
        raise SettingsError(f"{KINDS_LEAST} kinds of faults are needed, and there are: {names}", problems=())
    rounds = _rounds(dice, fit)
    strikes: list[Strike] = []
    for number in range(count):
        start = number * period
        first = _strike(dice, next(rounds), targets, start + LEAD * period, start + end * period, room)
        strikes.append(first)
        if spacing is None and period >= LONG and dice.random() < TWO_AT_ONCE:
            strikes.extend(_beside(dice, fit, targets, first))
    return tuple(sorted(strikes, key=lambda strike: strike.begin))


def _rounds(dice: random.Random, kinds: Sequence[Kind]) -> "itertools.chain[Kind]":
    """Yield kinds for ever, each once a round."""
    return itertools.chain.from_iterable(dice.sample(kinds, k=len(kinds)) for _ in itertools.count())


def _strike(  # noqa: PLR0917 - one draw
    dice: random.Random,
    kind: Kind,
    targets: Mapping[Part, Sequence[str]],
    earliest: Seconds,
    latest: Seconds,
    room: Seconds,
) -> Strike:
    row = KINDS[kind]
    length = dice.uniform(row.least, min(row.most, room))
    begin = dice.uniform(earliest, latest - length)
    target = dice.choice(sorted(targets[row.part]))
    return Strike(
        kind=kind,
        target=target,
        begin=round(begin, 3),
        length=round(length, 3),
        strength=round(dice.random(), 3),
    )


def _beside(
    dice: random.Random, kinds: Sequence[Kind], targets: Mapping[Part, Sequence[str]], first: Strike
) -> tuple[Strike, ...]:
    """Return a second fault, of another part, that is over when the first is; none if no kind fits in."""
    fit = [kind for kind in kinds if KINDS[kind].part is not KINDS[first.kind].part]
    fit = [kind for kind in fit if KINDS[kind].least <= first.length]
    if not fit:
        return ()
    return (_strike(dice, dice.choice(fit), targets, first.begin, first.end, first.length),)
