"""Taskiq on a stream, which acknowledges (its lists do not), without results."""

import asyncio
from importlib import import_module
from typing import Any

from side import AT_ONCE, IO, URL, Client, become, begun

broker: Any = import_module("taskiq_redis").RedisStreamBroker(url=URL)


@broker.task(task_name="noop")
async def noop(sent: int, data: str) -> None:
    begun(sent, data)


@broker.task(task_name="io")
async def io(sent: int, data: str) -> None:
    begun(sent, data)
    await asyncio.sleep(IO)


TASKS = {"noop": noop, "io": io}


class Taskiq(Client):
    """Several at a time over its pool of connections."""

    async def open(self) -> None:
        await broker.startup()

    async def close(self) -> None:
        await broker.shutdown()

    async def one(self, work: str, sent: int, data: str) -> None:
        await TASKS[work].kiq(sent, data)

    async def many(self, work: str, jobs: list[tuple[int, str]]) -> None:
        await asyncio.gather(*(TASKS[work].kiq(sent, data) for sent, data in jobs))


def worker(_: str) -> None:
    become("taskiq", "worker", "taskiq_side:broker", "--workers", "1", "--max-async-tasks", str(AT_ONCE))


CLIENT = Taskiq
