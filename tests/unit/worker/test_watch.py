"""Work that has to stop: who says so, when it is heard, and what becomes of work that is just being handed over."""

import asyncio
from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import cast

import pytest
from msgspec import Raw

from hostler.contracts.failure import Failure, Stage
from hostler.contracts.job import Progress
from hostler.contracts.lease import Lease, LeaseRef
from hostler.contracts.needs import Lane
from hostler.contracts.preview import Preview
from hostler.contracts.service import RemoteRef, ServiceCall, Step
from hostler.contracts.timeouts import Timeouts
from hostler.ports.connector import Connector
from hostler.worker.runs import Cause, Errand, ServiceRun, Tools
from hostler.worker.stages import StageWatch
from hostler.worker.system import SystemClock
from hostler.worker.watch import Watch

NOW = datetime(2026, 11, 27, tzinfo=UTC)


class Halts:
    """Counts how often work was told to stop."""

    def __init__(self) -> None:
        self.times = 0
        self.heard = asyncio.Event()

    def __call__(self) -> None:
        self.times += 1
        self.heard.set()


def watch_of(halts: Halts, timeouts: Timeouts) -> tuple[Watch, StageWatch]:
    clock = SystemClock()
    stages = StageWatch(timeouts, started=clock.monotonic(), ends=None, service=False)
    return Watch(stages, clock, halts), stages


async def test_work_that_was_told_to_stop_before_it_began_does_not_begin() -> None:
    halts = Halts()
    watch, _ = watch_of(halts, Timeouts())
    watch.tell(Cause.GIVE_BACK)
    assert watch.begin() is Cause.GIVE_BACK
    assert halts.times == 0


async def test_the_first_word_counts_and_none_after_the_end() -> None:
    halts = Halts()
    watch, _ = watch_of(halts, Timeouts())
    assert watch.begin() is None
    watch.tell(Cause.CANCEL)
    watch.tell(Cause.LOST)
    assert (watch.why, halts.times) == (Cause.CANCEL, 1)
    over, _ = watch_of(halts, Timeouts(run=0.01))
    over.begin()
    over.close()
    over.tell(Cause.LOST)
    assert (over.why, halts.times) == (None, 1)


async def test_a_stage_that_begins_while_a_longer_one_is_waited_for_ends_at_its_own_limit() -> None:
    halts = Halts()
    watch, stages = watch_of(halts, Timeouts(connect=0.05, idle=60.0, run=90.0))
    watch.begin()
    stages.connecting(SystemClock().monotonic())
    async with asyncio.timeout(10):
        await halts.heard.wait()
    assert isinstance(watch.why, Failure)
    assert watch.why.stage is Stage.CONNECT


class Slow:
    """A connector whose service takes its time to answer a submit."""

    name = endpoint = "slow"

    def __init__(self) -> None:
        self.asked, self.answers = asyncio.Event(), asyncio.Event()
        self.cancelled: list[str] = []

    async def submit(self, call: ServiceCall) -> RemoteRef:
        self.asked.set()
        await self.answers.wait()
        return RemoteRef(id="remote", job_id=call.job_id, fence=call.fence)

    async def observe(self, call: ServiceCall, ref: RemoteRef) -> AsyncGenerator[Step]:
        raise AssertionError(f"{call.job_id} was followed as {ref.id} though it was told to stop")
        yield

    async def cancel(self, ref: RemoteRef) -> bool:
        self.cancelled.append(ref.id)
        return True


class Job:
    """An attempt as its run sees it."""

    def __init__(self) -> None:
        clock = SystemClock()
        self.timeouts = Timeouts()
        self.ref = LeaseRef(job_id="q.1", fence=1)
        self.stages = StageWatch(self.timeouts, started=clock.monotonic(), ends=None, service=True)
        self.tools = cast("Tools", SimpleNamespace(clock=clock))
        self.lease = Lease(
            job_id="q.1",
            kind="w.slow",
            queue="q",
            fence=1,
            generation=1,
            attempts_used=0,
            attempts_max=1,
            crashes=0,
            overloads=0,
            payload=Raw(b"{}"),
            lane=Lane(kind="w.slow"),
            offer=0,
            lease_s=30.0,
            expires_at=NOW + timedelta(seconds=30),
            now=NOW,
            deadline=None,
            timeouts=self.timeouts,
            tenant="default",
            labels={},
            remote=None,
        )

    async def payload(self) -> Raw:
        return self.lease.payload

    def progressed(self, news: Progress | Preview) -> None:
        raise AssertionError(news)


async def test_what_is_being_handed_over_is_not_cut_off_but_stopped_at_the_service_once_that_has_it() -> None:
    service = Slow()
    run = ServiceRun(cast("Connector", service), None)
    work = asyncio.create_task(run.run(cast("Errand", Job())))
    async with asyncio.timeout(10):
        await service.asked.wait()
        assert run.interrupt()
        stopping = asyncio.create_task(run.stop(Cause.CANCEL))
        await asyncio.sleep(0)
        assert not work.done()
        assert not stopping.done()
        service.answers.set()
        await stopping
        with pytest.raises(asyncio.CancelledError):
            await work
    assert service.cancelled == ["remote"]
