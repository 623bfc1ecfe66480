"""Dramatiq: one process, its eight threads for what is short and 64 for I/O."""

from importlib import import_module
from typing import Any

from side import AT_ONCE, URL, Client, become, begun, nap

dramatiq: Any = import_module("dramatiq")
dramatiq.set_broker(import_module("dramatiq.brokers.redis").RedisBroker(url=URL))


@dramatiq.actor
def noop(sent: int, data: str) -> None:
    begun(sent, data)


@dramatiq.actor
def io(sent: int, data: str) -> None:
    begun(sent, data)
    nap()


ACTORS = {"noop": noop, "io": io}


class Dramatiq(Client):
    """A group is sent one by one too."""

    async def one(self, work: str, sent: int, data: str) -> None:
        ACTORS[work].send(sent, data)

    async def later(self, work: str, due: int, seconds: float) -> None:
        ACTORS[work].send_with_options(args=(due, ""), delay=int(seconds * 1000))


def worker(work: str) -> None:
    become("dramatiq", "dramatiq_side", "--processes", "1", "--threads", str(8 if work == "noop" else AT_ONCE))


CLIENT = Dramatiq
