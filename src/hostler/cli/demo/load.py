"""What the demo submits: a mixed load, the same for the same seed."""

import random
from enum import StrEnum
from typing import Any, Final

import msgspec
from msgspec import Struct, field

SUBJECTS: Final = (
    "lighthouse",
    "harbour",
    "signal box",
    "roundhouse",
    "night train",
    "water tower",
    "viaduct",
    "ferry",
)
MOODS: Final = ("at dusk", "in fog", "in snow", "under stars", "after rain", "at noon")
QUESTIONS: Final = ("Describe a {}.", "Tell a story about a {}.", "Why is a {} useful?")


class Group(StrEnum):
    """Why a job is in the load."""

    IMAGE = "image"
    CHAT = "chat"
    HANDLER = "handler"
    DELAYED = "delayed"
    PRIORITISED = "prioritised"
    DUPLICATE = "duplicate"
    UNSERVABLE = "unservable"


class Planned(Struct, frozen=True, kw_only=True):
    """One submit."""

    group: Group
    kind: str
    payload: dict[str, Any]
    key: str
    """Idempotency key; a duplicate has that of another."""
    needs: dict[str, Any] = field(default_factory=dict[str, Any])
    priority: int = 50
    delay: float | None = None


def plan(jobs: int, *, seed: int, run: str) -> list[Planned]:
    """Return at least `jobs` distinct jobs and some duplicates; `run` makes the keys those of one demo."""
    dice = random.Random(seed)  # noqa: S311 - a load that repeats itself, not a secret
    unservable = _unservable(run)
    chats = max(6, jobs // 15)
    rest = max(0, jobs - len(unservable) - chats)
    images = rest // 2
    planned = [_chat(dice, f"{run}-chat-{number}") for number in range(chats)]
    planned += [_image(dice, f"{run}-image-{number}") for number in range(images)]
    planned += [_handler(dice, f"{run}-handler-{number}", number) for number in range(rest - images)]
    planned = [_varied(dice, one) for one in planned]
    dice.shuffle(planned)
    twins = dice.sample(planned, k=max(5, jobs // 30))
    for twin in twins:
        place = dice.randrange(planned.index(twin) + 1, len(planned) + 1)
        planned.insert(place, msgspec.structs.replace(twin, group=Group.DUPLICATE))
    return unservable + planned


def _image(dice: random.Random, key: str) -> Planned:
    prompt = f"a {dice.choice(SUBJECTS)} {dice.choice(MOODS)}"
    payload = {"prompt": prompt, "steps": dice.randint(4, 12), "duration": round(dice.uniform(0.4, 1.6), 2)}
    return Planned(group=Group.IMAGE, kind="image.generate", payload=payload, key=key, needs={"service": "simulation"})


def _chat(dice: random.Random, key: str) -> Planned:
    words = dice.choice(QUESTIONS).format(dice.choice(SUBJECTS))
    payload = {"messages": [{"role": "user", "content": words}], "max_tokens": dice.randint(12, 32)}
    return Planned(group=Group.CHAT, kind="chat.complete", payload=payload, key=key)


def _handler(dice: random.Random, key: str, number: int) -> Planned:
    if number % 3 == 0:
        text = " ".join(dice.choices(SUBJECTS, k=dice.randint(5, 50)))
        return Planned(group=Group.HANDLER, kind="demo.words", payload={"text": text}, key=key)
    kind = "demo.crunch" if number % 30 == 1 else "demo.digest"
    payload = {"rounds": dice.randint(2_000, 20_000), "seed": key}
    return Planned(group=Group.HANDLER, kind=kind, payload=payload, key=key)


def _varied(dice: random.Random, one: Planned) -> Planned:
    roll = dice.random()
    if one.group is Group.CHAT or roll > 0.2:  # noqa: PLR2004 - one job in five is delayed or prioritised
        return one
    if roll < 0.1:  # noqa: PLR2004 - half of those
        return msgspec.structs.replace(one, group=Group.DELAYED, delay=round(dice.uniform(1, 8), 1))
    return msgspec.structs.replace(one, group=Group.PRIORITISED, priority=dice.choice((10, 80, 95, 100)))


def _unservable(run: str) -> list[Planned]:
    """Return jobs that nobody here can serve, each for another reason."""
    image = {"prompt": "a picture that nobody can paint"}
    needs: list[dict[str, Any]] = [
        {"service": "simulation", "models": ["no-such-model"]},
        {"labels": {"tier": "moon"}},
        {"service": "simulation", "amounts": {"slots": 10_000}},
    ]
    return [
        Planned(
            group=Group.UNSERVABLE, kind="image.generate", payload=image, key=f"{run}-unservable-{number}", needs=need
        )
        for number, need in enumerate(needs)
    ]
