"""Changing over how many shards a queue is spread, without parting jobs that have to meet."""

import uuid
from collections.abc import Sequence
from typing import Final

from hostler.broker.foreman_stats import stats_of
from hostler.contracts.queue import QueueSpec, QueueStats
from hostler.kernel.errors import ConflictError, InvalidError
from hostler.policy.sharding import MARK, open_of, place_of, shards_of, spread_of
from hostler.registry.kinds import Kinds, refuse_reserved
from hostler.valkeyio.keys import prefix
from hostler.valkeyio.library import HasClient, Library
from hostler.valkeyio.scans import scan_keys

_KEYS_STAY: Final = (
    "leave them where they are with key_shards={before} (jobs without keys use all shards at once), or let the queue "
    "take no new jobs with open_shards=0 and change it when all has ended and no idempotency key is remembered"
)


class Resizer:
    """Declares queues whose shards may be others than before."""

    def __init__(self, engine: HasClient, library: Library, kinds: Kinds) -> None:
        self._engine = engine
        self._library = library
        self._kinds = kinds

    async def declare(self, spec: QueueSpec, *, reason: str) -> None:
        """Store a queue's row; `ConflictError` where jobs would be lost sight of, or parted from those of their key.

        Shards that go must be closed and hold nothing. Keys move only while nothing knows any: from the moment
        that all shards go by the new number, a submit with a key that goes by the old one is refused.
        """
        refuse_reserved(spec.name)
        _judge(spec)
        before = (await self._kinds.read()).queues.get(spec.name) or QueueSpec(name=spec.name)
        for name in shards_of(before)[spec.shards :]:
            _judge_leaving(await stats_of(self._library, name), before, spec)
        if spread_of(spec) != spread_of(before):
            await self._move_keys(before, spec)
        elif spec.shards > before.shards:
            await self._kinds.configure(spec)  # before anybody hears of the new ones
        if spec.shards > before.shards:
            await self._open(shards_of(spec)[before.shards :], like=spec.name)
        await self._kinds.declare_queue(spec, reason=reason)

    async def _move_keys(self, before: QueueSpec, spec: QueueSpec) -> None:
        every = max(shards_of(before), shards_of(spec), key=len)
        await self._judge_keys(every, before)
        await self._kinds.configure(spec)
        try:
            await self._judge_keys(every, before)
        except ConflictError:
            await self._kinds.configure(before)
            raise

    async def _judge_keys(self, shards: Sequence[str], before: QueueSpec) -> None:
        what_to_do = _KEYS_STAY.format(before=spread_of(before))
        found = [await stats_of(self._library, name) for name in shards]
        if depth := sum(shard.depth for shard in found):
            raise ConflictError(
                f"{depth} jobs of {before.name} have not ended, and those with a key would be parted from others of "
                f"it: {what_to_do}",
                queue=before.name,
            )
        for shard in found:
            if shard.totals["submitted"] and await self._remembers(shard.name):
                raise ConflictError(
                    f"{before.name} remembers idempotency keys, and would not know them again elsewhere: {what_to_do}",
                    queue=before.name,
                )

    async def _remembers(self, name: str) -> bool:
        async for _ in scan_keys(self._engine, f"{prefix(place_of(name))}i:"):
            return True
        return False

    async def _open(self, shards: Sequence[str], *, like: str) -> None:
        """Let shards that are new, or come back, take work as the first one does."""
        model = await stats_of(self._library, f"{like}{MARK}0")
        for name in shards:
            found = await stats_of(self._library, name)
            if (found.paused, found.draining) == (model.paused, model.draining):
                continue
            verbs = ("resume", *(["pause"] if model.paused else []), *(["drain"] if model.draining else []))
            for verb in verbs:
                operation = f"{verb}:{uuid.uuid4().hex}"
                await self._library.call(verb, place_of(name), operation=operation, reason=model.reason or "")


def _judge(spec: QueueSpec) -> None:
    keys, takes = spread_of(spec), open_of(spec)
    if keys > spec.shards or takes > spec.shards:
        field = "key_shards" if keys > spec.shards else "open_shards"
        raise InvalidError(f"{field} is {max(keys, takes)}, and {spec.name} has {spec.shards} shards", field=field)
    if 0 < takes < keys:
        raise InvalidError(
            f"keys of {spec.name} are spread over {keys} shards, so {takes} cannot be all that take new jobs: lower "
            "key_shards first",
            field="open_shards",
        )


def _judge_leaving(shard: QueueStats, before: QueueSpec, spec: QueueSpec) -> None:
    if open_of(before) > spec.shards:
        raise ConflictError(
            f"{spec.name} can do without {shard.name} once that takes no new jobs and is empty: set "
            f"open_shards={spec.shards} first",
            queue=shard.name,
        )
    if held := shard.depth + sum(shard.kept.values()):
        raise ConflictError(
            f"{shard.name} still holds {held} jobs, {shard.depth} of which have not ended: wait for these, and purge "
            "those that ended",
            queue=shard.name,
        )
