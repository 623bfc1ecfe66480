"""What a worker does with the jobs it holds: timeouts, cancel, drain, lost leases, outages."""

import asyncio
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import Struct

import hostler
from hostler.blobs.opening import open_blobs
from hostler.contracts.queue import KindSpec, QueueSpec, RetryPolicy
from hostler.contracts.reference import as_payload
from hostler.contracts.timeouts import Timeouts
from hostler.testing.eventually import eventually
from hostler.testing.fabric import Fabric
from hostler.testing.wire import Wire

ONCE = RetryPolicy(attempts=1)
SHORT = Timeouts(run=0.3)


class Gate:
    """Holds handlers until a test lets them go, and counts them."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.inside = 0
        self.most = 0
        self.stopped = 0

    async def through(self) -> None:
        self.inside += 1
        self.most = max(self.most, self.inside)
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            self.stopped += 1
            raise
        finally:
            self.inside -= 1


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def gated(gate: Gate) -> Any:
    @hostler.handler("w.gated")
    async def gated(call: hostler.Call[Any]) -> int:
        await gate.through()
        return call.attempt

    return gated


@hostler.handler("w.quick")
async def quick(call: hostler.Call[Any]) -> Any:
    return call.payload


@hostler.handler("w.hung.loop", timeouts=SHORT, retry=ONCE)
async def hung_loop(call: hostler.Call[Any]) -> None:
    await asyncio.Event().wait()


@hostler.handler("w.hung.deaf", timeouts=SHORT, retry=ONCE)
async def hung_deaf(call: hostler.Call[Any]) -> None:
    for _ in range(3):
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            continue


@hostler.handler("w.hung.thread", timeouts=SHORT, retry=ONCE)
def hung_thread(call: hostler.Call[Any]) -> None:
    pause = threading.Event()
    while not call.cancelled:
        pause.wait(0.01)


@hostler.handler("w.silent", timeouts=Timeouts(idle=0.3, run=60.0), retry=ONCE)
async def silent(call: hostler.Call[Any]) -> None:
    for step in range(10):
        call.progress(fraction=step / 10)
        await asyncio.to_thread(threading.Event().wait, 0.05)
    await asyncio.Event().wait()


@pytest.mark.row("001:80")
@pytest.mark.parametrize("handler", [hung_loop, hung_deaf, hung_thread])
async def test_a_hung_handler_frees_its_slot_at_its_run_timeout(fabric: Fabric, handler: Any) -> None:
    async with fabric.worker(handler, quick, slots=1):
        kind = handler.__hostler_handler__.spec.name
        hung = await fabric.submit(kind, priority=100)
        after = await fabric.submit("w.quick", "next", priority=0)
        assert await fabric.result(after, within=0.3 + 1 + 1) == "next"
        job = await fabric.ended(hung)
        assert job.state == "dead"
        assert job.error is not None
        assert job.error.class_ == "timeout:run"


@pytest.mark.row("001:80")
async def test_silence_ends_at_the_idle_timeout_and_progress_counts_as_a_sign_of_life(fabric: Fabric) -> None:
    async with fabric.worker(silent):
        job = await fabric.ended(await fabric.submit("w.silent"))
        assert job.error is not None
        assert job.error.class_ == "timeout:idle"
        fractions = [event.data["fraction"] for event in await fabric.events(job.id) if event.type == "progress"]
        assert fractions == sorted(fractions)
        assert fractions[-1] == 0.9


@pytest.mark.row("002:10")
async def test_fifty_io_jobs_run_at_once_on_one_loop(fabric: Fabric, gate: Gate, gated: Any) -> None:
    async with fabric.worker(gated, slots=50):
        jobs = [await fabric.submit("w.gated") for _ in range(60)]
        await eventually(lambda: gate.inside == 50)
        gate.open.set()
        assert [await fabric.result(job) for job in jobs] == [1] * 60
        assert gate.most == 50


@pytest.mark.row("001:59")
async def test_a_worker_never_holds_more_than_its_slots_over_all_its_queues(
    fabric: Fabric, gate: Gate, gated: Any
) -> None:
    @hostler.handler("w.other", queue="other")
    async def other(call: hostler.Call[Any]) -> None:
        await gate.through()

    async with fabric.worker(gated, other, slots=3) as worker:
        jobs = [await fabric.submit(kind) for _ in range(5) for kind in ("w.gated", "w.other")]
        await eventually(lambda: gate.inside == 3)
        assert len(worker.jobs) == 3
        gate.open.set()
        assert {(await fabric.ended(job)).state for job in jobs} == {"succeeded"}
        assert gate.most == 3


async def test_a_running_job_is_cancelled_within_a_heartbeat_and_acknowledged(
    fabric: Fabric, gate: Gate, gated: Any
) -> None:
    async with fabric.worker(gated):
        job = await fabric.submit("w.gated")
        await eventually(lambda: gate.inside)
        await fabric.ports.desk.cancel(job, operation="c")
        assert (await fabric.ended(job)).state == "cancelled"
        assert gate.stopped == 1


@pytest.mark.row("002:21")
async def test_a_drained_worker_gives_back_what_is_not_done_without_using_an_attempt(
    fabric: Fabric, gate: Gate, gated: Any
) -> None:
    async with fabric.worker(gated, grace=0.2) as worker:
        job = await fabric.submit("w.gated")
        await eventually(lambda: gate.inside)
        worker.drain()
        await eventually(lambda: worker.state == "stopped")
    found = await fabric.get(job)
    assert found.state == "ready"
    assert [(each.outcome, each.counted) for each in found.attempts] == [("retry", False)]
    gate.open.set()
    async with fabric.worker(gated):
        assert await fabric.result(job) == 2


@pytest.mark.row("002:21")
async def test_a_job_that_ends_within_the_grace_is_recorded(fabric: Fabric, gate: Gate, gated: Any) -> None:
    async with fabric.worker(gated, grace=20.0) as worker:
        job = await fabric.submit("w.gated")
        await eventually(lambda: gate.inside)
        worker.drain()
        await eventually(lambda: worker.state == "draining")
        late = await fabric.submit("w.gated")
        gate.open.set()
        assert await fabric.result(job) == 1
        await eventually(lambda: worker.state == "stopped")
        assert (await fabric.get(late)).state == "ready"


@pytest.mark.row("003:195")
async def test_a_paused_worker_takes_nothing_until_it_is_resumed(fabric: Fabric) -> None:
    registry = fabric.ports.registry
    async with fabric.worker(quick) as worker:
        await registry.command(worker.id, "pause")
        await eventually(lambda: worker.state == "paused")
        job = await fabric.submit("w.quick", 1)
        assert (await fabric.get(job)).state == "ready"
        await registry.command(worker.id, "resume")
        assert await fabric.result(job) == 1


@pytest.mark.row("003:131")
async def test_every_state_of_a_worker_is_announced_once_and_in_order(fabric: Fabric, gate: Gate, gated: Any) -> None:
    wire = Wire()
    fabric = Fabric(wire_registry(fabric, wire))
    async with fabric.worker(gated) as worker:
        job = await fabric.submit("w.gated")
        await eventually(lambda: worker.state == "busy")
        gate.open.set()
        await fabric.result(job)
        await eventually(lambda: worker.state == "ready")
    states = [args[0].state.value for verb, args, _ in wire.calls if verb == "announce"]
    changes = [state for index, state in enumerate(states) if index == 0 or states[index - 1] != state]
    assert changes == ["starting", "ready", "busy", "ready", "draining", "stopping"]
    (gone,) = await fabric.ports.registry.workers(include_gone=True)
    assert gone.state == "stopped"


@pytest.mark.row("003:158")
async def test_the_next_attempt_knows_how_the_earlier_ones_failed_and_what_they_saved(fabric: Fabric) -> None:
    seen: list[tuple[list[str], Any]] = []

    @hostler.handler("w.twice", retry=RetryPolicy(attempts=3, base=0.01))
    async def twice(call: hostler.Call[Any]) -> str:
        seen.append(([each.error.message for each in call.history if each.error], call.checkpointed))
        call.checkpoint({"step": call.attempt})
        if call.attempt < 3:
            raise hostler.Failed("transient", f"attempt {call.attempt} met a wall")
        return "done"

    async with fabric.worker(twice):
        assert await fabric.result(await fabric.submit("w.twice")) == "done"
    assert seen == [
        ([], None),
        (["attempt 1 met a wall"], {"step": 1}),
        (["attempt 1 met a wall", "attempt 2 met a wall"], {"step": 2}),
    ]


async def test_an_exception_is_an_internal_failure_with_a_stack_excerpt(fabric: Fabric) -> None:
    @hostler.handler("w.broken", retry=ONCE)
    async def broken(call: hostler.Call[Any]) -> None:
        raise ValueError("a wrong turn")

    async with fabric.worker(broken):
        job = await fabric.ended(await fabric.submit("w.broken"))
        assert job.error is not None
        assert (job.error.class_, job.error.message) == ("internal", "ValueError: a wrong turn")
        assert "in broken" in job.error.details["stack"][-1]


async def test_a_result_of_another_type_than_declared_is_an_internal_failure(fabric: Fabric) -> None:
    class Out(Struct):
        size: int

    @hostler.handler("w.typed", result=Out, retry=ONCE)
    async def typed(call: hostler.Call[Any]) -> Out:
        return Out(size="large")  # pyright: ignore[reportArgumentType] - the mistake under test

    async with fabric.worker(typed):
        job = await fabric.ended(await fabric.submit("w.typed"))
        assert job.error is not None
        assert job.error.class_ == "internal"


async def test_a_result_too_large_for_the_broker_without_a_blob_store_is_a_clear_failure(fabric: Fabric) -> None:
    @hostler.handler("w.large", retry=ONCE)
    async def large(call: hostler.Call[Any]) -> str:
        return "x" * 300_000

    async with fabric.worker(large):
        job = await fabric.ended(await fabric.submit("w.large"))
        assert job.error is not None
        assert "no blob store" in job.error.message


async def test_large_results_and_payloads_go_through_the_blob_store(fabric: Fabric, tmp_path: Path) -> None:
    @hostler.handler("w.copy", retry=ONCE)
    async def copy(call: hostler.Call[Any]) -> Any:
        return call.payload

    async with open_blobs(None, tmp_path) as blobs, fabric.worker(copy, blobs=blobs):
        first = await fabric.ended(await fabric.submit("w.copy", "x" * 250_000 + "y" * 20_000))
        assert first.result_ref is not None
        assert first.result_ref.size == 270_002
        again = await fabric.ended(await fabric.submit("w.copy", msgspec.json.decode(as_payload(first.result_ref))))
        assert again.result_ref == first.result_ref


def wire_registry(fabric: Fabric, wire: Wire) -> Any:
    return replace(fabric.ports, registry=wire.to(fabric.ports.registry))


@pytest.mark.row("000:62")
async def test_a_cut_off_worker_works_on_and_drops_the_job_when_it_learns_that_the_lease_is_lost(
    fabric: Fabric, gate: Gate, gated: Any
) -> None:
    await fabric.ports.foreman.declare_queue(QueueSpec(name="default", lease=0.4))
    wire = Wire()
    async with fabric.worker(gated, broker=wire.to(fabric.ports.broker), id="cut-off") as first:
        job = await fabric.submit("w.gated")
        await eventually(lambda: gate.inside)
        wire.cut = True
        async with fabric.worker(gated, id="second"):
            taken = await eventually(lambda: _taken_by(fabric, job, "second"))
            assert taken
            assert gate.inside == 2
            assert first.jobs == (job,)
            wire.cut = False
            await eventually(lambda: gate.stopped == 1)
            await eventually(lambda: first.jobs == ())
            gate.open.set()
            assert await fabric.result(job) == 2
    assert [event.type for event in await fabric.events(job)].count("finish") == 1


async def _taken_by(fabric: Fabric, job: str, worker: str) -> bool:
    found = await fabric.get(job)
    return found.state == "running" and found.worker == worker


@pytest.mark.row("001:77", "002:30")
async def test_lost_answers_leave_no_ghost_lease_and_no_second_end(fabric: Fabric) -> None:
    wire = Wire()
    async with fabric.worker(quick, broker=wire.to(fabric.ports.broker), slots=4) as worker:
        wire.lose = {"claim": 3, "settle": 3, "progress": 1}
        jobs = [await fabric.submit("w.quick", number) for number in range(12)]
        assert [await fabric.result(job) for job in jobs] == list(range(12))
        await eventually(lambda: worker.jobs == ())
    for job in jobs:
        assert [event.type for event in await fabric.events(job)] == ["submit", "claim", "finish"]
    stats = await fabric.ports.foreman.stats("default")
    assert (stats.running, stats.totals["claimed"], stats.totals["succeeded"]) == (0, 12, 12)


async def test_a_job_that_ends_while_the_engine_is_away_is_recorded_when_it_is_back(
    fabric: Fabric, gate: Gate, gated: Any
) -> None:
    wire = Wire()
    async with fabric.worker(gated, broker=wire.to(fabric.ports.broker)):
        job = await fabric.submit("w.gated")
        await eventually(lambda: gate.inside)
        wire.cut = True
        gate.open.set()
        await eventually(lambda: wire.count("settle") >= 3)
        assert (await fabric.get(job)).state == "running"
        wire.cut = False
        assert await fabric.result(job) == 1


async def test_what_an_operator_configured_for_a_kind_wins_over_what_code_says(fabric: Fabric) -> None:
    await fabric.ports.foreman.declare_kind(
        KindSpec(name="w.hung.loop", queue="slow", timeouts=Timeouts(run=0.1, idle=0.1), retry=ONCE)
    )
    async with fabric.worker(hung_loop):
        job = await fabric.ended(await fabric.submit("w.hung.loop"))
        assert job.queue == "slow"
        assert job.error is not None
        assert "within 0.1 s" in job.error.message
