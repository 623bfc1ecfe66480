"""The broker on the engine, for operators and for upkeep."""

from collections.abc import Mapping
from typing import Any, cast

import structlog

from hostler.broker.desk_audit import Audit
from hostler.broker.engine_match import Cover, WorkerClass, worker_class
from hostler.broker.engine_tick import tick as tick_queue
from hostler.broker.records import pack
from hostler.contracts.job import JobState
from hostler.contracts.offer import Pool
from hostler.contracts.queue import KindSpec, QueueSpec, QueueStats, RegistryRow
from hostler.contracts.worker import Worker, WorkerState
from hostler.kernel.errors import EngineTimeoutError, EngineUnavailableError
from hostler.registry.engine import EngineRegistry
from hostler.registry.kinds import Kinds
from hostler.valkeyio.instants import instant_or_none
from hostler.valkeyio.library import HasClient, Library

_LOG = structlog.stdlib.get_logger("hostler.broker.foreman")

_TENANTS_LOOKED_AT = 200
_SLICES = 500
_GONE = frozenset({WorkerState.STOPPED, WorkerState.FAILED, WorkerState.LOST})
S = JobState


class EngineForeman:
    """Implements `ports.broker.Foreman` on Valkey or Redis; safe for any number of tasks of one event loop."""

    def __init__(self, engine: HasClient, *, library: Library | None = None, kinds: Kinds | None = None) -> None:
        self._library = library or Library(engine)
        self._kinds = kinds or Kinds(engine, library=self._library)
        self._registry = EngineRegistry(engine, library=self._library)
        self._audit = Audit(engine, self._library)

    async def declare_kind(self, spec: KindSpec, *, reason: str = "") -> None:
        """Add or renew a kind (and its queue, with defaults, if absent). The last declaration wins."""
        await self._kinds.declare_kind(spec, reason=reason)

    async def declare_queue(self, spec: QueueSpec, *, reason: str = "") -> None:
        """Add or change a queue's row; it holds from the next call on."""
        await self._kinds.declare_queue(spec, reason=reason)

    async def registry(self) -> tuple[RegistryRow, ...]:
        """Return every queue with its kinds, by name."""
        return await self._kinds.rows()

    async def stats(self, queue: str) -> QueueStats:
        """Return exact counters; `UnknownQueueError`.

        The oldest ready job is looked for at the heads of the lines of at most 200 tenants.
        """
        await self._kinds.queue(queue)
        words, lanes, tenants, _, unworkable, oldest = cast(
            "list[Any]", await self._library.call("stats", queue, most=_TENANTS_LOOKED_AT)
        )
        meta = {name.decode(): value for name, value in zip(words[::2], words[1::2], strict=True)}
        number = {name: int(value) for name, value in meta.items() if name not in {"cfg", "run", "reason"}}
        live = {state: number[f"n_{state}"] for state in S if not state.terminal}
        return QueueStats(
            name=queue,
            paused=bool(number["paused"]),
            draining=bool(number["draining"]),
            reason=meta["reason"].decode() or None,
            ready=live[S.READY],
            scheduled=live[S.SCHEDULED],
            running=live[S.RUNNING],
            waiting=live[S.WAITING],
            unworkable=unworkable,
            depth=sum(live.values()),
            bytes=number["bytes"],
            totals={name[2:]: value for name, value in number.items() if name.startswith("t_")},
            kept={str(state): number[f"n_{state}"] for state in S if state.terminal},
            lanes=lanes,
            tenants=tenants,
            workers=sum(queue in worker.queues for worker in await self._registry.workers()),
            oldest_ready_at=instant_or_none(int(oldest)),
            offset=number["off"],
            epoch=number["epoch"],
        )

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
        await self._kinds.queue(queue)
        await self._library.call(verb, queue, operation=f"{verb}:{operation}", reason=reason)

    async def tick(self, queue: str) -> bool:
        """Do one slice of upkeep, of the worker registry too; see the port."""
        due, *present = cast("list[Any]", await self._library.call("crew", queue))
        if not due:
            return False
        try:
            await self._registry.upkeep()
            await self._muster(
                queue, {word.decode(): bool(lasts) for word, lasts in zip(*[iter(present)] * 2, strict=True)}
            )
        except (EngineUnavailableError, EngineTimeoutError) as error:
            if "server" not in error.facts:
                raise
            _LOG.debug("workers are not looked up", queue=queue, reason=error.message)  # a cluster has them elsewhere
        return await tick_queue(self._library, queue)

    async def audit(self, queue: str, *, repair: bool = False) -> tuple[str, ...]:
        """Recount every index of the queue and return each difference as a sentence; optionally mend them."""
        await self._kinds.queue(queue)
        return await self._audit.run(queue, repair=repair)

    async def _muster(self, queue: str, present: Mapping[str, bool]) -> None:
        """Let the queue know of workers that do not claim from it, and of those that are gone.

        `present` are those that it knows; False marks one whose time there is nearly over.
        """
        gone: list[str] = []
        for worker in await self._registry.workers(include_gone=True):
            if worker.state in _GONE:
                gone += [worker.id] if worker.id in present else []
            elif queue in worker.queues and not present.get(worker.id):
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
