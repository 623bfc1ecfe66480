"""Which jobs share a line: lanes, their stable names, and the few lanes that are derived from one."""

import math
from hashlib import blake2b
from typing import Final, TypeVar

import msgspec

from hostler.contracts.job import JobRequest
from hostler.contracts.needs import Avoid, Lane, Needs

WORKERS_MAX: Final = 8
"""Workers that one lane may exclude, and that it may shun."""

_GRID: Final = 16
_V = TypeVar("_V")


def quantise(amount: float) -> float:
    """Round an amount up to two significant hexadecimal digits.

    Whole numbers up to 255 and round binary sizes (24 GiB) stay as they are; anything else grows by less
    than 1/16, never shrinks. So amounts that hardly differ share a lane, and no job takes less than it said.
    """
    _, exponent = math.frexp(amount)
    step = math.ldexp(1.0, 4 * ((exponent - 1) // 4) - 4)
    return math.ceil(amount / step) * step


def lane_of(request: JobRequest) -> Lane:
    """Return the lane of a job as it is submitted: sets sorted, amounts rounded up, `slots` at least 1."""
    needs = request.needs
    amounts = {name: quantise(amount) for name, amount in {"slots": 1.0, **needs.amounts}.items()}
    return Lane(
        kind=request.kind,
        needs=Needs(
            service=needs.service,
            models=_sorted(needs.models),
            labels=_by_name(needs.labels),
            versions=_by_name(needs.versions),
            isolation=needs.isolation,
            amounts=_by_name(amounts),
        ),
        avoid=_normal(request.avoid),
    )


def lane_key(lane: Lane) -> str:
    """Return the lane's stable name, 20 hexadecimal digits: equal for equal lanes, however they were written."""
    needs, avoid = lane.needs, lane.avoid
    facts = (
        lane.kind,
        (needs.service, _sorted(needs.models), _items(needs.labels), _items(needs.versions), needs.isolation),
        _items({name: quantise(amount) for name, amount in {"slots": 1.0, **needs.amounts}.items()}),
        (avoid.service, _sorted(avoid.models), _items(avoid.labels), _items(avoid.versions), avoid.isolation),
        (_sorted(avoid.workers), _sorted(avoid.shunned)),
    )
    return blake2b(msgspec.json.encode(facts), digest_size=10).hexdigest()


def derive(lane: Lane, *, exclude: str) -> Lane | None:
    """Return the lane without the worker `exclude`, or None when it excludes as many as it may already."""
    workers = _sorted((*lane.avoid.workers, exclude))
    if len(workers) > WORKERS_MAX:
        return None
    shunned = tuple(worker for worker in lane.avoid.shunned if worker != exclude)
    return _with(lane, workers=workers, shunned=shunned)


def shun(lane: Lane, worker: str) -> Lane:
    """Return the lane that prefers any other worker to this one; a full list begins anew with `worker`."""
    if worker in lane.avoid.workers:
        return lane
    shunned = _sorted((*lane.avoid.shunned, worker))
    return _with(lane, workers=lane.avoid.workers, shunned=shunned if len(shunned) <= WORKERS_MAX else (worker,))


def base(lane: Lane) -> Lane:
    """Return the lane that this one was derived from: it excludes and shuns no worker."""
    return _with(lane, workers=(), shunned=())


def _with(lane: Lane, *, workers: tuple[str, ...], shunned: tuple[str, ...]) -> Lane:
    avoid = msgspec.structs.replace(lane.avoid, workers=workers, shunned=shunned)
    return msgspec.structs.replace(lane, avoid=avoid)


def _normal(avoid: Avoid) -> Avoid:
    return Avoid(
        service=avoid.service,
        models=_sorted(avoid.models),
        labels=_by_name(avoid.labels),
        versions=_by_name(avoid.versions),
        isolation=avoid.isolation,
        workers=_sorted(avoid.workers),
        shunned=_sorted(avoid.shunned),
    )


def _sorted(values: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted(set(values)))


def _items(table: dict[str, _V]) -> tuple[tuple[str, _V], ...]:
    return tuple(sorted(table.items(), key=_name))


def _by_name(table: dict[str, _V]) -> dict[str, _V]:
    return dict(_items(table))


def _name(item: tuple[str, object]) -> str:
    return item[0]
