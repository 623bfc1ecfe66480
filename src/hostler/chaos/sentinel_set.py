"""One primary, two replicas and three sentinels on loopback, ready to fail over."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

from hostler.chaos.nodes import HOST, SAFE, Node, NodeSet, free_ports
from hostler.kernel.errors import EngineUnavailableError, HostlerError
from hostler.kernel.units import Seconds

T = TypeVar("T")

SERVICE = "stable"
_GUARDED = {"min-replicas-to-write": "1", "min-replicas-max-lag": "10"}


async def _until(check: Callable[[], Awaitable[T]], *, within: Seconds, every: Seconds = 0.02) -> T:
    """Ask until the answer is true; `EngineUnavailableError` when that takes too long."""
    ends = time.monotonic() + within
    while not (found := await check()):
        if time.monotonic() >= ends:
            raise EngineUnavailableError(f"the servers are not as they should be after {within:g} s")
        await asyncio.sleep(every)
    return found


class SentinelSet(NodeSet):
    """Real servers; an acknowledged write is on one replica at least within `min-replicas-max-lag`.

    `folders` are where the files of the six lie, servers first; each makes one of its own unless given.
    """

    def __init__(
        self,
        program: Path | None = None,
        settings: Mapping[str, str] | None = None,
        *,
        folders: Sequence[Path] | None = None,
        before: Sequence[str] = (),
    ) -> None:
        ports = free_ports(6)
        chosen = {**SAFE, **_GUARDED, **(settings or {})}
        lines = [f"{name} {value}" for name, value in chosen.items()]
        self._first = ports[0]
        more: list[dict[str, Any]] = [
            {"program": program, "before": before, "folder": folder} for folder in folders or (None,) * len(ports)
        ]
        self.servers = [
            Node(port, lines if port == self._first else [*lines, f"replicaof {HOST} {self._first}"], **of)
            for port, of in zip(ports[:3], more[:3], strict=True)
        ]
        self.sentinels = [
            Node(port, self._watching(), "--sentinel", **of) for port, of in zip(ports[3:], more[3:], strict=True)
        ]

    @property
    def url(self) -> str:
        """URL of the engine."""
        places = ",".join(f"{HOST}:{node.port}" for node in self.sentinels)
        return f"redis+sentinel://{places}/{SERVICE}"

    async def start(self) -> None:
        """Start all of them, and wait until they are ready."""
        for node in self.servers:
            await asyncio.to_thread(node.start)
        # Before anybody watches: a sentinel looks for replicas at once, and then only every ten seconds.
        await _until(self._replicated, within=30)
        for node in self.sentinels:
            await asyncio.to_thread(node.start)
        await self.ready()

    async def end(self) -> None:
        """Kill all of them and remove what they wrote."""
        for node in (*self.sentinels, *self.servers):
            await node.end()

    async def ready(self) -> None:
        """Wait until every sentinel that runs knows of everybody, and they could fail over."""
        await _until(self._ready, within=60, every=0.1)

    async def primary(self) -> Node:
        """Return the server that the sentinels name."""
        words = await self._sentinel.command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)
        port = int(cast("Sequence[bytes]", words)[1])
        return next(node for node in self.servers if node.port == port)

    async def kill_primary(self) -> Node:
        """Kill the primary as `kill -9` does, and return it."""
        node = await self.primary()
        await asyncio.to_thread(node.kill)
        return node

    async def until_primary_is_not(self, node: Node) -> Node:
        """Wait until the sentinels have chosen another."""

        async def moved() -> Node | None:
            found = await self.primary()
            return None if found is node else found

        return cast("Node", await _until(moved, within=60))

    async def agreed(self) -> None:
        """Wait until all sentinels that run name one primary, think it well, and are not choosing another."""
        await _until(self._agreed, within=60, every=0.05)

    @property
    def _sentinel(self) -> Node:
        return next(node for node in self.sentinels if node.runs)

    def _watching(self) -> list[str]:
        return [
            f"bind {HOST}",
            "logfile log",
            f"sentinel monitor {SERVICE} {HOST} {self._first} 2",
            f"sentinel down-after-milliseconds {SERVICE} 2000",
            f"sentinel failover-timeout {SERVICE} 5000",
        ]

    async def _replicated(self) -> bool:
        if not await self.servers[0].answers():
            return False
        info = await self.servers[0].command("INFO", "replication")
        return info["connected_slaves"] == len(self.servers) - 1 and all(
            info[f"slave{n}"]["state"] == "online" for n in range(len(self.servers) - 1)
        )

    async def _ready(self) -> bool:
        try:
            for node in self.sentinels:
                if node.runs:
                    words: Sequence[bytes] = await node.command("SENTINEL", "MASTER", SERVICE)
                    facts = dict(zip(words[::2], words[1::2], strict=True))
                    others = int(facts[b"num-other-sentinels"]) == len(self.sentinels) - 1
                    if not (others and int(facts[b"num-slaves"]) == len(self.servers) - 1):
                        return False
                    await node.command("SENTINEL", "CKQUORUM", SERVICE)
        except HostlerError:
            return False
        return True

    async def _agreed(self) -> bool:
        try:
            told = [await node.command("SENTINEL", "MASTER", SERVICE) for node in self.sentinels if node.runs]
        except HostlerError:
            return False
        rows = [dict(zip(words[::2], words[1::2], strict=True)) for words in cast("list[Sequence[bytes]]", told)]
        return all(row[b"flags"] == b"master" for row in rows) and len({row[b"port"] for row in rows}) == 1
