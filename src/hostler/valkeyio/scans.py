"""Walking over keys and members in slices: for audits, never on a hot path.

A cursor is worth something on the server that gave it only, so a walk stays on one; where a cluster moves the
slot meanwhile, it fails with `EngineUnavailableError`.
"""

from collections.abc import AsyncGenerator
from typing import Any, cast

from hostler.kernel.errors import EngineUnavailableError
from hostler.valkeyio.client import Client, send
from hostler.valkeyio.faults import mapped
from hostler.valkeyio.library import HasClient
from hostler.valkeyio.spread import standing

_COUNT = 1000


async def scan_keys(engine: HasClient, start: str) -> AsyncGenerator[str]:
    """Yield every key that begins with `start`, its hash tag included; at least those that are there all the while.

    Some perhaps twice.
    """
    cursor: Any = 0
    server = await _standing(engine, start)
    while True:
        with mapped():
            cursor, keys = await send(server, "SCAN", cursor, "MATCH", f"{start}*", "COUNT", _COUNT)
        for key in cast("list[bytes]", keys):
            yield key.decode("utf-8", "surrogateescape")
        if not int(cursor):
            break
    if await _standing(engine, start) is not server:
        raise EngineUnavailableError(f"the keys of {start} moved to another server while they were read: try again")


async def scan_members(engine: HasClient, key: str) -> AsyncGenerator[str]:
    """Yield the members of a sorted set, by the same promise."""
    cursor: Any = 0
    server = await _standing(engine, key)
    while True:
        with mapped():
            cursor, members = await send(server, "ZSCAN", key, cursor, "COUNT", _COUNT)
        for member, _ in cast("list[tuple[bytes, float]]", members):
            yield member.decode("utf-8", "surrogateescape")
        if not int(cursor):
            return


async def _standing(engine: HasClient, key: str) -> Client:
    with mapped():
        return await standing(engine.client, key)
