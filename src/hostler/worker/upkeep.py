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

ROWS_MOST: Seconds = 60.0
"""How often the registry is read at least."""
NEIGHBOURS_KEPT: Seconds = 3.0
"""How old the list of other workers may be."""
_TAKING = frozenset({WorkerState.READY, WorkerState.BUSY})


class Upkeep:
    """Reads the registry whenever it was changed, and goes the rounds of each queue; `registered` is told the rows.

    In a cluster the registry and each queue may be away by itself: the queues that were known are looked after, and
    none waits for another.
    """

    def __init__(self, foreman: Foreman, registered: Callable[[tuple[RegistryRow, ...]], object], dice: Dice) -> None:
        self._foreman = foreman
        self._registered = registered
        self._dice = dice
        self._changed = asyncio.Event()

    def changed(self) -> None:
        """Read the registry again."""
        self._changed.set()

    async def run(self) -> None:
        """Do it until cancelled."""
        ticks = Apart(lambda queue: _tick(self._foreman, queue, self._dice), name="tick")
        try:
            while True:
                await asyncio.sleep(about(EVERY, self._dice))  # a crowd that hears of a change does not come at once
                self._changed.clear()
                try:
                    rows = await self._foreman.registry()
                except HostlerError as error:
                    if not passing(error):
                        _LOG.warning("the registry was refused", code=error.code, error=error.message)
                    continue
                self._registered(rows)
                shards = [shard for row in rows for shard in shards_of(row.queue)]
                ticks.only(shards)
                ticks.turn(shards)
                if rows:
                    await self._news(ticks)
        finally:
            await ticks.close()

    async def _news(self, ticks: Apart) -> None:
        """Return when the registry was changed, or rounds broke; at last after a while, whatever was missed."""
        waits = {asyncio.create_task(self._changed.wait()), asyncio.create_task(ticks.ended())}
        try:
            await asyncio.wait(waits, timeout=ROWS_MOST, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in waits:
                each.cancel()


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
