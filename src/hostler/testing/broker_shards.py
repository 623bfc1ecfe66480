"""A broker whose queue `main` has three shards, used as one that has none: what each job is promised must hold."""

from collections.abc import Sequence
from typing import Any, Final, cast

import msgspec

from hostler.contracts.lease import ClaimRequest, Lease
from hostler.contracts.queue import QueueSpec
from hostler.policy.sharding import shards_of
from hostler.policy.suspicion import suspicion
from hostler.ports.broker import Broker, Foreman
from hostler.testing.broker_house import QUEUE, BrokerHarness

SHARDS: Final = 3


class _ClaimsOfAll:
    """Claims from all shards, one after the other, as a worker does; the rest is the broker's own."""

    def __init__(self, broker: Broker, foreman: Foreman) -> None:
        self._broker = broker
        self._foreman = foreman

    def __getattr__(self, name: str) -> Any:
        return getattr(self._broker, name)

    async def claim(self, request: ClaimRequest, *, operation: str) -> tuple[Lease, ...]:
        found: list[Lease] = []
        for shard in await self._shards(request.queue):
            held = [suspicion(lease.crashes, lease.crashes_max) for lease in found]
            wanted = msgspec.structs.replace(
                request,
                queue=shard,
                limit=max(0, request.limit - len(found)),
                suspicion=max([request.suspicion, *held]),
            )
            if wanted.limit or not request.limit:  # a limit of nothing asks what each gave under the operation
                found += await self._broker.claim(wanted, operation=f"{operation}/{shard}")
        return tuple(found)

    async def wait_for_work(self, queues: Sequence[str], worker: str, *, timeout: float) -> bool:
        every = [shard for queue in queues for shard in await self._shards(queue)]
        return await self._broker.wait_for_work(every, worker, timeout=timeout)

    async def _shards(self, queue: str) -> tuple[str, ...]:
        rows = {row.queue.name: row.queue for row in await self._foreman.registry()}
        return shards_of(rows[queue]) if queue in rows else (queue,)


class _DeclaresShards:
    """Declares the suite's queue with its shards."""

    def __init__(self, foreman: Foreman) -> None:
        self._foreman = foreman

    def __getattr__(self, name: str) -> Any:
        return getattr(self._foreman, name)

    async def declare_queue(self, spec: QueueSpec, *, reason: str = "") -> None:
        number = SHARDS if spec.name == QUEUE else 1
        await self._foreman.declare_queue(msgspec.structs.replace(spec, shards=number), reason=reason)


def sharded(harness: BrokerHarness) -> BrokerHarness:
    """Return the same broker, whose queue `main` has three shards from its first declaration on."""
    return BrokerHarness(
        broker=cast("Broker", _ClaimsOfAll(harness.broker, harness.foreman)),
        desk=harness.desk,
        foreman=cast("Foreman", _DeclaresShards(harness.foreman)),
        registry=harness.registry,
        now=harness.now,
        advance=harness.advance,
        restart=harness.restart,
    )
