"""What the gateway does unasked: ticks every queue once a second and keeps the readers of their streams."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final

from hostler.contracts.queue import RegistryRow
from hostler.gateway.hub import Hub
from hostler.gateway.tail import Tails
from hostler.kernel.errors import HostlerError
from hostler.kernel.units import Seconds
from hostler.ports.broker import Foreman
from hostler.ports.clock import Dice
from hostler.telemetry.logs import logger

_LOG = logger("gateway")
EVERY: Final[Seconds] = 1.0
JITTER: Final = 0.2
"""Share of `EVERY`, so that several gateways do not knock together."""
SLICES: Final = 50
"""Most slices of upkeep of one queue in a row, so that one cannot starve the others."""
PATIENCE: Final[Seconds] = 4.0
"""`readyz` calls the engine gone when upkeep has not reached it for so long."""


class Upkeep:
    """The maintenance task of one gateway process."""

    def __init__(self, foreman: Foreman, tails: Tails, dice: Dice) -> None:
        self._foreman = foreman
        self._tails = tails
        self._dice = dice
        self._failing: HostlerError | None = None
        self._rows: tuple[RegistryRow, ...] = ()

    async def run(self) -> None:
        """Go round until cancelled."""
        while True:
            try:
                await self._round()
            except HostlerError as error:
                if self._failing is None:
                    _LOG.warning("upkeep.failing", task="tick", error=error.message, code=error.code)
                self._failing = error
            else:
                if self._failing is not None:
                    _LOG.info("upkeep.recovered", task="tick")
                self._failing = None
            await asyncio.sleep(EVERY * (1 + JITTER * (2 * self._dice.roll() - 1)))

    async def _round(self) -> None:
        """Tick each queue that is known; in a cluster one may be away by itself, which keeps no other from it."""
        failures: list[HostlerError] = []
        try:
            self._rows = await self._foreman.registry()
        except HostlerError as error:
            failures.append(error)
        for row in self._rows:
            self._tails.follow(row.queue.name)
            try:
                await self._tick(row.queue.name)
            except HostlerError as error:
                failures.append(error)
        if failures:
            raise failures[0]

    async def _tick(self, queue: str) -> None:
        for _ in range(SLICES):
            if not await self._foreman.tick(queue):
                break


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
