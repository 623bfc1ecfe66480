"""What a run submits: work of every sort at its moment, the same for the same seed."""

import random
from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

from hostler.contracts.job import JobRequest
from hostler.contracts.needs import Needs
from hostler.contracts.timeouts import Timeouts
from hostler.kernel.units import Seconds

IMAGE: Final = "image.generate"
WORK: Final = "chaos.work"
POISON: Final = "chaos.poison"
QUEUE: Final = "chaos"
"""Of the handlers."""
IMAGES: Final = "image"
"""Of the services' work."""
JOBS_A_SECOND: Final = 8.0
METERED: Final[Mapping[str, str]] = MappingProxyType({"calls": "metered"})
"""What an endpoint is labelled with whose calls are limited, and what those need that are to go there."""
KEYS: Final = 4
"""Concurrency keys in use."""
PATIENCE: Final = Timeouts(connect=5.0, first_byte=15.0, idle=15.0, run=60.0)
"""Of every job: a drain can be waited for."""
SUBJECTS: Final = ("lighthouse", "harbour", "signal box", "roundhouse", "night train", "water tower")


class Group(StrEnum):
    """Why a job is in the load."""

    IMAGE = "image"
    """A run of a simulated service."""
    INSTANT = "instant"
    """A run that is over before anybody can look."""
    WORK = "work"
    """Plain Python in the worker."""
    DELAYED = "delayed"
    PRIORITISED = "prioritised"
    KEYED = "keyed"
    """With a concurrency key: one at a time."""
    CANCELLED = "cancelled"
    """Somebody cancels it a moment later."""
    DUPLICATE = "duplicate"
    """The same request again, under its key."""
    METERED = "metered"
    """A run that only some workers may have, on an endpoint whose calls are limited."""
    UNSERVABLE = "unservable"
    """Nobody can run it."""
    POISON = "poison"
    """It kills the worker that runs it."""


MIXED: Final[Mapping[Group, float]] = MappingProxyType(
    {
        Group.IMAGE: 0.3,
        Group.INSTANT: 0.04,
        Group.WORK: 0.26,
        Group.DELAYED: 0.06,
        Group.PRIORITISED: 0.06,
        Group.KEYED: 0.06,
        Group.CANCELLED: 0.06,
        Group.DUPLICATE: 0.04,
        Group.METERED: 0.1,
        Group.UNSERVABLE: 0.02,
    }
)
"""Shares of a load; a poison job comes on top of it."""


_ALONE: Final = frozenset({Group.POISON, Group.CANCELLED, Group.UNSERVABLE})
"""Of these there is no duplicate."""


class Planned(Struct, frozen=True, kw_only=True):
    """One submit."""

    at: Seconds
    """Since the load began."""
    group: Group
    request: JobRequest
    cancel_after: Seconds | None = None
    """After its submit was acknowledged."""


def plan(
    seed: int,
    *,
    jobs: int,
    seconds: Seconds,
    run: str,
    mix: Mapping[Group, float] = MIXED,
    poison: int = 1,
    head: int = 0,
    waves: int | None = None,
    duration: Seconds = 1.2,
) -> tuple[Planned, ...]:
    """Return so many submits, spread over the time; `run` makes the keys those of one run.

    Shares of the mix add up to 1; poison jobs are the first of all, for each needs three lost leases to die. `head` of
    all jobs come at once before any other, and nobody can run them. With `waves` all others come in so many crowds.
    No run of a service takes longer than `duration` by itself.
    """
    dice = random.Random(seed)  # noqa: S311 - a load that repeats itself, not a secret
    planned = [
        _planned(dice, Group.POISON, 0.2 + number, key=f"{run}-poison-{number}", duration=duration)
        for number in range(poison)
    ]
    planned += [_planned(dice, Group.UNSERVABLE, 0.0, key=f"{run}-head-{n}", duration=duration) for n in range(head)]
    groups, shares = list(mix), list(mix.values())
    rest = jobs - poison - head
    for number in range(rest):
        share = number / rest if waves is None else (number * waves // rest) / waves
        at = round(0.5 * (head > 0) + (seconds - 0.5) * share, 3)
        (group,) = dice.choices(groups, shares)
        twins = [one for one in planned[-40:] if one.group not in _ALONE]
        if group is Group.DUPLICATE and twins:
            planned.append(Planned(at=at, group=group, request=dice.choice(twins).request))
        else:
            group = Group.WORK if group is Group.DUPLICATE else group
            planned.append(_planned(dice, group, at, key=f"{run}-{number}", duration=duration))
    return tuple(sorted(planned, key=lambda one: one.at))


def _planned(dice: random.Random, group: Group, at: Seconds, *, key: str, duration: Seconds) -> Planned:
    options: dict[str, Any] = {"idempotency_key": key, "timeouts": PATIENCE}
    kind, payload = IMAGE, _image(dice, duration)
    if group is Group.POISON:
        kind, payload = POISON, {}
    elif group in (Group.WORK, Group.KEYED) or (group not in (Group.IMAGE, Group.METERED) and dice.random() < 0.5):  # noqa: PLR2004 - half
        kind, payload = WORK, {"seconds": round(dice.uniform(0.01, min(0.6, duration)), 3), "word": key}
    if group is Group.INSTANT:
        kind, payload = IMAGE, {"prompt": key, "steps": 1, "duration": 0.0}
    elif group is Group.DELAYED:
        options["delay"] = round(dice.uniform(0.5, 6), 2)
    elif group is Group.PRIORITISED:
        options["priority"] = dice.choice((60, 80, 100))
    elif group is Group.KEYED:
        options["concurrency_key"] = f"key-{dice.randrange(KEYS)}"
    elif group is Group.METERED:
        options["needs"] = Needs(labels=dict(METERED))
    elif group is Group.UNSERVABLE:
        options["needs"] = Needs(labels={"tier": "moon"})
    request = JobRequest(kind=kind, payload=Raw(msgspec.json.encode(payload)), **options)
    after = round(dice.uniform(0, 2), 2) if group is Group.CANCELLED else None
    return Planned(at=at, group=group, request=request, cancel_after=after)


def _image(dice: random.Random, duration: Seconds) -> dict[str, Any]:
    """Return a picture to make; half of them take as long as the service takes for one now."""
    asked: dict[str, Any] = {"prompt": f"a {dice.choice(SUBJECTS)}", "steps": dice.randint(2, 8)}
    return asked | ({"duration": round(dice.uniform(0.05, duration), 2)} if dice.random() < 0.5 else {})  # noqa: PLR2004 - half
