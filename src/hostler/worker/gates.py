"""Keeps a worker's endpoints to what others heard: a service's 429 or reset time holds for all workers."""

import asyncio
from collections.abc import Iterable
from typing import Final

import structlog

from hostler.kernel.errors import EngineError
from hostler.kernel.units import Seconds
from hostler.policy.limits import gate
from hostler.ports.clock import Dice
from hostler.ports.limiter import Limiter
from hostler.worker.station import Station

_LOG = structlog.stdlib.get_logger("hostler.worker.gates")

EVERY: Final[Seconds] = 1.0
"""How often the engine is asked, once for all endpoints together."""


async def heed(stations: Iterable[Station], limiter: Limiter, dice: Dice) -> None:
    """Let each endpoint's gauge know how long it is to be left alone, until cancelled."""
    while True:
        await heed_once(tuple(stations), limiter)
        await asyncio.sleep(EVERY * (0.8 + 0.4 * dice.roll()))


async def heed_once(stations: tuple[Station, ...], limiter: Limiter) -> None:
    """Ask once; an engine that does not answer leaves things as they were heard."""
    if not stations:
        return
    try:
        looks = await limiter.look([gate(station.id) for station in stations])
    except EngineError as error:
        _LOG.info("holds were not asked for", code=error.code)
        return
    for station, look in zip(stations, looks, strict=True):
        station.gauge.hold(look.held_s)
