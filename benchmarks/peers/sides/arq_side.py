"""arq: one process, 64 jobs at a time, no results kept; it asks for work every 50 ms instead of every 500."""

import asyncio
from importlib import import_module
from typing import Any

from side import AT_ONCE, IO, Client, become, begun, host_and_port

connections: Any = import_module("arq.connections")
HOST, PORT = host_and_port()
SETTINGS: Any = connections.RedisSettings(host=HOST, port=PORT)


async def noop(_: Any, sent: int, data: str) -> None:
    begun(sent, data)


async def io(_: Any, sent: int, data: str) -> None:
    begun(sent, data)
    await asyncio.sleep(IO)


class WorkerSettings:
    functions = (noop, io)
    redis_settings = SETTINGS
    max_jobs = AT_ONCE
    keep_result = 0
    poll_delay = 0.05
    log_results = False


class Arq(Client):
    """Several at a time over its pool of connections."""

    async def open(self) -> None:
        self._pool: Any = await connections.create_pool(SETTINGS)

    async def close(self) -> None:
        await self._pool.aclose()

    async def one(self, work: str, sent: int, data: str) -> None:
        await self._pool.enqueue_job(work, sent, data)

    async def many(self, work: str, jobs: list[tuple[int, str]]) -> None:
        await asyncio.gather(*(self.one(work, sent, data) for sent, data in jobs))

    async def later(self, work: str, due: int, seconds: float) -> None:
        await self._pool.enqueue_job(work, due, "", _defer_by=seconds)


def worker(_: str) -> None:
    become("arq", "arq_side.WorkerSettings")


CLIENT = Arq
