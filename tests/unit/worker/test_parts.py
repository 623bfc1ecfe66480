"""The small parts of a worker: stage limits, capacity, life, coalesced reports, patient settling."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from hostler.broker.model import ModelBroker
from hostler.contracts.failure import Stage
from hostler.contracts.job import JobRequest, Progress
from hostler.contracts.lease import Again, ClaimRequest, Lease, LeaseRef, Settlement, Succeed, Update
from hostler.contracts.needs import Lane, Needs
from hostler.contracts.offer import Offer, Pool
from hostler.contracts.preview import Preview
from hostler.contracts.queue import KindSpec
from hostler.contracts.timeouts import Timeouts
from hostler.contracts.worker import WorkerState
from hostler.kernel.errors import InternalError
from hostler.policy.lifecycle import WORKER_MOVES
from hostler.ports.broker import Broker
from hostler.ports.clock import Clock
from hostler.testing.clock import FakeClock, SeededDice
from hostler.testing.eventually import eventually
from hostler.testing.wire import Wire
from hostler.worker.capacity import Capacity
from hostler.worker.life import Life
from hostler.worker.reports import PICTURES, Reports, merge
from hostler.worker.settler import Settler
from hostler.worker.stages import StageWatch, complete
from hostler.worker.system import SystemClock

REF = LeaseRef(job_id="q.1", fence=1)
ALL = Timeouts(connect=1.0, first_byte=2.0, load=9.0, idle=3.0, run=20.0)


def stage(watch: StageWatch, now: float) -> Stage | None:
    late = watch.late(now)
    return late.stage if late else None


def test_each_stage_has_its_own_limit_and_a_service_a_little_slack() -> None:
    watch = StageWatch(ALL, started=0.0, ends=None, service=True)
    watch.connecting(0.0)
    assert stage(watch, 1.4) is None
    assert stage(watch, 1.6) is Stage.CONNECT
    watch.submitted(1.0)
    assert stage(watch, 3.4) is None
    assert stage(watch, 3.6) is Stage.FIRST_BYTE
    watch.touched(3.0, "loading")
    watch.touched(9.0, "loading")
    assert stage(watch, 12.4) is None
    assert stage(watch, 12.6) is Stage.LOAD
    watch.touched(12.0, "sampling")
    assert stage(watch, 15.6) is Stage.IDLE
    watch.touched(19.0)
    assert stage(watch, 20.6) is Stage.RUN


def test_the_deadline_of_the_job_bounds_everything() -> None:
    watch = StageWatch(ALL, started=0.0, ends=0.5, service=False)
    assert stage(watch, 0.4) is None
    assert stage(watch, 0.5) is Stage.DEADLINE


def test_no_limits_never_end() -> None:
    assert StageWatch(Timeouts(), started=0.0, ends=None, service=False).next() is None


def test_a_jobs_timeouts_win_over_the_kinds_and_defaults_fill_the_rest() -> None:
    found = complete(Timeouts(idle=1.0), Timeouts(idle=2.0, run=3.0), service=True)
    assert (found.idle, found.run, found.connect) == (1.0, 3.0, 5.0)
    assert complete(Timeouts(), Timeouts(), service=False) == Timeouts(idle=900.0, run=900.0)


def test_amounts_are_taken_from_worker_and_endpoint_and_given_back_once() -> None:
    capacity = Capacity("w", slots=4)
    gpu = {"gpu": Pool(id="gpu-0", total=24.0), "slots": Pool(id="e:slots", total=2.0)}
    capacity.take(REF, Lane(kind="k", needs=Needs(amounts={"gpu": 10.0, "slots": 2.0})), gpu)
    offer = capacity.offer(Offer(kinds=("k",), pools=gpu))
    assert {name: pool.free for name, pool in offer.pools.items()} == {"gpu": 14.0, "slots": 0.0}
    assert (capacity.free, capacity.running, capacity.pools()["slots"].free) == (2, 1, 2.0)
    capacity.give(REF)
    capacity.give(REF)
    assert (capacity.free, capacity.running) == (4, 0)
    assert capacity.changed.is_set()


@given(st.lists(st.tuples(st.integers(0, 9), st.floats(0.1, 3.0)), max_size=40))
def test_capacity_is_whole_again_when_all_is_given_back(steps: list[tuple[int, float]]) -> None:
    capacity = Capacity("w", slots=8)
    held: set[LeaseRef] = set()
    for number, amount in steps:
        ref = LeaseRef(job_id=f"q.{number}", fence=1)
        if ref in held:
            capacity.give(ref)
            held.discard(ref)
        else:
            capacity.take(ref, Lane(kind="k", needs=Needs(amounts={"slots": amount})), {})
            held.add(ref)
        assert 0 <= capacity.free <= 8
    for ref in held:
        capacity.give(ref)
    assert capacity.free in {7, 8}  # sums of fractions may leave a crumb
    assert capacity.running == 0


@pytest.mark.row("003:131")
def test_a_worker_makes_only_moves_of_the_table() -> None:
    for state in WorkerState:
        for to in WorkerState:
            moved = list[str]()
            life = Life("w", partial(moved.append, "moved"))
            life.state = state
            if state is to:
                life.move(to)
                assert moved == []
            elif (state, to) in WORKER_MOVES:
                life.move(to)
                assert (moved, life.state) == (["moved"], to)
            else:
                with pytest.raises(InternalError):
                    life.move(to)


def test_progress_is_merged_newest_first_text_appended_fraction_never_falling() -> None:
    merged = merge(Progress(fraction=0.5, stage="a", text="x"), Progress(fraction=0.3, message="m", text="y"))
    assert merged == Progress(fraction=0.5, stage="a", message="m", text="xy")
    assert merge(None, Progress(eta_s=1.0)) == Progress(eta_s=1.0)


class Held:
    """Leases on the model broker, seen through a wire."""

    def __init__(self, leases: Sequence[Lease], wire: Wire, model: ModelBroker) -> None:
        self.refs = [LeaseRef(job_id=lease.job_id, fence=lease.fence) for lease in leases]
        self.wire = wire
        self.model = model
        self.broker: Broker = wire.to(model)

    def updates(self) -> list[list[Update]]:
        return [list(args[1]) for verb, args, _ in self.wire.calls if verb == "progress"]

    async def said(self, ref: LeaseRef) -> list[dict[str, Any]]:
        events = (await self.model.timeline(ref.job_id)).events
        return [event.data for event in events if event.type == "progress"]


async def held(count: int) -> Held:
    model, wire = ModelBroker(clock=SystemClock()), Wire()
    await model.declare_kind(KindSpec(name="k"))
    await model.submit([JobRequest(kind="k") for _ in range(count)], operation="s")
    slots = {"slots": Pool(id="s", total=64.0)}
    request = ClaimRequest(queue="default", worker="w", limit=count, offers=(Offer(kinds=("k",)),), pools=slots)
    return Held(await model.claim(request, operation="c"), wire, model)


@asynccontextmanager
async def reporting(
    held: Held, *, interval: float, stale: Any = print, clock: Clock | None = None
) -> AsyncGenerator[Reports]:
    clock = clock or SystemClock()
    reports = Reports(held.broker, "w", interval=interval, clock=clock, dice=SeededDice(), stale=stale)
    for ref in held.refs:
        reports.open(ref)
    task = asyncio.create_task(reports.run())
    try:
        yield reports
    finally:
        task.cancel()


async def test_reports_of_one_job_are_coalesced_and_the_last_word_is_flushed() -> None:
    leases = await held(1)
    (ref,) = leases.refs
    async with reporting(leases, interval=60.0) as reports:
        for step in range(100):
            reports.progress(ref, Progress(fraction=step / 100, text="."))
            await asyncio.sleep(0)
        await reports.flush(ref)
        said = await leases.said(ref)
        assert len(said) <= 3
        assert said[-1]["fraction"] == 0.99
        assert "".join(each["text"] for each in said) == "." * 100


async def test_reports_of_many_jobs_go_in_one_call() -> None:
    leases = await held(50)
    async with reporting(leases, interval=0.01) as reports:
        for ref in leases.refs:
            reports.progress(ref, Progress(fraction=0.5))
        await asyncio.gather(*(reports.flush(ref) for ref in leases.refs))
        assert max(map(len, leases.updates())) == 50


def picture(number: int) -> Preview:
    return Preview(media_type="image/jpeg", data=b"\xff\xd8\xff" + bytes([number]))


async def test_one_picture_a_second_is_sent_the_latest_and_nobody_waits_for_it() -> None:
    leases, clock = await held(1), FakeClock()
    (ref,) = leases.refs
    async with reporting(leases, interval=0.0, clock=clock) as reports:
        reports.preview(ref, picture(0))
        await eventually(lambda: len(leases.updates()) == 1)
        for number in range(1, 10):
            reports.preview(ref, picture(number))
        reports.progress(ref, Progress(fraction=0.5))
        await reports.flush(ref)
        clock.advance(0.9)
        reports.progress(ref, Progress(fraction=0.6))
        await reports.flush(ref)
        clock.advance(0.2)
        reports.progress(ref, Progress(fraction=0.7))
        await reports.flush(ref)
        pictures = [update.preview for batch in leases.updates() for update in batch]
        assert pictures == [picture(0), None, None, picture(9)]
        assert await leases.model.preview(ref.job_id) == picture(9)
        assert [each.get("preview") for each in await leases.said(ref)] == [1, None, None, 2]


async def test_a_call_carries_few_pictures_however_many_jobs_show_one() -> None:
    leases = await held(50)
    async with reporting(leases, interval=0.0) as reports:
        for ref in leases.refs:
            reports.preview(ref, picture(1))
            reports.progress(ref, Progress(fraction=0.5))
        await eventually(lambda: sum(each.preview is not None for batch in leases.updates() for each in batch) == 50)
        counts = [sum(each.preview is not None for each in batch) for batch in leases.updates()]
        assert counts == [PICTURES, PICTURES, PICTURES, 50 - 3 * PICTURES]


async def test_a_picture_outlives_a_call_that_was_lost_unless_a_newer_one_came() -> None:
    leases = await held(2)
    first, second = leases.refs
    leases.wire.drops = 1
    async with reporting(leases, interval=0.0) as reports:
        reports.preview(first, picture(1))
        reports.preview(second, picture(1))
        await eventually(lambda: leases.updates() != [])
        reports.preview(second, picture(2))
        await eventually(lambda: leases.wire.drops == 0 and len(leases.updates()) > 1)
        reports.progress(first, Progress(fraction=0.5))
        await reports.flush(first)
        assert await leases.model.preview(first.job_id) == picture(1)
        assert await leases.model.preview(second.job_id) == picture(2)


async def test_nothing_said_is_lost_while_the_engine_is_away() -> None:
    leases = await held(1)
    (ref,) = leases.refs
    leases.wire.drops = 3
    async with reporting(leases, interval=0.01) as reports:
        reports.progress(ref, Progress(fraction=0.1, text="a"))
        storing = asyncio.create_task(reports.remote(ref, "r-1", "e-1"))
        await asyncio.sleep(0)
        reports.progress(ref, Progress(fraction=0.2, text="b"))
        reports.checkpoint(ref, Raw(b"1"))
        await storing
        await reports.flush(ref)
        assert "".join(each.get("text", "") for each in await leases.said(ref)) == "ab"
        await leases.model.settle("w", [Settlement(job_id=ref.job_id, fence=ref.fence, ending=Again(failure=None))])
        pools = {"slots": Pool(id="s", total=64.0)}
        request = ClaimRequest(queue="default", worker="w", limit=1, offers=(Offer(kinds=("k",)),), pools=pools)
        (lease,) = await leases.model.claim(request, operation="again")
        assert (lease.remote, lease.remote_endpoint, lease.checkpoint) == ("r-1", "e-1", Raw(b"1"))


async def test_one_report_that_the_broker_refuses_takes_no_other_with_it() -> None:
    leases = await held(5)
    bad, *good = leases.refs
    leases.wire.refuse = lambda verb, args: verb == "progress" and any(each.job_id == bad.job_id for each in args[1])
    async with reporting(leases, interval=0.01) as reports:
        for ref in leases.refs:
            reports.progress(ref, Progress(text=ref.job_id))
        await asyncio.gather(*(reports.flush(ref) for ref in leases.refs))
        assert [len(await leases.said(ref)) for ref in good] == [1, 1, 1, 1]
        assert await leases.said(bad) == []


async def test_a_stale_report_is_told_and_a_closed_lease_waits_for_nothing() -> None:
    leases, told = await held(1), list[LeaseRef]()
    (ref,) = leases.refs
    await leases.model.settle("w", [Settlement(job_id=ref.job_id, fence=ref.fence, ending=Succeed())])
    async with reporting(leases, interval=0.01, stale=told.append) as reports:
        reports.progress(ref, Progress(fraction=0.5))
        await eventually(lambda: told == [ref])
        reports.close(ref)
        reports.progress(ref, Progress(fraction=0.6))
        await reports.flush(ref)
        assert len(leases.updates()) == 1


def ending(ref: LeaseRef) -> Settlement:
    return Settlement(job_id=ref.job_id, fence=ref.fence, ending=Succeed(result=Raw(b"1")))


async def test_endings_are_settled_in_batches_and_repeated_until_they_are_answered() -> None:
    leases = await held(10)
    leases.wire.drops = 4
    settler = Settler(leases.broker, "w", dice=SeededDice())
    answers = await asyncio.gather(*(settler.settle(ending(ref)) for ref in leases.refs))
    assert all(answer is not None and answer.accepted for answer in answers)
    assert [len(args[1]) for verb, args, _ in leases.wire.calls if verb == "settle"] == [10] * 5


async def test_one_result_that_the_broker_refuses_becomes_a_failure_and_spoils_no_other() -> None:
    leases = await held(6)
    bad = leases.refs[3].job_id
    leases.wire.refuse = lambda verb, args: (
        verb == "settle" and any(each.job_id == bad and isinstance(each.ending, Succeed) for each in args[1])
    )
    settler = Settler(leases.broker, "w", dice=SeededDice())
    await asyncio.gather(*(settler.settle(ending(ref)) for ref in leases.refs))
    states = {ref.job_id: (await leases.model.get(ref.job_id)).state.value for ref in leases.refs}
    assert states == {ref.job_id: "dead" if ref.job_id == bad else "succeeded" for ref in leases.refs}
