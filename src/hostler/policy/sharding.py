"""A queue in several shards: what they are called, and which of them a job goes to. Pure.

Shard k of `image` is named `image~k`. The first is what the queue was before it had others: its place in the
engine, and the ids of its jobs, are those of the queue.
"""

import math
from hashlib import blake2b
from typing import Final

import msgspec

from hostler.contracts.job import JobRequest
from hostler.contracts.queue import QueueSpec

MARK: Final = "~"
"""Stands between a queue's name and the number of its shard; no queue's name has it."""

_FIRST: Final = f"{MARK}0"
_STEP: Final = 2862933555777941757
"""The multiplier of the congruential generator that the hash is defined by."""
_WORD: Final = 1 << 64
_HIGH: Final = 1 << 31


def home_of(name: str) -> str:
    """Return the queue that a shard is of; a queue's own name is returned as it is."""
    return name.partition(MARK)[0]


def place_of(name: str) -> str:
    """Return the name under which the engine keeps a queue or a shard."""
    return name.removesuffix(_FIRST)


def shard_of(job_id: str) -> str:
    """Return the queue, or the shard of one, that a job lies in."""
    return job_id.rpartition(".")[0]


def shards_of(spec: QueueSpec) -> tuple[str, ...]:
    """Return the names of a queue's shards; of one that has no others, its own."""
    return (spec.name,) if spec.shards == 1 else tuple(f"{spec.name}{MARK}{number}" for number in range(spec.shards))


def spread_of(spec: QueueSpec) -> int:
    """Return over how many shards jobs with an ordering key are spread."""
    return spec.key_shards or spec.shards


def open_of(spec: QueueSpec) -> int:
    """Return how many shards take new jobs."""
    return spec.shards if spec.open_shards is None else spec.open_shards


def share_of(spec: QueueSpec) -> QueueSpec:
    """Return the row that each shard goes by: an equal share of what the queue may hold, rounded up."""
    number = open_of(spec)
    if number <= 1:
        return spec
    limits, keep = spec.limits, spec.retention
    return msgspec.structs.replace(
        spec,
        limits=msgspec.structs.replace(
            limits,
            depth=_share(limits.depth, number),
            bytes=_share(limits.bytes, number),
            tenant_depth=_share(limits.tenant_depth, number),
        ),
        retention=msgspec.structs.replace(keep, terminal_count=math.ceil(keep.terminal_count / number)),
    )


def _share(limit: int | None, number: int) -> int | None:
    return None if limit is None else math.ceil(limit / number)


def ordering_key(request: JobRequest, affinity: str | None) -> str | None:
    """Return what decides the shard of a job that has to meet others; None for one that may go to any.

    The concurrency key goes first, then tenant and idempotency key, then the session: a job that has several is
    ordered, and known again, among those of the first.
    """
    if request.concurrency_key is not None:
        return f"concurrency:{request.concurrency_key}"
    if request.idempotency_key is not None:
        return f"idempotency:{request.tenant}:{request.idempotency_key}"
    return None if affinity is None else f"affinity:{affinity}"


def shard_for(key: str, number: int) -> int:
    """Return which of `number` shards a key belongs to, from 0; of one more shard, one key in so many moves there.

    Jump consistent hash (Lamping and Veach, 2014) of the key's BLAKE2b-64, big endian: any process and any
    version gives the same answer.
    """
    state = int.from_bytes(blake2b(key.encode(), digest_size=8).digest())
    found, jump = 0, 0
    while jump < number:
        found = jump
        state = (state * _STEP + 1) % _WORD
        jump = int((found + 1) * (_HIGH / ((state >> 33) + 1)))
    return found
