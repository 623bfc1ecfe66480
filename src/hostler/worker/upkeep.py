"""What every worker does for all: it turns the queues' maintenance, so that a system without a gateway heals too."""

import asyncio
from collections.abc import Callable

import structlog

from hostler.contracts.needs import Lane
from hostler.contracts.queue import RegistryRow
from hostler.contracts.worker import Worker, WorkerState
from hostler.dispatch.rounds import EVERY, Rounds, about
from hostler.kernel.errors import HostlerError
from hostler.kernel.units import Seconds
from hostler.policy.matching import fits
from hostler.policy.sharding import shards_of
from hostler.ports.broker import Foreman
from hostler.ports.clock import Clock, Dice
from hostler.ports.registry import Registry
from hostler.worker.apart import Apart
from hostler.worker.patience import passing

_LOG = structlog.stdlib.get_logger("hostler.worker.upkeep")

ROWS: Seconds = 3.0
"""How often the registry is read."""
NEIGHBOURS_KEPT: Seconds = 3.0
"""How old the list of other workers may be."""
_TAKING = frozenset({WorkerState.READY, WorkerState.BUSY})


async def turn(foreman: Foreman, registered: Callable[[tuple[RegistryRow, ...]], object], dice: Dice) -> None:
    """Read the registry and go the rounds of each queue, until cancelled; `registered` is told the rows.

    In a cluster the registry and each queue may be away by itself: the queues that were known are looked after, and
    none waits for another.
    """
    known = False
    ticks = Apart(lambda queue: _tick(foreman, queue, dice), name="tick")
    try:
        while True:
            await asyncio.sleep(about(ROWS if known else EVERY, dice))
            try:
                rows = await foreman.registry()
            except HostlerError as error:
                if not passing(error):
                    _LOG.warning("the registry was refused", code=error.code, error=error.message)
            else:
                known = bool(rows)
                registered(rows)
                shards = [shard for row in rows for shard in shards_of(row.queue)]
                ticks.only(shards)
                ticks.turn(shards)
    finally:
        await ticks.close()


async def _tick(foreman: Foreman, queue: str, dice: Dice) -> None:
    """Go the rounds of one queue until cancelled; not at the same moment as the others."""
    rounds = Rounds(foreman, queue, dice)
    await asyncio.sleep(EVERY * dice.roll())
    while True:
        try:
            await rounds.turn()
        except HostlerError as error:
            if not passing(error):
                _LOG.warning("upkeep was refused", queue=queue, code=error.code, error=error.message)
            await asyncio.sleep(about(EVERY, dice))


class Neighbours:
    """The other live workers, looked up only when a failure asks for them."""

    def __init__(self, registry: Registry, worker: str, clock: Clock) -> None:
        self._registry = registry
        self._worker = worker
        self._clock = clock
        self._seen_at: float | None = None
        self._others: tuple[Worker, ...] = ()

    async def fit(self, lane: Lane) -> bool:
        """Tell whether another worker serves this lane; False when the engine cannot say."""
        now = self._clock.monotonic()
        if self._seen_at is None or now - self._seen_at > NEIGHBOURS_KEPT:
            try:
                workers = await self._registry.workers()
            except HostlerError:
                return False
            self._others = tuple(each for each in workers if each.id != self._worker and each.state in _TAKING)
            self._seen_at = now
        return any(fits(lane, each.offers, worker=each.id) is not None for each in self._others)
