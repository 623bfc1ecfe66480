"""Promises 1, 3, 5 and 10 of a broker: what a submit may expect."""

import asyncio
from datetime import timedelta

import pytest
from msgspec import Raw

from hostler.contracts.job import JobState, Submitted
from hostler.contracts.lease import Succeed
from hostler.kernel.errors import (
    CapacityError,
    IdempotencyConflictError,
    InvalidError,
    NotFoundError,
    PlannedKindError,
    QueueFullError,
    UnknownKindError,
)
from hostler.testing.broker_house import QUEUE, House, request


class SubmitPromises:
    """Durable once acknowledged, idempotent, validated, bounded."""

    async def test_a_submitted_job_is_ready_and_shows_all_that_it_was_given(self, house: House) -> None:
        deadline = house.now() + timedelta(hours=1)
        job_id = await house.submit(
            payload={"text": "größer — 灯台"},
            priority=7,
            tenant="blue",
            labels={"who": "me"},
            deadline=deadline,
            needs={"labels": {"tier": "gold"}},
            avoid={"models": ("old",)},
        )
        job = await house.job(job_id)
        assert (job.state, job.kind, job.queue, job.tenant, job.priority) == ("ready", "work", QUEUE, "blue", 7)
        assert (job.attempt, job.generation, job.attempts, job.deadline) == (0, 1, (), deadline)
        assert (job.labels, job.needs.labels, job.avoid.models) == ({"who": "me"}, {"tier": "gold"}, ("old",))
        assert isinstance(job.payload, Raw)
        assert bytes(job.payload) == ('{"text":"größer — 灯台"}'.encode())

    async def test_a_batch_is_answered_one_for_one_and_a_bad_job_keeps_no_other_out(self, house: House) -> None:
        answers = await house.desk.submit([request(), request("nobody.knows"), request("draw")], operation="b")
        assert [type(answer) for answer in answers] == [Submitted, UnknownKindError, Submitted]
        assert (await house.foreman.stats(QUEUE)).ready == 2

    async def test_unknown_and_planned_kinds_are_refused_without_a_trace(self, house: House) -> None:
        await house.kind("soon", planned=True)
        before = await house.offset()
        for kind, error in (("unheard.of", UnknownKindError), ("soon", PlannedKindError)):
            with pytest.raises(error):
                await house.submit(kind)
        assert await house.offset() == before
        assert (await house.foreman.stats(QUEUE)).depth == 0

    async def test_needs_that_can_never_be_judged_are_refused_with_their_field(self, house: House) -> None:
        with pytest.raises(InvalidError) as refused:
            await house.submit(needs={"versions": {"comfyui": "newest"}})
        assert refused.value.facts["field"] == "needs.versions.comfyui"
        assert (await house.foreman.stats(QUEUE)).depth == 0

    async def test_a_delay_and_a_time_together_are_refused(self, house: House) -> None:
        with pytest.raises(InvalidError):
            await house.submit(delay=1.0, run_at=house.now() + timedelta(hours=1))

    async def test_a_delayed_job_is_invisible_until_its_time(self, house: House) -> None:
        by_delay = await house.submit(delay=10.0)
        by_time = await house.submit(run_at=house.now() + timedelta(seconds=10))
        assert await house.state(by_delay) is JobState.SCHEDULED
        assert await house.claim(2) == ()
        await house.advance(9.9)
        assert await house.claim(2) == ()
        await house.advance(0.2)
        assert {lease.job_id for lease in await house.claim(2)} == {by_delay, by_time}

    async def test_a_time_that_has_passed_is_now(self, house: House) -> None:
        job_id = await house.submit(run_at=house.now() - timedelta(hours=1))
        assert await house.state(job_id) is JobState.READY

    async def test_the_same_operation_gives_the_same_answer_and_one_job(self, house: House) -> None:
        first = await house.desk.submit([request(), request()], operation="again")
        second = await house.desk.submit([request(), request()], operation="again")
        assert first == second
        assert (await house.foreman.stats(QUEUE)).depth == 2

    async def test_a_key_that_was_seen_answers_the_first_job(self, house: House) -> None:
        (first,) = await house.desk.submit([request(idempotency_key="k")], operation="a")
        (second,) = await house.desk.submit([request(idempotency_key="k")], operation="b")
        assert isinstance(first, Submitted)
        assert first.created
        assert second == Submitted(id=first.id, created=False)
        stats = await house.foreman.stats(QUEUE)
        assert (stats.depth, stats.totals["submitted"], stats.totals["deduplicated"]) == (1, 1, 1)

    async def test_a_hundred_racing_submits_with_one_key_make_one_job(self, house: House) -> None:
        answers = await asyncio.gather(
            *(house.desk.submit([request(idempotency_key="k")], operation=f"race-{n}") for n in range(100))
        )
        made = [one for (one,) in answers if isinstance(one, Submitted)]
        assert len({one.id for one in made}) == 1
        assert [one.created for one in made].count(True) == 1
        assert len(made) == 100

    async def test_a_key_with_another_body_is_refused(self, house: House) -> None:
        await house.submit(idempotency_key="k", payload=1)
        with pytest.raises(IdempotencyConflictError):
            await house.submit(idempotency_key="k", payload=2)
        assert (await house.foreman.stats(QUEUE)).depth == 1

    async def test_a_key_belongs_to_its_tenant(self, house: House) -> None:
        assert await house.submit(idempotency_key="k", tenant="a") != await house.submit(
            idempotency_key="k", tenant="b"
        )

    async def test_a_key_is_forgotten_after_its_window_and_not_before(self, house: House) -> None:
        await house.declare(retention={"idempotency": 60.0})
        first = await house.submit(idempotency_key="k")
        await house.advance(59.0)
        assert await house.submit(idempotency_key="k") == first
        await house.advance(2.0)
        assert await house.submit(idempotency_key="k") != first

    async def test_one_batch_with_one_key_twice_makes_one_job(self, house: House) -> None:
        first, second = await house.submit_all([request(idempotency_key="k")] * 2)
        assert first == second

    async def test_priority_nought_and_one_attempt_are_taken_at_their_word(self, house: House) -> None:
        job_id = await house.submit("once", priority=0)
        assert (await house.job(job_id)).priority == 0
        await house.fail(await house.claim_one(job_id))
        assert await house.state(job_id) is JobState.DEAD

    async def test_an_unknown_id_is_not_found(self, house: House) -> None:
        await house.submit()
        for job_id in (f"{QUEUE}.999999", "elsewhere.1"):
            with pytest.raises(NotFoundError):
                await house.desk.get(job_id)


