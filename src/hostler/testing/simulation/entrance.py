"""The gateways that there are at a time, what happens to them, and all who follow jobs through them."""

import asyncio
import random
from typing import Final

from hostler.kernel.units import Seconds
from hostler.testing.clock import SeededDice
from hostler.testing.simulation.front import Front
from hostler.testing.simulation.loop import VirtualLoop
from hostler.testing.simulation.network import EngineLine, Path, SharedEngine
from hostler.testing.simulation.plot import Follows
from hostler.testing.simulation.readers import Reader

PATIENCE: Final[Seconds] = 60.0
"""After the last job's end, until everybody has heard of it: three streams may fall silent one after another."""
LAST: Final[Seconds] = 60.0
"""How long gateways may take to stop."""


class Entrance:
    """All gateways of one story, and their clients."""

    def __init__(self, loop: VirtualLoop, engine: SharedEngine, dice: random.Random, many: int) -> None:
        self._loop = loop
        self._engine = engine
        self._dice = dice
        self._all: list[Front] = []
        self._now = [self._open() for _ in range(many)]
        self._readers: dict[Reader, asyncio.Task[None]] = {}

    @property
    def readers(self) -> tuple[Reader, ...]:
        """Return everybody who followed a job."""
        return tuple(self._readers)

    @property
    def paths(self) -> list[Path]:
        """Return the ways of all gateways to the engine."""
        return [front.path for front in self._all]

    def _open(self) -> Front:
        name = f"g{len(self._all) + 1}"
        path = Path(self._loop, f"{name}-engine", self._dice)
        dice = SeededDice(self._dice.randrange(2**32))
        front = Front(name, self._loop, EngineLine(self._engine, path), path, dice)
        self._all.append(front)
        front.begin()
        return front

    def read(self, job_id: str, how: Follows) -> None:
        """Let somebody follow a job from now on, where there is a gateway."""
        if not self._now:
            return
        reader = Reader(f"r{len(self._readers) + 1}", job_id, lambda: self._now, self._dice)
        work = reader.follow() if how == "events" else reader.wait()
        self._readers[reader] = self._loop.start(work, reader.name)

    def struck(self, target: int) -> Front | None:
        """Return the gateway that a fault means."""
        return self._now[target % len(self._now)] if self._now else None

    async def freeze(self, front: Front, length: Seconds) -> None:
        """Stop it for a while; clients still get through to it, and hear nothing."""
        self._loop.freeze(front.name)
        await asyncio.sleep(length)
        if not front.dead:
            self._loop.thaw(front.name)

    def replace(self, front: Front) -> None:
        """Begin another one in its place."""
        if front in self._now:
            self._now[self._now.index(front)] = self._open()

    async def end(self) -> list[str]:
        """Wait until everybody has heard what he waited for, stop all gateways, and return what was wrong."""
        if not self._all:
            return []
        found: list[str] = []
        if self._readers:
            await asyncio.wait(self._readers.values(), timeout=PATIENCE)
        for reader, task in self._readers.items():
            found += reader.wrong
            if not task.done():
                found.append(f"{reader.name} never heard the end of {reader.job_id}")
                task.cancel()
            elif (error := task.exception()) is not None:
                found.append(f"{reader.name} broke: {error!r}")
        return found + await self._stop()

    async def _stop(self) -> list[str]:
        found: list[str] = []
        living = [front for front in self._all if not front.dead]
        for front in living:
            front.stop()
        tasks = {front.task: front for front in living if front.task is not None}
        _, late = await asyncio.wait(tasks, timeout=LAST)
        found += [f"{tasks[task].name} did not stop" for task in late]
        for task, front in tasks.items():
            if task not in late and (error := task.exception()) is not None:
                found.append(f"{front.name} broke: {error!r}")
            found += [f"{front.name} left {left.get_coro()!r} running" for left in self._loop.tasks_of(front.name)]
            if front.hub.open:
                found.append(f"{front.name} counts {front.hub.open} streams at its end")
        return found
