"""The heartbeat: it renews, announces in order, outlives outages, and sees a stuck loop from outside."""

import asyncio
import threading
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from hostler.broker.model import ModelBroker
from hostler.contracts.lease import LeaseRef
from hostler.contracts.worker import Worker, WorkerState
from hostler.testing.clock import FakeClock, SeededDice
from hostler.testing.eventually import eventually
from hostler.testing.wire import Wire
from hostler.worker.board import Board
from hostler.worker.heartbeat import Heartbeat, HeartbeatThread, News, Tempo, stack_of
from hostler.worker.system import SystemClock

NOW = datetime(2026, 1, 1, tzinfo=UTC)
REF = LeaseRef(job_id="q.1", fence=1)


def record(state: WorkerState = WorkerState.READY) -> Worker:
    return Worker(
        id="w",
        state=state,
        machine="m",
        pid=1,
        version="1",
        slots=1,
        running=0,
        queues=(),
        offers=(),
        started_at=NOW,
        seen_at=NOW,
        expires_at=NOW,
        loop_age=0.0,
    )


class Beating:
    def __init__(self, clock: Any, tempo: Tempo, *, watched: int | None = None) -> None:
        self.wire = Wire()
        self.news: list[News] = []
        self.model = ModelBroker(clock=SystemClock())
        self.board = Board("w", now=clock.monotonic())
        wired: Any = self.wire.to(self.model)

        @asynccontextmanager
        async def link() -> AsyncGenerator[tuple[Any, Any]]:
            yield wired, wired

        self.heart = Heartbeat(
            link, self.board, tempo, clock=clock, dice=SeededDice(), tell=self.news.append, watched=watched
        )

    def announced(self) -> list[str]:
        return [args[0].state.value for verb, args, _ in self.wire.calls if verb == "announce"]


@asynccontextmanager
async def beating(clock: Any, tempo: Tempo, *, watched: int | None = None) -> AsyncGenerator[Beating]:
    part = Beating(clock, tempo, watched=watched)
    part.board.show(record())
    task = asyncio.create_task(part.heart.run())
    try:
        yield part
    finally:
        part.heart.end()
        await asyncio.wait_for(task, 5)


async def test_a_registry_that_hangs_costs_no_lease_and_a_queue_that_hangs_none_of_another() -> None:
    async with beating(SystemClock(), Tempo(beat=0.02)) as part:
        part.wire.hangs = lambda verb, args: (
            verb == "announce" or (verb == "renew" and args[1] == (LeaseRef(job_id="r.1", fence=1),))
        )
        part.board.hold(REF, 10.0, queue="q")
        part.board.hold(LeaseRef(job_id="r.1", fence=1), 10.0, queue="r")
        await eventually(lambda: len([news for news in part.news if news.renewal]) >= 3)
        part.wire.hangs = None
        part.wire.over.set()


async def test_all_leases_of_a_queue_are_renewed_in_one_call_and_the_lost_ones_are_told() -> None:
    async with beating(SystemClock(), Tempo(beat=0.02)) as part:
        part.board.hold(REF, 10.0, queue="q")
        part.board.hold(LeaseRef(job_id="q.2", fence=1), 10.0, queue="q")
        await eventually(lambda: any(news.renewal for news in part.news))
        lost = next(news.renewal.lost for news in part.news if news.renewal)
        assert set(lost) == {REF, LeaseRef(job_id="q.2", fence=1)}


async def test_a_short_lease_makes_the_heart_beat_faster() -> None:
    async with beating(SystemClock(), Tempo(beat=60.0)) as part:
        await eventually(lambda: part.wire.count("announce") >= 1)
        assert part.wire.count("renew") == 0
    part = Beating(SystemClock(), Tempo(beat=60.0))
    part.board.show(record())
    part.board.hold(REF, 0.1, queue="q")
    task = asyncio.create_task(part.heart.run())
    await eventually(lambda: part.wire.count("renew") >= 3)
    part.heart.end()
    await task


async def test_a_short_lease_that_comes_between_two_beats_is_renewed_before_it_lapses() -> None:
    async with beating(SystemClock(), Tempo(beat=60.0)) as part:
        await eventually(lambda: any(news.announced for news in part.news))
        part.board.hold(REF, 1.5, queue="q")
        await eventually(lambda: part.wire.count("renew") >= 1, within=1.5)


