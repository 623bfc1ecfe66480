"""A reader of a job whose engine lost what it told: it hears that, and then all that came instead."""

import asyncio
import shutil
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hostler.broker.foreman import EngineForeman
from hostler.chaos.nodes import SAFE, Node, free_ports
from hostler.client import connect
from hostler.contracts.event import Event
from hostler.contracts.job import Progress
from hostler.contracts.lease import Lease, Update
from hostler.contracts.queue import KindSpec
from hostler.kernel.settings import EngineSettings
from hostler.testing.eventually import eventually
from hostler.valkeyio.engine import Engine

from .conftest import KIND, House, Opening

AT_MOST = 30.0


class Fickle:
    """A real engine that can be set back to what it was, as by a lossy fail-over or a restored backup."""

    def __init__(self, node: Node, house: House, engine: Engine) -> None:
        self.node = node
        self.house = house
        self.engine = engine

    @property
    def kept(self) -> Path:
        return self.node.folder / "kept"

    async def keep(self) -> None:
        await asyncio.to_thread(shutil.copytree, self.node.folder / "appendonlydir", self.kept)

    async def set_back(self, *, to_kept: bool) -> None:
        await asyncio.to_thread(self.node.kill)
        if to_kept:
            await asyncio.to_thread(shutil.rmtree, self.node.folder / "appendonlydir")
            await asyncio.to_thread(shutil.copytree, self.kept, self.node.folder / "appendonlydir")
        await asyncio.to_thread(self.node.start)
        await self.engine.until_available(AT_MOST)

    async def progress(self, lease: Lease, times: int) -> None:
        for step in range(times):
            update = Update(job_id=lease.job_id, fence=lease.fence, progress=Progress(fraction=step / 10))
            assert await self.house.broker.progress(self.house.worker_id, [update]) == ()


@pytest.fixture
async def fickle(opening: Opening) -> AsyncGenerator[Fickle]:
    (port,) = free_ports(1)
    node = await asyncio.to_thread(Node, port, [f"{name} {value}" for name, value in SAFE.items()])
    await asyncio.to_thread(node.start)
    try:
        async with Engine.open(EngineSettings(url=node.url, wait=AT_MOST), role="test") as engine:
            await EngineForeman(engine).declare_kind(KindSpec(name=KIND, service="echo"))
            async with opening(engine) as house:
                yield Fickle(node, house, engine)
    finally:
        await node.end()


@asynccontextmanager
async def following(house: House, job: str) -> AsyncGenerator[list[Event]]:
    """Follow a job with the client, and end when the job did."""
    heard: list[Event] = []
    async with connect(house.url, tries=100) as fleet:

        async def listen() -> None:
            async for event in fleet.follow(job):
                heard.append(event)  # noqa: PERF401 - each as it comes: who follows is looked at meanwhile

        task = asyncio.create_task(listen())
        try:
            yield heard
            async with asyncio.timeout(AT_MOST):
                await task
        finally:
            task.cancel()
            await asyncio.wait({task})


async def told(house: House, job: str, last: str) -> list[tuple[str, str, Any]]:
    """Read a whole stream of a job that has ended: id, name and data of each event."""
    found: list[tuple[str, str, Any]] = []
    id_ = name = ""
    headers = {"Last-Event-ID": last} if last else {}
    async with asyncio.timeout(AT_MOST), house.session.get(f"/v1/jobs/{job}/events", headers=headers) as answer:
        async for line in answer.content:
            word, _, value = line.decode().strip().partition(": ")
            if word == "id":
                id_ = value
            elif word == "event":
                name = value
            elif word == "data":
                found.append((id_, name, msgspec.json.decode(value)))
    return found


async def test_a_live_reader_hears_what_came_instead_of_what_the_engine_lost(fickle: Fickle) -> None:
    house = fickle.house
    job = await house.submit()
    lease = await house.claim()
    await fickle.keep()
    async with following(house, job) as heard:
        await fickle.progress(lease, 4)
        await eventually(lambda: len(heard) == 6, within=AT_MOST)
        await fickle.set_back(to_kept=True)
        await house.submit()
        await house.finish(lease)
    assert [event.type for event in heard] == ["submit", "claim", *["progress"] * 4, "finish"]
    assert heard[-1].offset < heard[-2].offset, "the same offsets were given again, and that kept nothing from it"


async def test_a_reader_that_comes_back_after_the_engine_lost_events_is_told_behind_which_one(fickle: Fickle) -> None:
    house = fickle.house
    await house.announce()  # so that upkeep has nothing to say of the lane whenever it looks
    job = await house.submit()
    lease = await house.claim()
    await fickle.keep()
    await fickle.progress(lease, 4)
    await house.finish(lease)
    last = (await told(house, job, ""))[-1][0]
    await fickle.set_back(to_kept=True)
    await house.finish(lease)
    reset, finish = await told(house, job, last)
    assert reset[1:] == ("reset", {"after": 2})
    assert (finish[1], finish[2]["offset"]) == ("finish", 3)
    assert await told(house, job, finish[0]) == []


async def test_a_restart_that_loses_nothing_repeats_nothing_and_skips_nothing(fickle: Fickle) -> None:
    house = fickle.house
    job = await house.submit()
    lease = await house.claim()
    first, second = await heard_so_far(house, job, 2)
    await fickle.set_back(to_kept=False)
    await house.finish(lease)
    assert [name for _, name, _ in await told(house, job, second)] == ["finish"]
    assert [name for _, name, _ in await told(house, job, first)] == ["claim", "finish"]
    assert [name for _, name, _ in await told(house, job, "1")] == ["claim", "finish"], "a mere offset is believed"


async def heard_so_far(house: House, job: str, most: int) -> list[str]:
    found: list[str] = []
    async with asyncio.timeout(AT_MOST), house.session.get(f"/v1/jobs/{job}/events") as answer:
        async for line in answer.content:
            if line.startswith(b"id: "):
                found.append(line[4:].decode().strip())
                if len(found) == most:
                    return found
    return found
