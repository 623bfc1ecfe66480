"""What the gateway does unasked: goes the rounds of every queue and keeps the readers of their streams."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

from hostler.dispatch.rounds import EVERY, Rounds, about
from hostler.gateway.hub import Hub
from hostler.gateway.tail import Tails
from hostler.kernel.errors import HostlerError
from hostler.kernel.units import Seconds
from hostler.policy.sharding import shards_of
from hostler.ports.broker import Foreman
from hostler.ports.clock import Dice
from hostler.telemetry.logs import logger

_LOG = logger("gateway")
ROWS: Final[Seconds] = 1.0
"""How often the registry is read."""


class Upkeep:
    """The maintenance tasks of one gateway process.

    In a cluster the registry and each queue may be away by itself: no queue waits for another, and those that are
    known are looked after while the registry is away.
    """

    def __init__(self, foreman: Foreman, tails: Tails, dice: Dice) -> None:
        self._foreman = foreman
        self._tails = tails
        self._dice = dice
        self._ticking: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Look after every queue, until cancelled."""
        try:
            await self._again_and_again("registry", self._find, pause=ROWS)
        finally:
            for task in self._ticking.values():
                task.cancel()
            await asyncio.gather(*self._ticking.values(), return_exceptions=True)

    async def _find(self) -> None:
        shards = {shard for row in await self._foreman.registry() for shard in shards_of(row.queue)}
        self._tails.follow(shards)
        for shard in sorted(shards - self._ticking.keys()):
            ticks = self._again_and_again(f"tick-{shard}", Rounds(self._foreman, shard, self._dice).turn)
            self._ticking[shard] = asyncio.create_task(ticks, name=f"tick-{shard}")
        for shard in sorted(self._ticking.keys() - shards):
            self._ticking.pop(shard).cancel()
        for task in self._ticking.values():
            if task.done():
                task.result()

    async def _again_and_again(self, task: str, do: Callable[[], Awaitable[None]], pause: Seconds = 0.0) -> None:
        failing = False
        while True:
            try:
                await do()
                rest = pause
            except HostlerError as error:
                rest = EVERY
                if not failing:
                    _LOG.warning("upkeep.failing", task=task, error=error.message, code=error.code)
                failing = True
            except Exception:  # noqa: BLE001 - whatever it is, the next turn comes
                rest = EVERY
                _LOG.exception("upkeep.broke", task=task)
            else:
                if failing:
                    _LOG.info("upkeep.recovered", task=task)
                failing = False
            await asyncio.sleep(about(rest, self._dice))


@asynccontextmanager
async def kept_up(upkeep: Upkeep, tails: Tails, hub: Hub) -> AsyncGenerator[None]:
    """Do it for as long as the gateway runs; then end its streams, and leave nothing running."""
    task = asyncio.create_task(upkeep.run(), name="gateway-upkeep")
    try:
        yield
    finally:
        hub.close()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await tails.stop()
