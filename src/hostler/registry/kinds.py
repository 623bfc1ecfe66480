"""Kinds and queues: what may be submitted where, kept in the engine, read through a cache of one second."""

import contextlib
import difflib
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final, cast

import msgspec
import structlog
from msgspec import Struct

from hostler.contracts.queue import KindSpec, QueueSpec, RegistryRow
from hostler.kernel.errors import (
    EngineTimeoutError,
    EngineUnavailableError,
    InvalidError,
    PlannedKindError,
    UnknownKindError,
    UnknownQueueError,
)
from hostler.kernel.stored import Reader
from hostler.kernel.units import Seconds
from hostler.policy.sharding import home_of, place_of, shards_of
from hostler.registry.schemas import Schemas
from hostler.valkeyio.config import config_hash, pack_config
from hostler.valkeyio.keys import REGISTRY_TAG
from hostler.valkeyio.library import HasClient, Library

CACHED: Final[Seconds] = 1.0
"""Longest time for which this process may not see a changed declaration; a new one is seen at once."""
BUILT_IN: Final[Mapping[str, QueueSpec]] = MappingProxyType(
    {"default": QueueSpec(name="default", about="Kinds that name no queue of their own.")}
)
"""Rows that are code; a declaration of the same name takes their place."""
_NEAREST: Final = 3

_log = structlog.get_logger(__name__)
_decode_kind = Reader(KindSpec)
_decode_queue = Reader(QueueSpec)


class Snapshot(Struct, frozen=True, kw_only=True):
    """All rows of one version."""

    version: bytes = b""
    kinds: Mapping[str, KindSpec] = MappingProxyType[str, KindSpec]({})
    queues: Mapping[str, QueueSpec] = BUILT_IN