class LimitPromises:
    """Backpressure: refused without a trace, with a time to come back."""

    async def test_no_job_is_stored_beyond_the_depth(self, house: House) -> None:
        await house.declare(limits={"depth": 3})
        answers = await house.submit_all([request()] * 5)
        assert [isinstance(answer, QueueFullError) for answer in answers] == [False, False, False, True, True]
        before = await house.offset()
        with pytest.raises(QueueFullError) as refused:
            await house.submit()
        assert refused.value.retry_after > 0
        assert await house.offset() == before
        assert (await house.foreman.stats(QUEUE)).depth == 3

    async def test_a_job_that_ended_makes_room_for_another(self, house: House) -> None:
        await house.declare(limits={"depth": 1})
        await house.submit()
        lease = await house.claim_one()
        with pytest.raises(QueueFullError):
            await house.submit()
        await house.end(lease, Succeed())
        await house.submit()

    async def test_a_refused_key_is_not_remembered(self, house: House) -> None:
        await house.declare(limits={"depth": 1})
        blocking = await house.submit()
        with pytest.raises(QueueFullError):
            await house.submit(idempotency_key="k")
        await house.desk.cancel(blocking, operation="c")
        job_id = await house.submit(idempotency_key="k")
        assert job_id != blocking

    async def test_a_tenant_has_a_depth_of_its_own(self, house: House) -> None:
        await house.declare(limits={"tenant_depth": 2})
        await house.submit_many(2, tenant="a")
        with pytest.raises(QueueFullError):
            await house.submit(tenant="a")
        await house.submit(tenant="b")

    async def test_payload_bytes_are_bounded_and_given_back(self, house: House) -> None:
        await house.declare(limits={"bytes": 4_000})
        first = await house.submit(payload="x" * 2_500)
        with pytest.raises(QueueFullError):
            await house.submit(payload="x" * 2_500)
        await house.desk.cancel(first, operation="c")
        await house.submit(payload="x" * 2_500)

    async def test_lanes_are_bounded(self, house: House) -> None:
        await house.declare(limits={"lanes": 2})
        await house.submit(needs={"models": ("a",)})
        await house.submit(needs={"models": ("b",)})
        with pytest.raises(QueueFullError):
            await house.submit(needs={"models": ("c",)})
        await house.submit(needs={"models": ("a",)})

    async def test_a_draining_queue_takes_nothing_new_until_it_is_resumed(self, house: House) -> None:
        await house.foreman.drain(QUEUE, operation="d")
        with pytest.raises(CapacityError):
            await house.submit()
        await house.foreman.resume(QUEUE, operation="r")
        await house.submit()

    async def test_more_lanes_become_free_when_the_last_job_of_one_ended(self, house: House) -> None:
        await house.declare(limits={"lanes": 1})
        first = await house.submit(needs={"models": ("a",)})
        await house.desk.cancel(first, operation="c")
        await house.pass_time(2.0)
        await house.submit(needs={"models": ("b",)})
