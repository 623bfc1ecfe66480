"""Huey: one process, one thread for what is short and 64 for I/O, no results."""

from importlib import import_module
from typing import Any

from side import AT_ONCE, URL, Client, become, begun, nap

app: Any = import_module("huey").RedisHuey("peer", url=URL, results=False)


@app.task(name="noop")
def noop(sent: int, data: str) -> None:
    begun(sent, data)


@app.task(name="io")
def io(sent: int, data: str) -> None:
    begun(sent, data)
    nap()


TASKS = {"noop": noop, "io": io}


class Huey(Client):
    """No batches."""

    async def one(self, work: str, sent: int, data: str) -> None:
        TASKS[work](sent, data)

    async def later(self, work: str, due: int, seconds: float) -> None:
        TASKS[work].schedule(args=(due, ""), delay=seconds)


def worker(work: str) -> None:
    threads = "1" if work == "noop" else str(AT_ONCE)
    become("huey_consumer", "huey_side.app", "-k", "thread", "-w", threads, "-q")


CLIENT = Huey
