"""A cluster of three primaries and a replica of each on loopback, ready to fail over."""

import asyncio
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Final, cast

from hostler.chaos.nodes import HOST, SAFE, Node, NodeSet, free_ports
from hostler.kernel.errors import HostlerError
from hostler.testing.eventually import eventually
from hostler.valkeyio.slots import SLOTS, SlotMap, View, merged, read_view, slot_of

_CLUSTER: Final[Mapping[str, str]] = {
    "cluster-enabled": "yes",
    "cluster-node-timeout": "2000",
    "cluster-require-full-coverage": "no",
}
_PRIMARIES: Final = 3
_PIECE: Final = 1024
"""Slots are dealt in pieces of so many: that spreads the queues of the broker's suite over all primaries."""


class ClusterSet(NodeSet):
    """Real servers; each primary has about a third of the slots."""

    def __init__(self, program: Path | None = None, settings: Mapping[str, str] | None = None) -> None:
        self._program = program
        self._lines = [f"{name} {value}" for name, value in {**SAFE, **_CLUSTER, **(settings or {})}.items()]
        self._buses: dict[Node, int] = {}
        self.nodes: list[Node] = []
        for _ in range(2 * _PRIMARIES):
            self._make()

    @property
    def url(self) -> str:
        """URL of the engine."""
        return f"redis+cluster://{','.join(f'{HOST}:{node.port}' for node in self.nodes[: 2 * _PRIMARIES])}"

    async def start(self) -> None:
        """Start all of them, form the cluster, and wait until it is ready."""
        for node in self.nodes:
            await asyncio.to_thread(node.start)
        for number, node in enumerate(self.nodes):
            await eventually(node.answers, within=30)
            # Before they meet: those with the same epoch would have to sort that out between them.
            await node.command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for number, node in enumerate(self.nodes[:_PRIMARIES]):
            pieces = [(first, first + _PIECE - 1) for first in range(number * _PIECE, SLOTS, _PRIMARIES * _PIECE)]
            await node.command("CLUSTER", "ADDSLOTSRANGE", *chain(*pieces))
        for node in self.nodes[1:]:
            await self._meet(node)
        await eventually(self._all_known, within=60, every=0.05)
        for node, primary in zip(self.nodes[_PRIMARIES:], self.nodes, strict=False):
            await node.command("CLUSTER", "REPLICATE", await self.id_of(primary))
        await self.ready()

    async def end(self) -> None:
        """Kill all of them and remove what they wrote."""
        for node in self.nodes:
            await node.end()

    async def add(self) -> Node:
        """Start another node, a primary without slots, and return it once all know it and it would serve."""
        node = await asyncio.to_thread(self._make)
        await asyncio.to_thread(node.start)
        await eventually(node.answers, within=30)
        await self._meet(node)
        await eventually(self._all_known, within=60, every=0.05)
        await eventually(lambda: _serves(node), within=60, every=0.05)
        return node

    async def ready(self) -> None:
        """Wait until every node runs and knows all, every slot is served, and each primary has its replica in step."""
        await eventually(self._ready, within=60, every=0.1)

    async def map(self) -> SlotMap:
        """Return who has which slot, by all nodes that answer."""
        views = await asyncio.gather(*(_view(node) for node in self.nodes if node.runs))
        return merged(view for view in views if view is not None)

    async def primary_of(self, queue: str) -> Node:
        """Return the node that has a queue, or the registry."""

        async def owner() -> Node | None:
            found = (await self.map()).owners[slot_of(f"{{{queue}}}")]
            return next((node for node in self.nodes if found == (HOST, node.port)), None)

        return cast("Node", await eventually(owner, within=60, every=0.05))

    async def replicas_of(self, node: Node) -> list[Node]:
        """Return the nodes that replicate this one, as it says."""
        primary = (await self.map()).primaries[HOST, node.port]
        return [other for other in self.nodes if (HOST, other.port) in primary.replicas]

    async def hold_back(self, node: Node, *, held: bool = True) -> None:
        """Let no replica of this node take over, until they are let again; `node` may be dead by then."""
        for replica in await self.replicas_of(node):
            await replica.command("CONFIG", "SET", "cluster-replica-no-failover", "yes" if held else "no")

    async def kill_primary(self, queue: str) -> Node:
        """Kill the node that has a queue as `kill -9` does, and return it."""
        node = await self.primary_of(queue)
        await asyncio.to_thread(node.kill)
        return node

    async def until_primary_is_not(self, queue: str, node: Node) -> Node:
        """Wait until another has the queue."""

        async def moved() -> Node | None:
            found = await self.primary_of(queue)
            return None if found is node else found

        return cast("Node", await eventually(moved, within=60))

    async def migrate(self, queue: str, target: Node) -> None:
        """Give a queue's slot to another primary in one step (Valkey 9), and return when it has it."""
        slot = slot_of(f"{{{queue}}}")
        source = await self.primary_of(queue)
        id_ = await self.id_of(target)
        await source.command("CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", slot, slot, "NODE", id_)
        await self.until_primary_is_not(queue, source)

    async def id_of(self, node: Node) -> str:
        """Return the id that a node has in the cluster."""
        return cast("bytes", await node.command("CLUSTER", "MYID")).decode()

    def _make(self) -> Node:
        port, bus = free_ports(2)
        node = Node(port, [*self._lines, f"cluster-port {bus}"], program=self._program)
        self._buses[node] = bus
        self.nodes.append(node)
        return node

    async def _meet(self, node: Node) -> None:
        await self.nodes[0].command("CLUSTER", "MEET", HOST, node.port, self._buses[node])

    async def _all_known(self) -> bool:
        return all([await _known(node) == len(self.nodes) for node in self.nodes])

    async def _ready(self) -> bool:
        try:
            for node in self.nodes:
                if not await _serves(node) or await _known(node) != len(self.nodes):
                    return False
            known = all(primary.replicas for primary in (await self.map()).primaries.values())
            return known and all([await self._in_step(node) for node in self.nodes])
        except HostlerError:
            return False

    async def _in_step(self, node: Node) -> bool:
        info = await node.command("INFO", "replication")
        if info["role"] == "slave":
            return info["master_link_status"] == "up"
        has_slots = (HOST, node.port) in (await self.map()).primaries
        return not has_slots or (info["connected_slaves"] > 0 and info["slave0"]["state"] == "online")


async def _known(node: Node) -> int:
    """Return how many nodes it has heard of, and is connected to."""
    lines = cast("bytes", await node.command("CLUSTER", "NODES")).decode().splitlines()
    return sum("handshake" not in line and " connected" in line for line in lines)


async def _view(node: Node) -> View | None:
    try:
        slots = await node.command("CLUSTER", "SLOTS")
        return read_view((HOST, node.port), slots, (await node.command("CLUSTER", "NODES")).decode())
    except HostlerError:
        return None


async def _serves(node: Node) -> bool:
    info = (await node.command("CLUSTER", "INFO")).decode()
    return "cluster_state:ok" in info and f"cluster_slots_ok:{SLOTS}" in info
