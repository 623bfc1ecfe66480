"""A queue's row as the functions read it: packed, in microseconds, complete."""

from hashlib import blake2b
from typing import Final

import msgspec

from hostler.contracts.queue import QueueSpec
from hostler.policy.sharding import open_of, share_of, spread_of
from hostler.valkeyio import layout

_MICRO: Final = 1_000_000
_MILLI: Final = 1_000


def config_values(spec: QueueSpec, shard: int = 0) -> tuple[int | dict[str, int], ...]:
    """Return the values of `layout.CONFIG` in order, one shard's where there are several; 0 means no limit."""
    share = share_of(spec)
    keep, limits = share.retention, share.limits
    values: dict[str, int | dict[str, int]] = {
        "lease": round(spec.lease * _MICRO),
        "head_start": round(spec.head_start * _MICRO),
        "reserve_after": round(spec.reserve_after * _MICRO),
        "cancel_grace": round(spec.cancel_grace * _MICRO),
        "depth": limits.depth or 0,
        "bytes": limits.bytes or 0,
        "tenant_depth": limits.tenant_depth or 0,
        "lanes": limits.lanes,
        "key_running": limits.key_running,
        "terminal": round(keep.terminal * _MICRO),
        "terminal_count": keep.terminal_count,
        "dead": round(keep.dead * _MICRO),
        "events": keep.events,
        "idempotency": round(keep.idempotency * _MILLI),
        "operations": round(keep.operations * _MILLI),
        "weights": dict(spec.weights),
        "affinity": round(keep.affinity * _MILLI),
        "spread": spread_of(spec) if shard < open_of(spec) else 0,
    }
    return tuple(values[name] for name in layout.CONFIG)


def pack_config(spec: QueueSpec, shard: int = 0) -> bytes:
    """Return the bytes that the verb `configure` stores for a shard."""
    return msgspec.msgpack.encode(config_values(spec, shard))


DEFAULTS: Final = config_values(QueueSpec(name="default"))
"""What a queue without a row of its own gets."""


def config_hash(packed: bytes) -> str:
    """Return the name under which the functions cache a configuration: equal content, equal name."""
    return blake2b(packed, digest_size=10).hexdigest()
