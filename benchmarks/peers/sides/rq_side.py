"""RQ without a fork for each job (`SimpleWorker`), results dropped: one job at a time, whatever it waits for."""

from datetime import timedelta
from importlib import import_module
from typing import Any

from side import URL, Client, become, begun, nap

rq: Any = import_module("rq")


def noop(sent: int, data: str) -> None:
    begun(sent, data)


def io(sent: int, data: str) -> None:
    begun(sent, data)
    nap()


class Rq(Client):
    """`enqueue_many` for batches."""

    async def open(self) -> None:
        self._queue: Any = rq.Queue(connection=import_module("redis").Redis.from_url(URL))

    async def one(self, work: str, sent: int, data: str) -> None:
        self._queue.enqueue(f"rq_side.{work}", sent, data, result_ttl=0)

    async def many(self, work: str, jobs: list[tuple[int, str]]) -> None:
        self._queue.enqueue_many([rq.Queue.prepare_data(f"rq_side.{work}", job, result_ttl=0) for job in jobs])

    async def later(self, work: str, due: int, seconds: float) -> None:
        self._queue.enqueue_in(timedelta(seconds=seconds), f"rq_side.{work}", due, "", result_ttl=0)


def worker(_: str) -> None:
    become("rq", "worker", "-w", "rq.SimpleWorker", "-u", URL, "--with-scheduler", "-q", "-P", ".")


CLIENT = Rq
