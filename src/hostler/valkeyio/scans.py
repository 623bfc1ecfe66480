"""Walking over keys and members in slices: for audits, never on a hot path."""

from collections.abc import AsyncGenerator
from typing import Any, cast

from hostler.valkeyio.client import send
from hostler.valkeyio.faults import mapped
from hostler.valkeyio.library import HasClient

_COUNT = 1000


async def scan_keys(engine: HasClient, pattern: str) -> AsyncGenerator[str]:
    """Yield every key that matches, at least those that are there all the while; some perhaps twice."""
    cursor: Any = 0
    while True:
        with mapped():
            cursor, keys = await send(engine.client, "SCAN", cursor, "MATCH", pattern, "COUNT", _COUNT)
        for key in cast("list[bytes]", keys):
            yield key.decode("utf-8", "surrogateescape")
        if not int(cursor):
            return


async def scan_members(engine: HasClient, key: str) -> AsyncGenerator[str]:
    """Yield the members of a sorted set, by the same promise."""
    cursor: Any = 0
    while True:
        with mapped():
            cursor, members = await send(engine.client, "ZSCAN", key, cursor, "COUNT", _COUNT)
        for member, _ in cast("list[tuple[bytes, float]]", members):
            yield member.decode("utf-8", "surrogateescape")
        if not int(cursor):
            return
