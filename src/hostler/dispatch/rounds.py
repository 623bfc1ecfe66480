"""Upkeep of a queue in rounds, by whoever runs it: gateways and workers alike, however many of them there are."""

import asyncio
from typing import Final

from hostler.contracts.queue import UpkeepReport
from hostler.kernel.units import Seconds
from hostler.ports.broker import Foreman
from hostler.ports.clock import Dice

EVERY: Final[Seconds] = 1.0
"""How often a queue gets its upkeep."""
REST_MOST: Final[Seconds] = 3.5
"""How long one rests at most whose upkeep others do; when these are gone, it takes so long until upkeep goes on. With
its quarter it is less than the silence after which leases get a grace (`_1_context.lua`)."""
SLICES: Final = 20
"""Slices of upkeep of one queue in a row at most."""
APART: Final[Seconds] = 0.01
"""Time between two looks for jobs that are due."""


class Rounds:
    """One side's rounds over one queue.

    Whoever finds that the upkeep was just done by somebody else comes back later and later, so that a few do it for
    all, and the others are there when those are gone. Whoever does it also makes delayed jobs ready when they are due.
    """

    def __init__(self, foreman: Foreman, queue: str, dice: Dice) -> None:
        self._foreman = foreman
        self._queue = queue
        self._dice = dice
        self._rest: Seconds = EVERY

    async def turn(self) -> None:
        """Do what is due, and return when the next round is; raises what the foreman does."""
        report = await self._slices()
        self._rest = min(REST_MOST, 2 * self._rest) if report.fresh else EVERY
        await self._until(about(self._rest, self._dice), report.due_in)

    async def _slices(self) -> UpkeepReport:
        for _ in range(SLICES - 1):
            report = await self._foreman.tick(self._queue)
            if not report.more:
                return report
        return await self._foreman.tick(self._queue)

    async def _until(self, seconds: Seconds, due_in: Seconds | None) -> None:
        """Rest for so long, and make jobs ready meanwhile when they are due."""
        loop = asyncio.get_running_loop()
        ends = loop.time() + seconds
        while due_in is not None and loop.time() + max(APART, due_in) < ends:
            await asyncio.sleep(max(APART, due_in))
            due_in = await self._foreman.promote(self._queue)
        await asyncio.sleep(max(0.0, ends - loop.time()))


def about(seconds: Seconds, dice: Dice) -> Seconds:
    """Return so much time, give or take a quarter: many that began together do not come together."""
    return seconds * (0.75 + 0.5 * dice.roll())
