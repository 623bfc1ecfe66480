"""What idle workers ask of the engine, counted in virtual time: a crowd of them costs next to nothing."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, cast

from hostler.broker.model import ModelBroker
from hostler.contracts.lease import ClaimRequest, Lease
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
    """The engine as one idle worker reaches it: no wake-up ever comes, and each call is counted, claims by queue."""

    def __init__(self, model: ModelBroker, said: Counter[str]) -> None:
        self._model = model
        self._said = said

    def __getattr__(self, verb: str) -> Callable[..., Any]:
        self._said[verb] += 1
        return getattr(self._model, verb)

    async def claim(self, request: ClaimRequest, *, operation: str) -> tuple[Lease, ...]:
        self._said["claim"] += 1
        self._said[f"from {request.queue}"] += 1
        return await self._model.claim(request, operation=operation)

    async def wait_for_work(self, queues: object, worker: str, *, timeout: float) -> bool:
        await asyncio.sleep(timeout)  # not waiting: virtual time passes
        return False


def idle(then: Callable[[ModelBroker, Counter[str]], Awaitable[None]]) -> None:
    """Let a crowd be idle until its members know that others are there; go on with `then` while they are idle."""
    loop, said = VirtualLoop(seed=3), Counter[str]()
    model = ModelBroker(VirtualClock(loop))

    async def whole() -> None:
        await model.declare_queue(QueueSpec(name="default"))
        for kind in HandlerSet.of(sum_up).kinds():
            await model.declare_kind(kind)
        workers = [worker(number) for number in range(WORKERS)]
        tasks = [asyncio.create_task(each.run()) for each in workers]
        await asyncio.sleep(SETTLED)  # not waiting: virtual time passes
        await then(model, said)
        for each in workers:
            each.drain(at_once=True)
        await asyncio.gather(*tasks)

    def worker(number: int) -> Worker:
        line = cast("Any", Line(model, said))
        settings = WorkerSettings(id=f"w{number}", slots=4)
        dice = SeededDice(number)
        return Worker(line, line, line, (), HandlerSet.of(sum_up), settings, clock=VirtualClock(loop), dice=dice)

    loop.run_until_complete(loop.start(whole(), "all"))
    loop.end()


def test_an_idle_worker_asks_the_engine_once_a_second_and_nothing_that_others_asked() -> None:
    each: dict[str, float] = {}

    async def watch(model: ModelBroker, said: Counter[str]) -> None:
        del model
        said.clear()
        await asyncio.sleep(WATCHED)  # not waiting: virtual time passes
        each.update({verb: count / WORKERS / WATCHED for verb, count in said.items() if not verb.startswith("from ")})

    idle(watch)
    assert sum(each.values()) < 1.1, each
    assert each["tick"] < 0.4, each
    assert "commands" not in each
    assert each["registry"] < 0.02, each


def test_a_queue_that_is_declared_later_is_claimed_from_by_every_worker_within_five_seconds() -> None:
    seen: list[Counter[str]] = []

    async def watch(model: ModelBroker, said: Counter[str]) -> None:
        said.clear()
        await model.declare_queue(QueueSpec(name="later"))
        for seconds in (5.0, 30.0):
            await asyncio.sleep(seconds)  # not waiting: virtual time passes
            seen.append(said.copy())
            said.clear()

    idle(watch)
    assert seen[0]["registry"] == WORKERS
    assert seen[1]["registry"] == 0
    assert seen[1]["from later"] >= 30.0 / 4.0 * WORKERS
    assert seen[0]["from later"] >= WORKERS
