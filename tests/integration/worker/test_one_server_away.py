"""Workers in front of a cluster of which one server does not answer: what lies on the others goes on."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest

import hostler
from hostler.contracts.queue import KindSpec
from hostler.testing.eventually import eventually
from hostler.testing.fabric import Fabric
from hostler.testing.wire import Wire
from hostler.worker.worker import Worker

HERE, THERE = "here", "there"


@hostler.handler("c.here", queue=HERE)
async def here(call: hostler.Call[Any]) -> Any:
    return call.payload


@hostler.handler("c.there", queue=THERE)
async def there(call: hostler.Call[Any]) -> Any:
    return call.payload


class Long:
    """A kind of work that goes on until it is let end."""

    def __init__(self) -> None:
        self.end = asyncio.Event()
        self.running = 0
        self.most = 0
        self._calls: list[hostler.Call[Any]] = []

        @hostler.handler("c.long", queue=HERE)
        async def long(call: hostler.Call[Any]) -> None:
            await self._work(call)

        @hostler.handler("c.long-there", queue=THERE)
        async def long_there(call: hostler.Call[Any]) -> None:
            await self._work(call)

        self.here, self.there = long, long_there

    async def _work(self, call: hostler.Call[Any]) -> None:
        self._calls.append(call)
        self.running += 1
        self.most = max(self.most, self.running)
        await self.end.wait()
        self.running -= 1

    def told(self, fraction: float) -> None:
        for call in self._calls:
            call.progress(fraction=fraction)


@asynccontextmanager
async def at_work(fabric: Fabric, wire: Wire, *functions: Any, **settings: Any) -> AsyncGenerator[Worker]:
    """Run a worker through the wire, once it has claimed from both queues in vain."""
    async with fabric.worker(*functions, broker=wire.to(fabric.ports.broker), **settings) as worker:
        await eventually(lambda: {HERE, THERE} <= asked(wire), within=10)
        yield worker


def asked(wire: Wire) -> set[str]:
    return {args[0].queue for verb, args, _ in wire.calls if verb == "claim"}


def claims(wire: Wire, queue: str) -> int:
    return sum(1 for verb, args, _ in wire.calls if verb == "claim" and args[0].queue == queue)


async def test_a_worker_goes_on_with_the_other_queues_and_with_that_one_as_soon_as_it_is_back(fabric: Fabric) -> None:
    wire = Wire()
    async with at_work(fabric, wire, here, there):
        wire.away.add(THERE)
        waiting = await fabric.submit("c.there", 1)
        for number in range(20):
            assert await fabric.result(await fabric.submit("c.here", number)) == number
        assert (await fabric.get(waiting)).state == "ready"
        wire.away.clear()
        assert await fabric.result(waiting) == 1


async def test_a_queue_that_does_not_answer_is_asked_with_pauses_and_not_in_every_round(fabric: Fabric) -> None:
    wire = Wire()
    async with at_work(fabric, wire, here, there):
        wire.away.add(THERE)
        for number in range(30):
            await fabric.result(await fabric.submit("c.here", number))
        assert 1 <= claims(wire, THERE) < claims(wire, HERE) / 2


@pytest.mark.row("003:293")
async def test_what_a_lost_answer_gave_is_run_under_the_same_lease_once_it_is_known(fabric: Fabric) -> None:
    wire = Wire()
    async with at_work(fabric, wire, here, there, slots=1):
        wire.silent.add(THERE)
        job = await fabric.submit("c.there", 1)
        await fabric.running(job)
        wire.away.add(THERE)
        assert await fabric.result(await fabric.submit("c.here", 2)) == 2, "it does not wait for what may be its own"
        wire.silent.clear()
        wire.away.clear()
        assert await fabric.result(job) == 1
        assert len([event for event in await fabric.events(job) if event.type == "claim"]) == 1


async def test_what_a_lost_answer_gave_is_given_back_when_its_room_is_taken_and_costs_no_attempt(
    fabric: Fabric,
) -> None:
    wire, work = Wire(), Long()
    async with at_work(fabric, wire, work.here, work.there, slots=1):
        wire.silent.add(THERE)
        job = await fabric.submit("c.long-there")
        await fabric.running(job)
        wire.away.add(THERE)
        other = await fabric.submit("c.long")
        await fabric.running(other)
        wire.silent.clear()
        wire.away.clear()

        async def is_back() -> bool:
            return (await fabric.get(job)).state in {"ready", "scheduled"}

        await eventually(is_back, within=10)
        work.end.set()
        for each in (other, job):
            assert (await fabric.ended(each)).state == "succeeded"
        assert work.most == 1
        assert [attempt.counted for attempt in (await fabric.get(job)).attempts] == [False]


async def test_nothing_new_is_claimed_by_asking_for_an_answer_that_was_lost(fabric: Fabric) -> None:
    wire, work = Wire(), Long()
    async with at_work(fabric, wire, work.here, work.there, slots=1):
        wire.away.add(THERE)
        await eventually(lambda: claims(wire, THERE) > 3, within=10)
        other = await fabric.submit("c.long")
        await fabric.running(other)
        job = await fabric.submit("c.long-there")
        before = claims(wire, THERE)
        wire.away.clear()
        await eventually(lambda: claims(wire, THERE) > before, within=10)
        work.end.set()
        await fabric.ended(job)
        assert [event.type for event in await fabric.events(job)].count("claim") == 1


async def test_ends_and_progress_of_the_other_queues_are_told_while_those_of_that_one_wait(fabric: Fabric) -> None:
    wire, work = Wire(), Long()
    async with at_work(fabric, wire, work.here, work.there):
        jobs = [await fabric.submit("c.long"), await fabric.submit("c.long-there")]
        for job in jobs:
            await fabric.running(job)
        wire.away.add(THERE)
        work.told(0.5)

        async def shows_progress() -> bool:
            progress = (await fabric.get(jobs[0])).progress
            return progress is not None and progress.fraction == 0.5

        await eventually(shows_progress, within=10)
        work.end.set()
        assert (await fabric.ended(jobs[0])).state == "succeeded"
        there = await fabric.get(jobs[1])
        assert (there.state, there.progress) == ("running", None)
        wire.away.clear()
        assert (await fabric.ended(jobs[1])).state == "succeeded"


async def test_work_that_is_over_takes_no_room_from_other_queues_while_its_end_cannot_be_told(fabric: Fabric) -> None:
    wire, work = Wire(), Long()
    async with at_work(fabric, wire, here, work.there, slots=1):
        job = await fabric.submit("c.long-there")
        await fabric.running(job)
        wire.away.add(THERE)
        other = await fabric.submit("c.here", 1)
        work.end.set()
        assert await fabric.result(other) == 1
        assert (await fabric.get(job)).state == "running"
        wire.away.clear()
        assert (await fabric.ended(job)).state == "succeeded"


async def test_a_drained_worker_waits_for_leases_that_it_may_have_and_gives_them_back(fabric: Fabric) -> None:
    wire = Wire()
    async with at_work(fabric, wire, here, there, grace=10.0) as worker:
        wire.silent.add(THERE)
        job = await fabric.submit("c.there", 1)
        await fabric.running(job)
        worker.drain()
        await eventually(lambda: worker.state == "draining", within=10)
        wire.silent.clear()
        await eventually(lambda: worker.state == "stopped", within=10)
        assert (await fabric.get(job)).state in {"succeeded", "ready", "scheduled"}


async def test_a_drained_worker_does_not_wait_for_a_queue_that_cannot_have_given_it_anything(fabric: Fabric) -> None:
    wire = Wire()
    await fabric.ports.foreman.declare_kind(KindSpec(name="c.there", queue=THERE))
    async with at_work(fabric, wire, here, there, grace=1000.0) as worker:
        wire.away.add(THERE)
        before = claims(wire, THERE)
        await eventually(lambda: claims(wire, THERE) > before, within=10)
        worker.drain()
        await eventually(lambda: worker.state == "stopped", within=10)
