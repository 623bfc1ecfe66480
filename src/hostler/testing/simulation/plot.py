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
    "queue away",
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
"""Jobs are submitted and faults begin within this time; in a small world, within a third of it."""
LONGEST: Final[Seconds] = 8.0
"""No fault lasts longer."""
LEASE: Final[Seconds] = 3.0
"""Of every queue: a third of the usual, and so are the faults, so that a story is short."""
SLOW: Final[Seconds] = 5.5
LIMITS: Final = Timeouts(connect=5.0, first_byte=6.0, idle=6.0, run=15.0)
HOMES: Final = {"sim.echo": "image", "sum.up": "default"}
"""What jobs ask for, the simulated service and a handler, and the queue of each, with a server of its own."""


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
    """Number of the worker, gateway, service or queue that it strikes, as far as it strikes one."""
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
    attempts: int
    """Of each job at a service."""
    asked: tuple[Asked, ...]
    faults: tuple[Fault, ...]


class Size(Struct, frozen=True, kw_only=True):
    """How large a world may be; each number is drawn."""

    workers: tuple[int, int]
    slots: int
    gateways: tuple[int, ...]
    services: int
    jobs: tuple[int, int]
    faults: int
    busy: Seconds
    shares: tuple[float, ...]
    """One is drawn for a story: how many of its jobs have a key, and how many of them are cancelled or sent again."""


SMALL: Final = Size(
    workers=(1, 2), slots=2, gateways=(0, 0, 1), services=1, jobs=(4, 10), faults=2, busy=2.0, shares=(0.1, 0.2, 0.6)
)
LARGE: Final = Size(
    workers=(1, 3), slots=4, gateways=(0, 1, 2), services=2, jobs=(3, 16), faults=5, busy=BUSY, shares=(0.2,)
)
LARGE_SHARE: Final = 0.5
"""Small crowded worlds find breaks of order and keys sooner, large ones those of fences and readers."""


def plot(seed: int) -> Plot:
    """Draw one: a small world or a large one, and a quarter of all without any fault."""
    dice = random.Random(seed)  # noqa: S311 - a story, not a secret
    return drawn(seed, dice, LARGE if dice.random() < LARGE_SHARE else SMALL)


def drawn(seed: int, dice: random.Random, size: Size) -> Plot:
    """Draw a world of a size."""
    calm = dice.random() < 0.25  # noqa: PLR2004 - said above
    rough = 0.0 if calm else dice.choice((0.0, 0.1, 0.4))
    share = dice.choice(size.shares)
    return Plot(
        seed=seed,
        slots=tuple(dice.randint(1, size.slots) for _ in range(dice.randint(*size.workers))),
        gateways=dice.choice(size.gateways),
        services=dice.randint(1, size.services),
        service_slots=dice.randint(1, size.slots),
        hang_rate=rough / 3,
        failures={"internal_error": rough, "invalid_input": rough / 4, "out_of_memory": rough / 4},
        attempts=dice.choice((1, 2, 5)),
        asked=tuple(_asked(dice, size.busy, share) for _ in range(dice.randint(*size.jobs))),
        faults=() if calm else tuple(_fault(dice, size.busy) for _ in range(dice.randint(1, size.faults))),
    )


def _asked(dice: random.Random, busy: Seconds, share: float) -> Asked:
    kind = dice.choice(tuple(HOMES))
    seconds = round(dice.random() ** 2 * SLOW, 3)
    payload = {"value": dice.randrange(1000), "duration": seconds, "steps": 2}
    request = JobRequest(
        kind=kind,
        queue=HOMES[kind],
        payload=Raw(msgspec.json.encode(payload)),
        tenant=dice.choice(("a", "b")),
        priority=dice.choice((0, 50, 50, 50, 100)),
        delay=round(dice.random() * 3, 3) if dice.random() < 0.2 else None,  # noqa: PLR2004 - a share
        idempotency_key=f"key-{dice.randrange(4)}" if dice.random() < share else None,
        concurrency_key=f"line-{dice.randrange(2)}" if dice.random() < share else None,
        timeouts=LIMITS,
    )
    return Asked(
        at=round(dice.random() * busy, 3),
        request=request,
        again=dice.random() < share / 2,
        cancel_after=round(dice.random() * 3, 3) if dice.random() < share / 2 else None,
        follow=dice.choice((None, "events", "end")),
    )


def _fault(dice: random.Random, busy: Seconds) -> Fault:
    kind = dice.choice(FAULTS)
    share = dice.random()
    length = share * LONGEST if kind == "freeze" else share**2 * LONGEST  # a freeze shows most when it outlasts a lease
    return Fault(at=round(dice.random() * busy, 3), kind=kind, target=dice.randrange(8), length=round(length, 3))
