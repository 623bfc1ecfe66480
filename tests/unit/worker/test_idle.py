"""What idle workers ask of the engine, counted in virtual time: a crowd of them costs next to nothing."""

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any, cast

from hostler.broker.model import ModelBroker
from hostler.contracts.queue import QueueSpec
from hostler.kernel.settings import WorkerSettings
from hostler.testing.clock import SeededDice
from hostler.testing.simulation.loop import VirtualLoop
from hostler.testing.simulation.story import VirtualClock, sum_up
from hostler.worker.handlers import HandlerSet
from hostler.worker.worker import Worker

WORKERS = 30
SETTLED, WATCHED = 60.0, 120.0
"""Seconds until they know that others are there, and for which they are counted then."""


class Line:
    """The engine as one idle worker reaches it: no wake-up ever comes, and each call is counted."""

    def __init__(self, model: ModelBroker, said: Counter[str]) -> None:
        self._model = model
        self._said = said

    def __getattr__(self, verb: str) -> Callable[..., Any]:
        self._said[verb] += 1
        return getattr(self._model, verb)

    async def wait_for_work(self, queues: object, worker: str, *, timeout: float) -> bool:
        await asyncio.sleep(timeout)  # not waiting: virtual time passes
        return False


def idle_calls() -> Counter[str]:
    """Let a crowd be idle for a while; return what it said, by verb."""
    loop, said = VirtualLoop(seed=3), Counter[str]()
    model = ModelBroker(VirtualClock(loop))

    async def whole() -> None:
        await model.declare_queue(QueueSpec(name="default"))
        for kind in HandlerSet.of(sum_up).kinds():
            await model.declare_kind(kind)
        workers = [worker(number) for number in range(WORKERS)]
        tasks = [asyncio.create_task(each.run()) for each in workers]
        await asyncio.sleep(SETTLED)  # not waiting: virtual time passes
        said.clear()
        await asyncio.sleep(WATCHED)  # not waiting: virtual time passes
        counted = said.copy()
        for each in workers:
            each.drain(at_once=True)
        await asyncio.gather(*tasks)
        said.clear()
        said.update(counted)

    def worker(number: int) -> Worker:
        line = cast("Any", Line(model, said))
        settings = WorkerSettings(id=f"w{number}", slots=4)
        dice = SeededDice(number)
        return Worker(line, line, line, (), HandlerSet.of(sum_up), settings, clock=VirtualClock(loop), dice=dice)

    loop.run_until_complete(loop.start(whole(), "all"))
    loop.end()
    return said


def test_an_idle_worker_asks_the_engine_little_more_than_once_a_second_and_nothing_that_others_asked() -> None:
    said = idle_calls()
    each = {verb: count / WORKERS / WATCHED for verb, count in said.items()}
    assert sum(each.values()) < 1.6, each
    assert each["tick"] < 0.4, each
    assert "commands" not in each
