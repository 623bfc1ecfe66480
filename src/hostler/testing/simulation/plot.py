"""What happens in one story, drawn from its seed before it begins: workers, gateways, services, jobs and faults."""

import random
from typing import Final, Literal, get_args

import msgspec
from msgspec import Raw, Struct

from hostler.contracts.job import JobRequest
from hostler.contracts.timeouts import Timeouts
from hostler.kernel.units import Seconds

FaultKind = Literal[
    "freeze",
    "kill",
    "engine away",
    "engine restart",
    "lossy",
    "service away",
    "service anew",
    "drain",
    "gateway freeze",
    "gateway kill",
    "gateway lossy",
    "gateway stop",
]
Follows = Literal["events", "end"]
FAULTS: Final[tuple[FaultKind, ...]] = get_args(FaultKind)
BUSY: Final[Seconds] = 6.0
"""Jobs are submitted and faults begin within this time."""
LONGEST: Final[Seconds] = 8.0
"""No fault lasts longer."""
LEASE: Final[Seconds] = 3.0
"""Of every queue: a third of the usual, and so are the faults, so that a story is short."""
SLOW: Final[Seconds] = 5.5
LIMITS: Final = Timeouts(connect=5.0, first_byte=6.0, idle=6.0, run=15.0)
KINDS: Final = ("sim.echo", "sum.up")
"""What jobs ask for: the simulated service, and a handler."""


class Asked(Struct, frozen=True, kw_only=True):
    """One submit, and what its client does afterwards."""

    at: Seconds
    request: JobRequest
    again: bool = False
    """Submitted a second time at once, as a client does that is in doubt."""
    cancel_after: Seconds | None = None
    follow: Follows | None = None
    """How somebody hears of it through a gateway: event by event, or of its end only."""


class Fault(Struct, frozen=True, kw_only=True):
    """Something goes wrong."""

    at: Seconds
    kind: FaultKind
    target: int
    """Number of the worker, gateway or service that it strikes, as far as it strikes one."""
    length: Seconds


class Plot(Struct, frozen=True, kw_only=True):
    """All of it."""

    seed: int
    slots: tuple[int, ...]
    """Of each worker."""
    gateways: int
    services: int
    service_slots: int
    hang_rate: float
    failures: dict[str, float]
    asked: tuple[Asked, ...]
    faults: tuple[Fault, ...]


def plot(seed: int) -> Plot:
    """Draw one; a quarter has no faults at all."""
    dice = random.Random(seed)  # noqa: S311 - a story, not a secret
    calm = dice.random() < 0.25  # noqa: PLR2004 - said above
    rough = 0.0 if calm else dice.choice((0.0, 0.1, 0.3))
    return Plot(
        seed=seed,
        slots=tuple(dice.randint(1, 4) for _ in range(dice.randint(1, 3))),
        gateways=dice.choice((0, 1, 2)),
        services=dice.randint(1, 2),
        service_slots=dice.randint(1, 4),
        hang_rate=rough / 3,
        failures={"internal_error": rough, "invalid_input": rough / 4, "out_of_memory": rough / 4},
        asked=tuple(_asked(dice) for _ in range(dice.randint(3, 16))),
        faults=() if calm else tuple(_fault(dice) for _ in range(dice.randint(1, 5))),
    )


def _asked(dice: random.Random) -> Asked:
    kind = dice.choice(KINDS)
    seconds = round(dice.random() ** 2 * SLOW, 3)
    payload = {"value": dice.randrange(1000), "duration": seconds, "steps": 2}
    request = JobRequest(
        kind=kind,
        payload=Raw(msgspec.json.encode(payload)),
        tenant=dice.choice(("a", "b")),
        priority=dice.choice((0, 50, 50, 50, 100)),
        delay=round(dice.random() * 3, 3) if dice.random() < 0.2 else None,  # noqa: PLR2004 - a share
        idempotency_key=f"key-{dice.randrange(4)}" if dice.random() < 0.2 else None,  # noqa: PLR2004 - a share
        concurrency_key=f"line-{dice.randrange(2)}" if dice.random() < 0.2 else None,  # noqa: PLR2004 - a share
        timeouts=LIMITS,
    )
    return Asked(
        at=round(dice.random() * BUSY, 3),
        request=request,
        again=dice.random() < 0.1,  # noqa: PLR2004 - a share
        cancel_after=round(dice.random() * 3, 3) if dice.random() < 0.1 else None,  # noqa: PLR2004 - a share
        follow=dice.choice((None, "events", "end")),
    )


def _fault(dice: random.Random) -> Fault:
    return Fault(
        at=round(dice.random() * BUSY, 3),
        kind=dice.choice(FAULTS),
        target=dice.randrange(8),
        length=round(dice.random() ** 2 * LONGEST, 3),
    )
