"""Looks on from beside the rig, straight at its engine, and reads everything at the end."""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from msgspec.structs import replace

from hostler.broker.desk import EngineDesk
from hostler.broker.foreman import EngineForeman
from hostler.chaos.record import Circuit, Effect, Roster
from hostler.chaos.recorder import read_all
from hostler.chaos.tape import Tape
from hostler.contracts.worker import Worker, WorkerState
from hostler.kernel.errors import HostlerError, InternalError
from hostler.kernel.settings import EngineSettings
from hostler.kernel.units import Seconds
from hostler.policy.breaker import Mode
from hostler.policy.sharding import shards_of
from hostler.registry.engine import EngineRegistry
from hostler.testing.sims.effects import read_effects
from hostler.valkeyio.engine import Engine

LOOK: Final[Seconds] = 0.5
READY_WITHIN: Final[Seconds] = 60.0
_LIVE: Final = frozenset({WorkerState.READY, WorkerState.BUSY})
_GONE: Final = frozenset({WorkerState.STOPPED, WorkerState.FAILED, WorkerState.LOST})


class Observer:
    """What can be seen of the rig without asking a gateway."""

    def __init__(self, engine: Engine, tape: Tape, entry: Callable[[str], str | None]) -> None:
        self._tape = tape
        self._entry = entry
        self.desk = EngineDesk(engine)
        self._foreman = EngineForeman(engine)
        self._registry = EngineRegistry(engine)

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str, tape: Tape, entry: Callable[[str], str | None]) -> AsyncGenerator["Observer"]:
        """Look at the engine at this URL, and record how its workers are until the block ends.

        `entry` names an endpoint by its address.
        """
        async with Engine.open(EngineSettings(url=url), role="observer") as engine:
            observer = cls(engine, tape, entry)
            watching = asyncio.create_task(observer._watch())
            try:
                yield observer
            finally:
                watching.cancel()
                await asyncio.gather(watching, return_exceptions=True)
                await observer.desk.aclose()

    async def until_ready(self, workers: int) -> None:
        """Return once so many workers are ready, and healthy in all that they offer; `InternalError` if never."""
        ends = time.monotonic() + READY_WITHIN
        while time.monotonic() < ends:
            well = [row for row in await self._workers() if row.state in _LIVE and all(o.healthy for o in row.offers)]
            if len(well) >= workers:
                return
            await asyncio.sleep(LOOK)
        raise InternalError(f"{workers} workers were not ready in {READY_WITHIN:g} s")

    async def drained(self, *, within: Seconds) -> bool:
        """Return True once no job waits or runs any more; False when that takes too long."""
        ends = time.monotonic() + within
        while time.monotonic() < ends:
            with contextlib.suppress(HostlerError):
                if not sum([(await self._foreman.stats(queue)).depth for queue in await self.queues()]):
                    return True
            await asyncio.sleep(LOOK)
        return False

    async def queues(self) -> tuple[str, ...]:
        """Return the names of all queues, of those with several shards all shards."""
        return tuple(shard for row in await self._foreman.registry() for shard in shards_of(row.queue))

    async def read(self) -> bool:
        """Write all that the engine keeps into the record; False when a queue did not rest meanwhile."""
        return all([await read_all(self._tape.write, queue, self.desk, self._foreman) for queue in await self.queues()])

    async def effects(self, service: str, path: Path) -> None:
        """Write what a service did into the record."""
        done = await asyncio.to_thread(read_effects, path)
        self._tape.write(
            *(Effect(job=one.job, fence=one.fence, type=one.type, service=service, at=one.at) for one in done)
        )

    def _note_circuits(self, row: Worker, known: dict[tuple[str, str], Circuit]) -> None:
        """Record what changed of a worker's breakers; those of one that is gone are nobody's."""
        for endpoint in row.endpoints:
            breaker = Mode(endpoint.traffic.breaker.value) if row.state not in _GONE else None
            told = Circuit(
                endpoint=self._entry(endpoint.url) or endpoint.id,
                at=row.seen_at,
                process=row.id,
                breaker=breaker,
                state=endpoint.state,
            )
            before = known.get((row.id, endpoint.id))
            if before is None or (before.breaker, before.state) != (told.breaker, told.state):
                self._tape.write(told if breaker is not None else replace(told, at=self._tape.clock.now()))
                known[row.id, endpoint.id] = told

    async def _workers(self) -> tuple[Worker, ...]:
        try:
            return await self._registry.workers()
        except HostlerError:
            return ()  # the engine is what is broken just now

    async def _watch(self) -> None:
        """Record every change of a worker's state, slots, offers and breakers."""
        known: dict[str, Roster] = {}
        circuits: dict[tuple[str, str], Circuit] = {}
        while True:
            for row in await self._workers():
                self._note_circuits(row, circuits)
                told = Roster(worker=row.id, at=row.seen_at, state=row.state, slots=row.slots, offers=row.offers)
                before = known.get(row.id)
                if before is None or (before.state, before.slots, before.offers) != (
                    told.state,
                    told.slots,
                    told.offers,
                ):
                    self._tape.write(told)
                    known[row.id] = told
            await asyncio.sleep(LOOK)
