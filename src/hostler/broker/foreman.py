"""The broker on the engine, for operators and for upkeep."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import msgspec
import structlog

from hostler.broker.desk_audit import Audit
from hostler.broker.engine_match import Cover, WorkerClass, worker_class
from hostler.broker.engine_tick import NO_MUSTER, NOT_MUSTERED
from hostler.broker.engine_tick import promote as promote_queue
from hostler.broker.engine_tick import tick as tick_queue
from hostler.broker.foreman_shards import Resizer
from hostler.broker.foreman_stats import stats_of, summed
from hostler.broker.records import pack
from hostler.broker.shards import all_of
from hostler.contracts.offer import Pool
from hostler.contracts.queue import KindSpec, QueueSpec, QueueStats, RegistryRow, UpkeepReport
from hostler.contracts.worker import Worker, WorkerState
from hostler.kernel.errors import EngineTimeoutError, EngineUnavailableError
from hostler.kernel.units import Seconds
from hostler.policy.sharding import MARK, home_of, place_of
from hostler.registry.engine import EngineRegistry
from hostler.registry.kinds import Kinds
from hostler.valkeyio.library import HasClient, Library

_LOG = structlog.stdlib.get_logger("hostler.broker.foreman")

_SLICES = 500
_MUSTER = 10_000_000
"""Microseconds after which workers are looked up though nothing is known to have changed."""
_GONE = frozenset({WorkerState.STOPPED, WorkerState.FAILED, WorkerState.LOST})


class EngineForeman:
    """Implements `ports.broker.Foreman` on Valkey or Redis; safe for any number of tasks of one event loop."""

    def __init__(self, engine: HasClient, *, library: Library | None = None, kinds: Kinds | None = None) -> None:
        self._library = library or Library(engine)
        self._kinds = kinds or Kinds(engine, library=self._library)
        self._registry = EngineRegistry(engine, library=self._library)
        self._audit = Audit(engine, self._library)
        self._resizer = Resizer(engine, self._library, self._kinds)

    async def declare_kind(self, spec: KindSpec, *, reason: str = "") -> None:
        """Add or renew a kind (and its queue, with defaults, if absent). The last declaration wins."""
        await self._kinds.declare_kind(spec, reason=reason)

    async def declare_queue(self, spec: QueueSpec, *, reason: str = "") -> None:
        """Add or change a queue's row; it holds from the next call on.

        `ConflictError` for another number of shards that would part jobs which have to meet.
        """
        await self._resizer.declare(spec, reason=reason)

    async def registry(self) -> tuple[RegistryRow, ...]:
        """Return every queue with its kinds, by name."""
        return await self._kinds.rows()

    async def stats(self, queue: str) -> QueueStats:
        """Return exact counters, those of several shards added up; `UnknownQueueError`.

        The oldest ready job is looked for at the heads of the lines of at most 200 tenants of each shard.
        """
        shards = await self._kinds.shards(queue)
        parts = await asyncio.gather(*(stats_of(self._library, name) for name in shards))
        home = home_of(queue)
        workers = sum(home in worker.queues for worker in await self._registry.workers())
        return msgspec.structs.replace(summed(queue, parts), workers=workers)

    async def pause(self, queue: str, *, operation: str, reason: str = "") -> None:
        """Stop claims from this queue; running work goes on. Idempotent."""
        await self._order("pause", queue, operation, reason)

    async def resume(self, queue: str, *, operation: str, reason: str = "") -> None:
        """Allow claims again; ends a drain too. Idempotent."""
        await self._order("resume", queue, operation, reason)

    async def drain(self, queue: str, *, operation: str, reason: str = "") -> None:
        """Refuse new submits and let what is there run out. Idempotent."""
        await self._order("drain", queue, operation, reason)

    async def _order(self, verb: str, queue: str, operation: str, reason: str) -> None:
        """Order all shards; where one is away the others have heard, and the same order is to be given again."""

        async def one(name: str) -> None:
            await self._library.call(verb, place_of(name), operation=f"{verb}:{operation}", reason=reason)

        await all_of(one, await self._kinds.shards(queue))

    async def tick(self, queue: str) -> UpkeepReport:
        """Do one slice of upkeep of each shard, and of the worker registry too; see the port."""
        parts = await all_of(self._tick, await self._kinds.shards_seen(queue))
        return UpkeepReport(
            more=any(part.more for part in parts),
            fresh=all(part.fresh for part in parts),
            due_in=_soonest(part.due_in for part in parts),
        )

    async def promote(self, queue: str) -> Seconds | None:
        """Make delayed jobs of each shard that are due ready; see the port."""

        async def one(name: str) -> Seconds | None:
            return await promote_queue(self._library, place_of(name))

        return _soonest(await all_of(one, await self._kinds.shards_seen(queue)))

    async def _tick(self, name: str) -> UpkeepReport:
        queue = place_of(name)
        due, *words = cast("list[Any]", await self._library.call("crew", queue))
        if not due:
            return UpkeepReport(fresh=True)
        try:
            roll = await self._mustered(queue, words)
        except (EngineUnavailableError, EngineTimeoutError) as error:
            if "server" not in error.facts:
                raise
            roll = NO_MUSTER
            _LOG.debug("workers are not looked up", queue=queue, reason=error.message)  # a cluster has them elsewhere
        return await tick_queue(self._library, queue, roll=roll)

    async def audit(self, queue: str, *, repair: bool = False) -> tuple[str, ...]:
        """Recount every index of the queue and return each difference as a sentence; optionally mend them."""
        found: list[str] = []
        for name in await self._kinds.shards(queue):
            sentences = await self._audit.run(place_of(name), repair=repair)
            found += [f"{name}: {sentence}" for sentence in sentences] if MARK in name else sentences
        return tuple(found)

    async def _mustered(self, queue: str, words: Sequence[Any]) -> int:
        """Look workers up if any came, went or changed since that was done, or one is to be introduced again.

        Returns what `tick` is to be told; `words` are those of `crew.lua`.
        """
        before, since, *present = words
        there = {word.decode(): int(lasts) for word, lasts in zip(*[iter(present)] * 2, strict=True)}
        roll = await self._registry.upkeep()
        if roll == int(before) and int(since) < _MUSTER and there and all(there.values()):
            return NOT_MUSTERED
        await self._muster(queue, there)
        return roll

    async def _muster(self, queue: str, present: Mapping[str, int]) -> None:
        """Let the queue know of workers that do not claim from it, and of those that are gone.

        `present` are those that it knows, with how long yet (`crew.lua`). Where one has to be introduced again, so are
        those that would have to be soon: then their next time is the same.
        """
        enough = 1 if all(present.values()) else 2
        gone: list[str] = []
        for worker in await self._registry.workers(include_gone=True):
            if worker.state in _GONE:
                gone += [worker.id] if worker.id in present else []
            elif home_of(queue) in worker.queues and present.get(worker.id, 0) < enough:
                await self._introduce(queue, worker)
        if gone:
            await self._library.call("dismiss", queue, workers=gone)

    async def _introduce(self, queue: str, worker: Worker) -> None:
        mine = worker_class(worker.offers, {"slots": Pool(id=worker.id, total=float(worker.slots))})
        cover = Cover()
        for _ in range(_SLICES):
            unjudged = await self._present(queue, worker.id, mine, cover)
            if not unjudged:
                return
            upto, rows = unjudged
            cover = mine.judge(rows, upto)

    async def _present(self, queue: str, worker: str, mine: WorkerClass, cover: Cover) -> list[Any]:
        reply = await self._library.call(
            "renew",
            queue,
            worker=worker,
            class_name=mine.name,
            held=pack([]),
            covers=pack(cover.pairs),
            upto=cover.upto,
        )
        return cast("list[Any]", reply[-1])


def _soonest(waits: Iterable[Seconds | None]) -> Seconds | None:
    return min((wait for wait in waits if wait is not None), default=None)