async def test_a_record_that_is_refused_costs_no_lease() -> None:
    async with beating(SystemClock(), Tempo(beat=0.02)) as part:
        part.wire.refuse = lambda verb, _: verb == "announce"
        part.board.hold(REF, 1.0, queue="q")
        await eventually(lambda: part.wire.count("renew") >= 3)
        part.wire.refuse = None


async def test_changes_of_state_are_announced_in_order_also_after_an_outage() -> None:
    async with beating(SystemClock(), Tempo(beat=0.05)) as part:
        await eventually(lambda: any(news.announced for news in part.news))
        part.wire.cut = True
        for state in (WorkerState.BUSY, WorkerState.READY, WorkerState.PAUSED):
            part.board.show(record(state))
            part.heart.poke()
        await eventually(lambda: part.announced().count("busy") >= 3)
        part.wire.cut = False
        await eventually(lambda: max(news.announced for news in part.news) == 4)
    states = part.announced()
    assert [state for index, state in enumerate(states) if state != states[index - 1] or index == 0] == [
        "ready",
        "busy",
        "ready",
        "paused",
    ]
    assert await part.model.workers() == ()


@pytest.mark.row("001:337")
async def test_a_stuck_loop_says_so_offers_nothing_and_loses_its_leases() -> None:
    clock = FakeClock()
    async with beating(clock, Tempo(beat=0.0, blocked_after=1.0, stuck_after=30.0), watched=0) as part:
        part.board.hold(REF, 10.0, queue="q")
        await eventually(lambda: part.wire.count("renew") >= 2)
        clock.advance(31.0)
        seen = part.wire.count("announce")
        await eventually(lambda: part.wire.count("announce") >= seen + 2)
        renewed = part.wire.count("renew")
        await eventually(lambda: part.wire.count("announce") >= seen + 6)
        assert part.wire.count("renew") == renewed
        (worker,) = await part.model.workers()
        assert worker.loop_age == 31.0
        assert worker.offers == ()
        part.board.turn(clock.monotonic())
        await eventually(lambda: part.wire.count("renew") > renewed)


@pytest.mark.row("002:12")
async def test_a_blocking_handler_is_reported_once_with_the_line_that_blocks() -> None:
    stop = threading.Event()

    def this_line_blocks() -> None:
        stop.wait(10)

    blocker = threading.Thread(target=this_line_blocks)
    blocker.start()
    part = Beating(SystemClock(), Tempo(beat=0.02, blocked_after=0.1), watched=blocker.ident)
    part.board.show(record())
    host = HeartbeatThread(part.heart)
    host.start()
    try:
        await eventually(lambda: part.heart.blocked)
        assert any("this_line_blocks" in line for line in part.heart.blocked)
        first = part.heart.blocked
        beats = part.wire.count("announce")
        await eventually(lambda: part.wire.count("announce") >= beats + 3)
        assert part.heart.blocked is first
    finally:
        stop.set()
        blocker.join()
        await host.end("stopped")
    assert stack_of(threading.get_ident())[-1].endswith("in stack_of")


async def test_commands_reach_the_worker_with_the_next_beat_and_are_asked_for_only_then() -> None:
    async with beating(SystemClock(), Tempo(beat=0.02)) as part:
        await eventually(lambda: part.wire.count("announce") >= 3)
        assert part.wire.count("commands") == 0
        await part.model.command("w", "pause")
        await eventually(lambda: any(news.commands == ("pause",) for news in part.news))


def test_the_board_keeps_changes_until_they_are_announced() -> None:
    board = Board("w", now=0.0)
    assert (board.next(), board.record) == (None, None)
    board.show(record(WorkerState.STARTING))
    board.show(record(WorkerState.READY))
    board.refresh(msgspec.structs.replace(record(), running=3))
    first = board.next()
    assert first is not None
    assert (first[0], first[1].state) == (1, WorkerState.STARTING)
    board.announced(1)
    second = board.next()
    assert second is not None
    assert second[1].state is WorkerState.READY
    assert board.record is not None
    assert board.record.running == 3
    board.hold(REF, 5.0, queue="q")
    board.hold(LeaseRef(job_id="q.2", fence=1), 2.0, queue="q")
    assert board.shortest == 2.0
    board.drop(REF)
    board.drop(REF)
    assert board.held("q") == (LeaseRef(job_id="q.2", fence=1),)
