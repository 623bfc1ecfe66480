"""BullMQ for Python: one process, 64 jobs at a time, nothing kept after the end."""

import asyncio
from importlib import import_module
from typing import Any

from side import AT_ONCE, IO, URL, Client, begun

bullmq: Any = import_module("bullmq")
KEEP_NOTHING = {"removeOnComplete": True}


class Bullmq(Client):
    """`addBulk` for batches."""

    async def open(self) -> None:
        self._queue: Any = bullmq.Queue("peer", {"connection": URL})

    async def close(self) -> None:
        await self._queue.close()

    async def one(self, work: str, sent: int, data: str) -> None:
        await self._queue.add(work, {"sent": sent, "data": data}, KEEP_NOTHING)

    async def many(self, work: str, jobs: list[tuple[int, str]]) -> None:
        await self._queue.addBulk(
            [{"name": work, "data": {"sent": sent, "data": data}, "opts": KEEP_NOTHING} for sent, data in jobs]
        )

    async def later(self, work: str, due: int, seconds: float) -> None:
        await self._queue.add(work, {"sent": due, "data": ""}, {"delay": int(seconds * 1000), **KEEP_NOTHING})


async def _process(job: Any, _: str) -> None:
    begun(job.data["sent"], job.data["data"])
    if job.name == "io":
        await asyncio.sleep(IO)


async def _work() -> None:
    bullmq.Worker("peer", _process, {"connection": URL, "concurrency": AT_ONCE})
    await asyncio.Event().wait()


def worker(_: str) -> None:
    asyncio.run(_work())


CLIENT = Bullmq
