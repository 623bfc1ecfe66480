"""SAQ: one process, 64 jobs at a time."""

import asyncio
import time
from importlib import import_module
from typing import Any

from side import AT_ONCE, IO, URL, Client, become, begun

queue: Any = import_module("saq").Queue.from_url(URL)


async def noop(_: Any, *, sent: int, data: str) -> None:
    begun(sent, data)


async def io(_: Any, *, sent: int, data: str) -> None:
    begun(sent, data)
    await asyncio.sleep(IO)


settings = {"queue": queue, "functions": [noop, io], "concurrency": AT_ONCE}


class Saq(Client):
    """Several at a time over its pool of connections; results are dropped at once."""

    async def open(self) -> None:
        await queue.connect()

    async def close(self) -> None:
        await queue.disconnect()

    async def one(self, work: str, sent: int, data: str) -> None:
        await queue.enqueue(work, sent=sent, data=data, ttl=-1)

    async def many(self, work: str, jobs: list[tuple[int, str]]) -> None:
        await asyncio.gather(*(self.one(work, sent, data) for sent, data in jobs))

    async def later(self, work: str, due: int, seconds: float) -> None:
        await queue.enqueue(work, sent=due, data="", ttl=-1, scheduled=time.time() + seconds)


def worker(_: str) -> None:
    become("saq", "saq_side.settings")


CLIENT = Saq
