"""A queue's counters: of each place that the engine keeps for it, and added up."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, cast

import msgspec

from hostler.contracts.job import JobState
from hostler.contracts.queue import QueueStats
from hostler.policy.sharding import place_of
from hostler.valkeyio.instants import instant_or_none
from hostler.valkeyio.library import Library

_TENANTS_LOOKED_AT: Final = 200
S = JobState


async def stats_of(library: Library, name: str) -> QueueStats:
    """Return the counters of one shard, or of a queue that has no others; workers are not counted.

    The oldest ready job is looked for at the heads of the lines of at most 200 tenants.
    """
    words, lanes, tenants, _, unworkable, oldest = cast(
        "list[Any]", await library.call("stats", place_of(name), most=_TENANTS_LOOKED_AT)
    )
    meta = {name.decode(): value for name, value in zip(words[::2], words[1::2], strict=True)}
    number = {name: int(value) for name, value in meta.items() if name not in {"cfg", "run", "reason"}}
    live = {state: number[f"n_{state}"] for state in S if not state.terminal}
    return QueueStats(
        name=name,
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
        workers=0,
        oldest_ready_at=instant_or_none(int(oldest)),
        offset=number["off"],
        epoch=number["epoch"],
    )


def summed(name: str, shards: Sequence[QueueStats]) -> QueueStats:
    """Return the counters of a queue by those of its shards: it is paused, or drained, when all of them are."""
    if len(shards) == 1:
        return msgspec.structs.replace(shards[0], name=name)
    return QueueStats(
        name=name,
        paused=all(shard.paused for shard in shards),
        draining=all(shard.draining for shard in shards),
        reason=next((shard.reason for shard in shards if shard.reason), None),
        ready=sum(shard.ready for shard in shards),
        scheduled=sum(shard.scheduled for shard in shards),
        running=sum(shard.running for shard in shards),
        waiting=sum(shard.waiting for shard in shards),
        unworkable=sum(shard.unworkable for shard in shards),
        depth=sum(shard.depth for shard in shards),
        bytes=sum(shard.bytes for shard in shards),
        totals=_added(shard.totals for shard in shards),
        kept=_added(shard.kept for shard in shards),
        lanes=sum(shard.lanes for shard in shards),
        tenants=sum(shard.tenants for shard in shards),
        workers=0,
        oldest_ready_at=min((shard.oldest_ready_at for shard in shards if shard.oldest_ready_at), default=None),
        offset=sum(shard.offset for shard in shards),
        epoch=max(shard.epoch for shard in shards),
        shards=tuple(shards),
    )


def _added(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for each in counts:
        total.update(each)
    return dict(total)