class Kinds:
    """The registry of kinds and queues, for one process."""

    def __init__(
        self, engine: HasClient, *, library: Library | None = None, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._library = library or Library(engine)
        self._monotonic = monotonic
        self._snapshot = Snapshot()
        self._read_at: float | None = None
        self.schemas = Schemas()

    async def kind(self, name: str) -> KindSpec:
        """Return a kind that can be submitted; `UnknownKindError` with the nearest names, or `PlannedKindError`."""
        found = (await self._recent()).kinds.get(name) or (await self.read()).kinds.get(name)
        if found is None:
            near = tuple(difflib.get_close_matches(name, self._snapshot.kinds, n=_NEAREST, cutoff=0.5))
            hint = f"; nearest: {', '.join(near)}" if near else "; a worker makes its kinds known when it starts"
            raise UnknownKindError(f"no kind is named {name!r}{hint}", field="kind", kind=name, nearest=near)
        if found.planned:
            raise PlannedKindError(f"{name!r} is planned: nothing runs it yet", field="kind", kind=name)
        return found

    async def queue(self, name: str) -> QueueSpec:
        """Return a queue's row; `UnknownQueueError` with the nearest names."""
        found = (await self._recent()).queues.get(name) or (await self.read()).queues.get(name)
        if found is None:
            near = tuple(difflib.get_close_matches(name, self._snapshot.queues, n=_NEAREST, cutoff=0.5))
            hint = f"; nearest: {', '.join(near)}" if near else ""
            raise UnknownQueueError(f"no queue is named {name!r}{hint}", field="queue", queue=name, nearest=near)
        return found

    async def shards(self, name: str) -> tuple[str, ...]:
        """Return the shards that a name means: all of a queue, or the one that it names; `UnknownQueueError`."""
        try:
            return _meant(name, await self.queue(home_of(name)))
        except UnknownQueueError:
            return _meant(name, (await self.read()).queues.get(home_of(name)) or await self.queue(home_of(name)))

    async def shards_seen(self, name: str) -> tuple[str, ...]:
        """Return the same as the registry was read last, and the name itself where that does not know it."""
        if self._read_at is None:
            await self.read()
        spec = self._snapshot.queues.get(home_of(name))
        return (name,) if spec is None else _meant(name, spec)

    async def known(self) -> Mapping[str, KindSpec]:
        """Return every declared kind by name, planned ones included, as of at most a second ago.

        While the registry is away, as it was read last.
        """
        return (await self._recent()).kinds

    async def rows(self) -> tuple[RegistryRow, ...]:
        """Return every queue with its kinds, by name."""
        now = await self.read()
        return tuple(
            RegistryRow(
                queue=now.queues[name],
                kinds=tuple(kind for _, kind in sorted(now.kinds.items()) if kind.queue == name),
            )
            for name in sorted(now.queues)
        )

    async def declare_kind(self, spec: KindSpec, *, reason: str = "") -> None:
        """Add or renew a kind, and its queue with defaults when there is none; the last declaration wins.

        `InvalidError` when a payload or result type is no JSON Schema. Jobs that wait in the kind's former
        queue stay there; that is logged.
        """
        for part, schema in (("payload", spec.payload), ("result", spec.result)):
            if schema is not None:
                self.schemas.check(schema, field=f"kinds.{spec.name}.{part}")
        refuse_reserved(spec.queue)
        queue = "" if spec.queue in BUILT_IN else spec.queue
        default, row = msgspec.json.encode(QueueSpec(name=spec.queue)), msgspec.json.encode(spec)
        before = await self._declare("kinds", spec.name, row, queue=queue, queue_row=default, reason=reason)
        if before:
            former = _decode_kind(before).queue
            if former != spec.queue:
                _log.warning("kind moved to another queue, its jobs stay", kind=spec.name, was=former, queue=spec.queue)

    async def declare_queue(self, spec: QueueSpec, *, reason: str = "") -> None:
        """Add or change a queue's row: its limits and times hold from the next call on."""
        # The function library never sees a row without its numbers: they are stored first.
        await self.configure(spec)
        await self._declare("queues", spec.name, msgspec.json.encode(spec), reason=reason)

    async def configure(self, spec: QueueSpec) -> None:
        """Let each shard go by a row from the next call on, whatever the registry says."""
        refuse_reserved(spec.name)
        for number, shard in enumerate(shards_of(spec)):
            packed = pack_config(spec, number)
            await self._library.call("configure", place_of(shard), config=packed, hash=config_hash(packed))

    async def read(self) -> Snapshot:
        """Return the rows as they are now."""
        reply = cast(
            "list[bytes | list[bytes]]",
            await self._library.call_registry("catalogue", version=self._snapshot.version),
        )
        self._read_at = self._monotonic()
        if len(reply) > 1:
            version, kinds, queues = cast("tuple[bytes, list[bytes], list[bytes]]", tuple(reply))
            self._snapshot = Snapshot(
                version=version,
                kinds=MappingProxyType({row.name: row for row in _decode_kind.each(kinds[1::2])}),
                queues=MappingProxyType({**BUILT_IN, **{row.name: row for row in _decode_queue.each(queues[1::2])}}),
            )
        return self._snapshot

    def fresh(self) -> Snapshot | None:
        """Return all rows as they were at most a second ago; None when they have to be read first."""
        fresh = self._read_at is not None and self._monotonic() - self._read_at <= CACHED
        return self._snapshot if fresh else None

    async def _recent(self) -> Snapshot:
        if self._read_at is None:
            return await self.read()
        if self._monotonic() - self._read_at > CACHED:
            # What was read last serves while the registry is away: in a cluster queues lie elsewhere, and go on.
            with contextlib.suppress(EngineUnavailableError, EngineTimeoutError):
                return await self.read()
        return self._snapshot

    async def _declare(
        self, family: str, name: str, row: bytes, *, reason: str, queue: str = "", queue_row: bytes = b""
    ) -> bytes:
        changed, before, _ = cast(
            "tuple[int, bytes, object]",
            tuple(
                await self._library.call_registry(
                    "declare", family=family, name=name, row=row, queue=queue, queue_row=queue_row, reason=reason
                )
            ),
        )
        if changed:
            await self.read()
        return before


def _meant(name: str, spec: QueueSpec) -> tuple[str, ...]:
    every = shards_of(spec)
    if name == spec.name or place_of(name) == every[0]:
        return every
    if name not in every:
        raise UnknownQueueError(
            f"{spec.name} has no shard {name}; it has {', '.join(every)}", field="queue", queue=name
        )
    return (name,)


def refuse_reserved(queue: str) -> None:
    """Refuse a name that no queue may have; `InvalidError`."""
    if queue == REGISTRY_TAG:
        raise InvalidError(f"no queue may be named {queue!r}: the engine keeps the registry there", field="queue")
