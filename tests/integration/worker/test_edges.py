"""A worker at its edges: paused before it is ready, a blob store that never answers."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

import hostler
from hostler.contracts.queue import RetryPolicy
from hostler.contracts.timeouts import Timeouts
from hostler.contracts.worker import WorkerState
from hostler.kernel.settings import WorkerSettings
from hostler.testing.eventually import eventually
from hostler.testing.fabric import Fabric
from hostler.worker.handlers import HandlerSet
from hostler.worker.heartbeat import Tempo
from hostler.worker.system import SystemClock, SystemDice
from hostler.worker.worker import Worker

ONCE = RetryPolicy(attempts=1)


class StuckBlobs:
    """A blob store that takes the first part and then never answers."""

    def __init__(self) -> None:
        self.began = asyncio.Event()

    async def put(self, sha256: str, body: AsyncIterator[bytes], *, limit: int) -> int:
        async for _ in body:
            break
        self.began.set()
        await asyncio.Event().wait()
        return limit

    async def _nothing(self) -> AsyncIterator[bytes]:
        yield b""

    def get(self, sha256: str) -> AsyncIterator[bytes]:
        return self._nothing()

    async def size(self, sha256: str) -> int | None:
        return None

    async def delete(self, sha256: str) -> None:
        return


@hostler.handler("w.large", retry=ONCE)
async def large(call: hostler.Call[Any]) -> str:
    return "x" * 300_000


@hostler.handler("w.small")
async def small(call: hostler.Call[Any]) -> int:
    return call.attempt


def made(fabric: Fabric, handler: Any = small, *, slots: int = 8) -> Worker:
    """Return a worker that does not run yet, unlike those of `fabric.worker`."""
    ports = fabric.ports
    return Worker(
        ports.broker,
        ports.foreman,
        ports.registry,
        (),
        HandlerSet.of(handler),
        WorkerSettings(idle_poll=0.05, slots=slots),
        clock=SystemClock(),
        dice=SystemDice(),
        tempo=Tempo(beat=0.1),
    )


async def test_a_blob_store_that_never_answers_ends_as_a_timeout_and_not_as_a_hung_worker(fabric: Fabric) -> None:
    async with fabric.worker(large, small, blobs=StuckBlobs(), slots=1):
        stuck = await fabric.submit("w.large", timeouts=Timeouts(run=0.3))
        after = await fabric.submit("w.small")
        job = await fabric.ended(stuck)
        assert job.error is not None
        assert job.error.class_ == "timeout:run"
        assert await fabric.result(after) == 1


async def test_a_job_is_cancelled_while_its_result_is_being_stored(fabric: Fabric) -> None:
    blobs = StuckBlobs()
    async with fabric.worker(large, blobs=blobs):
        job = await fabric.submit("w.large")
        await blobs.began.wait()
        await fabric.ports.desk.cancel(job, operation="stop")
        assert (await fabric.ended(job)).state == "cancelled"


async def test_a_worker_that_is_paused_while_it_starts_takes_nothing_until_it_is_resumed(fabric: Fabric) -> None:
    worker = made(fabric)
    worker.pause()
    running = asyncio.create_task(worker.run())
    try:
        await eventually(lambda: worker.state is WorkerState.PAUSED)
        job = await fabric.submit("w.small")
        await fabric.ports.foreman.tick("default")
        assert (await fabric.get(job)).state == "ready"
        worker.resume()
        assert await fabric.result(job) == 1
    finally:
        worker.drain(at_once=True)
        await running


@pytest.mark.row("003:195")
async def test_a_pause_that_is_taken_back_while_the_worker_starts_leaves_no_trace(fabric: Fabric) -> None:
    worker = made(fabric)
    worker.pause()
    worker.resume()
    running = asyncio.create_task(worker.run())
    try:
        await eventually(lambda: worker.state is WorkerState.READY)
        assert await fabric.result(await fabric.submit("w.small")) == 1
    finally:
        worker.drain(at_once=True)
        await running


async def test_a_worker_that_is_cancelled_while_it_begins_what_it_claimed_leaves_nothing_running(
    fabric: Fabric,
) -> None:
    running: set[int] = set()
    begun = asyncio.Event()

    @hostler.handler("w.forever")
    async def forever(call: hostler.Call[Any]) -> None:
        running.add(call.payload)
        if not begun.is_set():
            begun.set()
            work.cancel()  # the others of its claim are still to begin
        try:
            await asyncio.Event().wait()
        finally:
            running.discard(call.payload)

    worker = made(fabric, forever, slots=64)
    await fabric.ports.foreman.declare_kind(HandlerSet.of(forever).kinds()[0])
    for number in range(64):
        await fabric.submit("w.forever", number)
    work = asyncio.create_task(worker.run())
    await asyncio.wait({work})
    assert begun.is_set()
    for _ in range(20):
        await asyncio.sleep(0)
    assert (running, worker.jobs) == (set(), ())
