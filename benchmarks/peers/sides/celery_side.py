"""Celery: acknowledged early and without results, which is fastest; threads for I/O, else a process without a pool."""

from importlib import import_module
from typing import Any

from side import AT_ONCE, URL, Client, become, begun, nap

app: Any = import_module("celery").Celery("celery_side", broker=URL)
app.conf.update(task_ignore_result=True, worker_prefetch_multiplier=AT_ONCE, broker_connection_retry_on_startup=True)


@app.task(name="noop")
def noop(sent: int, data: str) -> None:
    begun(sent, data)


@app.task(name="io")
def io(sent: int, data: str) -> None:
    begun(sent, data)
    nap()


TASKS = {"noop": noop, "io": io}


class Celery(Client):
    """No batches: one connection is kept for all."""

    async def open(self) -> None:
        self._producer = app.amqp.Producer(app.connection())

    async def one(self, work: str, sent: int, data: str) -> None:
        TASKS[work].apply_async((sent, data), producer=self._producer)

    async def later(self, work: str, due: int, seconds: float) -> None:
        TASKS[work].apply_async((due, ""), countdown=seconds, producer=self._producer)


def worker(work: str) -> None:
    pool = ("-P", "solo") if work == "noop" else ("-P", "threads", "-c", str(AT_ONCE))
    become("celery", "-A", "celery_side", "worker", *pool, "--without-gossip", "--without-mingle", "-l", "WARNING")


CLIENT = Celery
