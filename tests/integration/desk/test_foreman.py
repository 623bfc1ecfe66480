"""Operators' verbs and upkeep on a real engine."""

import asyncio

import pytest

from hostler.contracts.failure import Failure, FailureClass
from hostler.contracts.job import JobState, Submitted
from hostler.contracts.lease import Die
from hostler.contracts.queue import KindSpec, QueueSpec
from hostler.kernel.errors import CapacityError, StateConflictError, UnknownQueueError
from hostler.testing.front import Front, request


@pytest.mark.row("003:21")
async def test_the_registry_lists_every_queue_with_its_kinds_by_name(front: Front) -> None:
    await front.foreman.declare_kind(KindSpec(name="chat.complete", queue="chats"))
    await front.foreman.declare_queue(QueueSpec(name="chats", about="talk", producers=("gateway",)))
    rows = {row.queue.name: row for row in await front.foreman.registry()}
    assert list(rows) == ["chats", "default", "images"]
    assert [kind.name for kind in rows["chats"].kinds] == ["chat.complete"]
    assert rows["chats"].queue.producers == ("gateway",)


async def test_a_repeated_operation_neither_repeats_the_verb_nor_its_event(front: Front) -> None:
    for _ in range(2):
        await front.foreman.pause("images", operation="one", reason="disks")
    await front.foreman.resume("images", operation="two")
    await front.foreman.pause("images", operation="one", reason="disks")
    stats = await front.foreman.stats("images")
    assert (stats.paused, stats.reason, stats.offset) == (False, None, 2)


async def test_a_paused_queue_takes_submits_and_a_draining_one_refuses_them(front: Front) -> None:
    await front.hire()
    await front.foreman.pause("images", operation="p")
    job_id = await front.submit()
    assert await front.claim() == ()
    await front.foreman.resume("images", operation="r")
    assert [lease.job_id for lease in await front.claim()] == [job_id]
    await front.foreman.drain("images", operation="d", reason="move")
    with pytest.raises(CapacityError) as refused:
        await front.submit()
    assert refused.value.retry_after > 0
    stats = await front.foreman.stats("images")
    assert (stats.draining, stats.reason) == (True, "move")


async def test_verbs_on_a_queue_that_never_was_are_refused(front: Front) -> None:
    for verb in (front.foreman.pause, front.foreman.resume, front.foreman.drain):
        with pytest.raises(UnknownQueueError):
            await verb("nowhere", operation="x")
    with pytest.raises(UnknownQueueError):
        await front.foreman.audit("nowhere")


async def test_counters_say_what_is_there(front: Front) -> None:
    await front.hire()
    answers = await front.answers(*(request(payload="xx", tenant=f"t{n % 3}") for n in range(9)))
    ids = [answer.id for answer in answers if isinstance(answer, Submitted)]
    first = await front.desk.get(ids[0])
    await front.submit(delay=60.0)
    (lease,) = await front.claim()
    await front.end(lease)
    stats = await front.foreman.stats("images")
    assert (stats.ready, stats.scheduled, stats.running, stats.depth) == (8, 1, 0, 9)
    assert (stats.bytes, stats.tenants, stats.lanes, stats.workers) == (8 * 4 + 4, 4, 1, 1)
    assert (stats.totals["submitted"], stats.totals["claimed"], stats.totals["succeeded"]) == (10, 1, 1)
    assert stats.kept == {"succeeded": 1, "dead": 0, "cancelled": 0, "expired": 0}
    assert stats.oldest_ready_at is not None
    assert stats.oldest_ready_at >= first.created_at


@pytest.mark.row("002:195")
async def test_a_replayed_job_keeps_its_history_and_goes_back_to_the_lane_it_was_submitted_to(front: Front) -> None:
    await front.hire()
    job_id = await front.submit()
    (lease,) = await front.claim()
    await front.end(lease, Die(failure=Failure(class_=FailureClass.REFUSED, message="no")))
    assert await front.desk.replay(job_id, operation="again", reason="fixed") is JobState.READY
    job = await front.desk.get(job_id)
    assert (job.generation, len(job.attempts), job.error, job.avoid.workers) == (2, 1, None, ())
    with pytest.raises(StateConflictError):
        await front.desk.replay(job_id, operation="other")
    assert await front.foreman.audit("images") == ()


async def test_racing_operators_change_a_job_once(front: Front) -> None:
    job_id = await front.submit()
    states = await asyncio.gather(*(front.desk.cancel(job_id, operation=f"c{n}") for n in range(20)))
    assert set(states) == {JobState.CANCELLED}
    timeline = await front.desk.timeline(job_id)
    assert [event.type for event in timeline.events] == ["submit", "cancel"]
    await asyncio.gather(*(front.desk.purge(job_id, operation="gone") for _ in range(5)))
    assert (await front.foreman.stats("images")).totals["purged"] == 1


async def test_upkeep_is_done_once_however_many_ask(front: Front) -> None:
    await front.hire()
    await asyncio.gather(*(front.foreman.tick("images") for _ in range(20)))
    assert not (await front.foreman.tick("images")).more
    assert (await front.foreman.stats("images")).offset == 0
