"""Rounds of upkeep in virtual time: few do it for all, others take over, delayed jobs are ready when they are due."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable

from msgspec import Raw

from hostler.broker.model import ModelBroker
from hostler.contracts.event import Event
from hostler.contracts.job import JobRequest
from hostler.contracts.queue import KindSpec, QueueSpec, UpkeepReport
from hostler.dispatch.rounds import APART, EVERY, REST_MOST, Rounds
from hostler.kernel.units import Seconds
from hostler.testing.clock import SeededDice
from hostler.testing.simulation.loop import VirtualLoop
from hostler.testing.simulation.story import VirtualClock

QUEUE = "q"
CROWD = 40


class Watched(ModelBroker):
    """Remembers when somebody asked for upkeep, and when it was done."""

    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__(VirtualClock(loop))
        self._loop = loop
        self.asked: list[float] = []
        self.done: list[float] = []

    async def tick(self, queue: str) -> UpkeepReport:
        report = await super().tick(queue)
        (self.asked if report.fresh else self.done).append(self._loop.time())
        return report


def played(play: Callable[[Watched], Awaitable[None]]) -> Watched:
    """Play something in virtual time, with one queue and one kind; return the broker that it was played with."""
    loop = VirtualLoop(seed=1)
    broker = Watched(loop)

    async def whole() -> None:
        await broker.declare_queue(QueueSpec(name=QUEUE))
        await broker.declare_kind(KindSpec(name="echo", queue=QUEUE))
        await play(broker)

    loop.run_until_complete(loop.start(whole(), "all"))
    loop.end()
    return broker


async def go_rounds(broker: Watched, seed: int) -> None:
    dice = SeededDice(seed)
    rounds = Rounds(broker, QUEUE, dice)
    await asyncio.sleep(EVERY * dice.roll())  # not waiting: virtual time passes
    while True:
        await rounds.turn()


async def submit(broker: Watched, delay: Seconds) -> str:
    (got,) = await broker.submit([JobRequest(kind="echo", payload=Raw(b"null"), delay=delay)], operation=f"d{delay}")
    assert not isinstance(got, Exception)
    return got.id


async def woken(broker: Watched) -> list[Event]:
    page = await broker.events(QUEUE, after=0, limit=1000)
    return [event for event in page.events if event.type == "wake"]


def gaps(times: list[float]) -> list[float]:
    return [after - before for before, after in itertools.pairwise(times)]


def test_few_of_a_crowd_do_the_upkeep_for_all_and_it_is_never_late() -> None:
    async def play(broker: Watched) -> None:
        crowd = [asyncio.create_task(go_rounds(broker, seed)) for seed in range(CROWD)]
        await asyncio.sleep(300.0)  # not waiting: virtual time passes
        for one in crowd:
            one.cancel()

    broker = played(play)
    settled = [at for at in (*broker.asked, *broker.done) if at > 60.0]
    assert max(gaps(broker.done)) < 1.25 * EVERY
    assert len(settled) / 240.0 < CROWD / REST_MOST * 1.5  # each would ask once a second without the rests


def test_when_those_that_did_it_are_gone_others_go_on_after_one_rest() -> None:
    left: list[float] = []

    async def play(broker: Watched) -> None:
        crowd = {seed: asyncio.create_task(go_rounds(broker, seed)) for seed in range(CROWD)}
        await asyncio.sleep(60.0)  # not waiting: virtual time passes
        for seed in range(CROWD - 1):
            crowd[seed].cancel()
        left.append(asyncio.get_running_loop().time())
        await asyncio.sleep(30.0)  # not waiting: virtual time passes
        crowd[CROWD - 1].cancel()

    broker = played(play)
    since = [at for at in broker.done if at >= left[0]]
    assert since[0] - left[0] < 1.25 * REST_MOST
    assert max(gaps(since)) < 1.25 * EVERY


def test_a_delayed_job_is_ready_when_it_is_due_and_not_with_the_next_round() -> None:
    seen: list[tuple[float, float]] = []

    async def play(broker: Watched) -> None:
        crowd = [asyncio.create_task(go_rounds(broker, seed)) for seed in range(3)]
        loop = asyncio.get_running_loop()
        await asyncio.sleep(10.0)  # not waiting: virtual time passes
        due = {await submit(broker, delay): loop.time() + delay for delay in (2.0, 2.37, 2.371, 5.55, 9.9)}
        await asyncio.sleep(20.0)  # not waiting: virtual time passes
        began = (await broker.events(QUEUE, after=0, limit=1)).events[0].at
        for event in await woken(broker):
            assert event.job is not None
            seen.append((due[event.job], 10.0 + (event.at - began).total_seconds()))
        for one in crowd:
            one.cancel()

    played(play)
    assert len(seen) == 5
    assert all(-0.001 < at - due < 2 * APART for due, at in seen), seen
