"""Promises 2, 6 and 7 of a broker: leases, fences, and how attempts end."""

import asyncio

import pytest
from msgspec import Raw

from hostler.contracts.failure import Failure, FailureClass
from hostler.contracts.fence import attempt_of
from hostler.contracts.job import JobState, Progress, null_json
from hostler.contracts.lease import Again, Die, Ending, Hold, Stopped, Succeed, Update
from hostler.contracts.offer import Offer
from hostler.testing.broker_house import QUEUE, TRANSIENT, House, ref
from hostler.valkeyio.layout import ATTEMPTS_KEPT


class LeasePromises:
    """One live lease per job; a stale one is refused, changes nothing, and is an event."""

    async def test_a_renewed_lease_is_not_lost(self, house: House) -> None:
        job_id = await house.submit()
        lease = await house.claim_one(job_id)
        for _ in range(5):
            await house.pass_time(5.0)
            renewal = await house.broker.renew("w1", [ref(lease)])
            assert renewal.lost == ()
            assert renewal.expires_at is not None
            assert (renewal.expires_at - house.now()).total_seconds() == pytest.approx(10.0)
        assert (await house.end(lease)).accepted

    async def test_a_lease_that_is_not_renewed_is_taken_away_and_the_job_keeps_its_place(self, house: House) -> None:
        first = await house.submit(priority=60)
        lease = await house.claim_one(first)
        second = await house.submit()
        await house.pass_time(11.0)
        job = await house.job(first)
        assert (job.state, job.attempts[0].outcome, job.attempts[0].counted) == (JobState.READY, "reap", False)
        assert (await house.broker.renew("w1", [ref(lease)])).lost == (ref(lease),)
        again = await house.claim(2, worker="w2")
        assert [(one.job_id, attempt_of(one.fence)) for one in again] == [(first, 2), (second, 1)]
        assert (again[0].crashes, again[0].attempts_used) == (1, 0)

    async def test_a_late_worker_changes_nothing_and_leaves_one_event(self, house: House) -> None:
        job_id = await house.submit()
        late = await house.claim_one(job_id, worker="late")
        await house.pass_time(11.0)
        owner = await house.claim_one(job_id, worker="owner")
        for _ in range(3):
            settled = await house.end(late, Succeed(result=Raw(b'"late"')))
            assert not settled.accepted
            stale = await house.broker.progress(
                "late", [Update(job_id=job_id, fence=late.fence, progress=Progress(fraction=0.9))]
            )
            assert stale == (ref(late),)
        job = await house.job(job_id)
        assert (job.state, job.worker, job.result, job.progress) == (
            JobState.RUNNING,
            "owner",
            null_json(),
            None,
        )
        assert (await house.types(job_id)).count("reject") == 1
        assert (await house.end(owner, Succeed(result=Raw(b'"owner"')))).accepted
        assert not (await house.end(late, Succeed(result=Raw(b'"late"')))).accepted
        assert bytes((await house.job(job_id)).result) == b'"owner"'

    async def test_a_fence_rises_with_every_claim(self, house: House) -> None:
        job_id = await house.submit()
        last = 0
        for attempt in (1, 2, 3):
            lease = await house.claim_one(job_id)
            assert lease.fence > last
            assert attempt_of(lease.fence) == attempt
            last = lease.fence
            await house.fail(lease)

    async def test_a_job_that_takes_down_three_workers_is_poison(self, house: House) -> None:
        job_id = await house.submit()
        for worker in ("w1", "w2", "w3"):
            await house.claim_one(job_id, worker=worker)
            await house.pass_time(11.0)
        job = await house.job(job_id)
        assert job.state is JobState.DEAD
        assert job.error is not None
        assert job.error.class_ == "poison"
        assert set(job.error.details["workers"]) == {"w1", "w2", "w3"}
        assert [attempt.outcome for attempt in job.attempts] == ["reap", "reap", "reap"]
        assert (await house.types(job_id))[-1] == "bury"

    async def test_one_batch_renews_many_and_names_the_lost(self, house: House) -> None:
        await house.submit_many(3)
        leases = await house.claim(3)
        await house.end(leases[1])
        await house.advance(5.0)
        renewal = await house.broker.renew("w1", [ref(lease) for lease in leases])
        assert renewal.lost == (ref(leases[1]),)

    async def test_renewal_tells_who_asked_for_a_stop_and_what_drains(self, house: House) -> None:
        await house.submit_many(2)
        leases = await house.claim(2)
        await house.desk.cancel(leases[0].job_id, operation="c")
        await house.foreman.drain(QUEUE, operation="d")
        renewal = await house.broker.renew("w1", [ref(lease) for lease in leases])
        assert renewal.lost == ()
        assert renewal.cancelled == (ref(leases[0]),)
        assert renewal.drained == (QUEUE,)

    async def test_a_lease_of_a_job_that_never_was_is_lost(self, house: House) -> None:
        job_id = await house.submit()
        lease = await house.claim_one(job_id)
        await house.end(lease)
        await house.desk.purge(job_id, operation="p")
        assert (await house.broker.renew("w1", [ref(lease)])).lost == (ref(lease),)
        assert not (await house.end(lease, Stopped())).accepted

    async def test_after_a_restart_every_live_lease_gets_a_lease_of_grace_that_is_not_charged(
        self, house: House
    ) -> None:
        job_id = await house.submit()
        await house.claim_one(job_id)
        await house.tick()
        await house.restart()
        await house.advance(30.0)
        await house.tick()
        assert await house.state(job_id) is JobState.RUNNING
        await house.pass_time(11.0)
        assert await house.state(job_id) is JobState.READY
        assert (await house.claim_one(job_id)).crashes == 0

    async def test_after_a_pause_of_the_engine_nobody_is_taken_for_dead_at_once(self, house: House) -> None:
        job_id = await house.submit()
        lease = await house.claim_one(job_id)
        await house.tick()
        await house.advance(60.0)
        await house.tick()
        assert await house.state(job_id) is JobState.RUNNING
        assert (await house.broker.renew("w1", [ref(lease)])).lost == ()
        assert (await house.end(lease)).accepted

    async def test_upkeep_that_comes_late_spares_no_lost_lease_while_others_are_heard(self, house: House) -> None:
        lost, kept = await house.submit_many(2)
        await house.claim_one(lost, worker="dead")
        lease = await house.claim_one(kept)
        await house.tick()
        for _ in range(4):
            await house.advance(3.0)
            assert (await house.broker.renew("w1", [ref(lease)])).lost == ()
        await house.tick()
        assert await house.state(lost) is JobState.READY
        assert (await house.claim_one(lost)).crashes == 1

    async def test_progress_remote_ids_and_checkpoints_are_kept_for_the_next_attempt(self, house: House) -> None:
        job_id = await house.submit()
        lease = await house.claim_one(job_id)
        first = Update(
            job_id=job_id,
            fence=lease.fence,
            progress=Progress(fraction=0.25, stage="draw"),
            remote="svc-7",
            remote_endpoint="e1",
            checkpoint=Raw(b'{"step":3}'),
        )
        assert await house.broker.progress("w1", [first]) == ()
        second = Update(job_id=job_id, fence=lease.fence, progress=Progress(fraction=0.5))
        assert await house.broker.progress("w1", [second]) == ()
        job = await house.job(job_id)
        assert job.progress is not None
        assert job.progress.fraction == 0.5
        await house.fail(lease)
        again = await house.claim_one(job_id)
        assert (again.remote, again.remote_endpoint) == ("svc-7", "e1")
        assert (await house.job(job_id)).progress is None
        assert isinstance(again.checkpoint, Raw)
        assert bytes(again.checkpoint) == b'{"step":3}'
        assert (await house.types(job_id)).count("progress") == 2

    async def test_an_update_without_progress_is_no_event(self, house: House) -> None:
        job_id = await house.submit()
        lease = await house.claim_one(job_id)
        before = await house.offset()
        await house.broker.progress("w1", [Update(job_id=job_id, fence=lease.fence, remote="svc-7")])
        assert await house.offset() == before


class SettlePromises:
    """Each class of ending does what it says, once, and keeps the history."""

    async def test_a_success_records_its_result_once(self, house: House) -> None:
        job_id = await house.submit()
        lease = await house.claim_one(job_id)
        done = Succeed(result=Raw(b'{"url":"x"}'))
        assert [(await house.end(lease, done)).accepted for _ in range(3)] == [True, True, True]
        job = await house.job(job_id)
        assert (job.state, job.attempts, job.finished_at is not None) == (JobState.SUCCEEDED, (), True)
        assert bytes(job.result) == b'{"url":"x"}'
        assert (await house.types(job_id)) == ["submit", "claim", "finish"]

    async def test_another_ending_of_an_ended_attempt_is_refused(self, house: House) -> None:
        job_id = await house.submit()
        lease = await house.claim_one(job_id)
        assert (await house.end(lease)).accepted
        assert not (await house.end(lease, Die(failure=TRANSIENT))).accepted
        assert await house.state(job_id) is JobState.SUCCEEDED

    async def test_racing_endings_of_one_lease_give_one_terminal_event(self, house: House) -> None:
        job_id = await house.submit()
        lease = await house.claim_one(job_id)
        endings: list[Ending] = [Succeed(), Die(failure=TRANSIENT)] * 10
        await asyncio.gather(*(house.end(lease, ending) for ending in endings))
        types = await house.types(job_id)
        assert types.count("finish") + types.count("fail") == 1

    async def test_attempts_are_counted_and_the_last_allowed_one_is_the_last(self, house: House) -> None:
        await house.kind("thrice", retry={"attempts": 3})
        job_id = await house.submit("thrice")
        offers = _offers("thrice")
        for used in range(3):
            lease = await house.claim_one(job_id, offers=offers)
            assert (lease.attempts_used, lease.attempts_max) == (used, 3)
            await house.fail(lease)
        job = await house.job(job_id)
        assert (job.state, [attempt.number for attempt in job.attempts]) == (JobState.DEAD, [1, 2, 3])
        assert all(attempt.counted and attempt.error for attempt in job.attempts)
        assert await house.claim(offers=offers) == ()

    async def test_a_retry_is_invisible_before_its_time(self, house: House) -> None:
        job_id = await house.submit()
        await house.fail(await house.claim_one(job_id), delay=5.0)
        assert await house.state(job_id) is JobState.SCHEDULED
        assert await house.claim() == ()
        await house.advance(5.1)
        lease = await house.claim_one(job_id)
        assert [(attempt.number, attempt.outcome, attempt.worker) for attempt in lease.history] == [(1, "retry", "w1")]
        assert lease.history[0].error == TRANSIENT

    async def test_work_given_back_uses_no_attempt_and_comes_at_once(self, house: House) -> None:
        job_id = await house.submit("once")
        for _ in range(4):
            lease = await house.claim_one(job_id)
            assert lease.attempts_used == 0
            await house.end(lease, Again(failure=None, counted=False))
        assert await house.state(job_id) is JobState.READY

    async def test_no_room_has_a_budget_of_its_own(self, house: House) -> None:
        await house.kind("shy", retry={"attempts": 1, "overloads": 3})
        job_id = await house.submit("shy")
        full = Failure(class_=FailureClass.OVERLOADED, message="no room")
        for overloads in range(3):
            lease = await house.claim_one(job_id, offers=_offers("shy"))
            assert (lease.overloads, lease.attempts_used) == (overloads, 0)
            await house.end(lease, Again(failure=full, counted=False, overload=True))
            assert await house.state(job_id) is JobState.READY
        await house.end(
            await house.claim_one(job_id, offers=_offers("shy")), Again(failure=full, counted=False, overload=True)
        )
        assert await house.state(job_id) is JobState.DEAD

    async def test_what_used_no_attempt_breaks_no_row_of_overloads_and_an_attempt_does(self, house: House) -> None:
        await house.kind("shy", retry={"attempts": 3, "overloads": 3})
        job_id = await house.submit("shy")
        full = Failure(class_=FailureClass.OVERLOADED, message="no room")
        for ending, overloads in (
            (Again(failure=full, counted=False, overload=True), 1),
            (Again(failure=full, counted=False), 1),
            (Again(failure=None, counted=False), 1),
            (Again(failure=full, counted=False, overload=True), 2),
            (Again(failure=full), 0),
        ):
            await house.end(await house.claim_one(job_id, offers=_offers("shy")), ending)
            lease = await house.claim_one(job_id, offers=_offers("shy"))
            assert lease.overloads == overloads
            await house.end(lease, Again(failure=None, counted=False))

    async def test_a_job_that_comes_back_again_and_again_keeps_its_last_claims_only(self, house: House) -> None:
        job_id = await house.submit()
        for _ in range(ATTEMPTS_KEPT + 3):
            await house.end(await house.claim_one(job_id), Again(failure=None, counted=False))
        kept = (await house.job(job_id)).attempts
        assert [attempt.number for attempt in kept] == list(range(4, ATTEMPTS_KEPT + 4))
        assert (await house.claim_one(job_id)).history == kept

    async def test_a_job_that_waits_for_something_wakes_by_itself_or_when_told(self, house: House) -> None:
        timed, told = await house.submit(), await house.submit()
        leases = await house.claim(2)
        await house.end(leases[0], Hold(reason="quota", until=20.0))
        await house.end(leases[1], Hold(reason="a person"))
        assert ((await house.job(timed)).state, (await house.job(told)).waiting_for) == (JobState.WAITING, "a person")
        await house.pass_time(19.0)
        assert await house.claim(2) == ()
        await house.pass_time(2.0)
        assert [lease.job_id for lease in await house.claim(2)] == [timed]
        assert await house.desk.wake(told, operation="w") is JobState.READY
        assert (await house.claim_one(told)).attempts_used == 0

    async def test_what_can_never_work_is_dead_with_its_words(self, house: House) -> None:
        job_id = await house.submit()
        words = Failure(class_=FailureClass.REFUSED, message="not in this house", details={"status": 200})
        await house.end(await house.claim_one(job_id), Die(failure=words))
        job = await house.job(job_id)
        assert (job.state, len(job.attempts), job.attempts[0].counted) == (JobState.DEAD, 1, True)
        assert job.error is not None
        assert (job.error.class_, job.error.message, job.error.details) == (
            "refused",
            "not in this house",
            {"status": 200},
        )

    async def test_every_settlement_of_a_batch_is_judged_by_itself(self, house: House) -> None:
        ids = await house.submit_many(3)
        leases = await house.claim(3)
        await house.end(leases[1])
        answers = [await house.end(leases[0]), await house.end(leases[1], Stopped()), await house.end(leases[2])]
        assert [answer.accepted for answer in answers] == [True, False, True]
        assert [await house.state(one) for one in ids] == [JobState.SUCCEEDED] * 3

    async def test_a_success_after_a_cancel_request_ends_cancelled_and_records_nothing(self, house: House) -> None:
        job_id = await house.submit()
        lease = await house.claim_one(job_id)
        await house.desk.cancel(job_id, operation="c")
        settled = await house.end(lease, Succeed(result=Raw(b'"too late"')))
        assert (settled.accepted, settled.state) == (True, "cancelled")
        job = await house.job(job_id)
        assert (job.state, job.result) == (JobState.CANCELLED, null_json())

    @pytest.mark.parametrize("ending", [Again(failure=TRANSIENT), Hold(reason="x"), Die(failure=TRANSIENT), Stopped()])
    async def test_whatever_ends_an_attempt_that_was_asked_to_stop_the_job_is_cancelled(
        self, house: House, ending: Ending
    ) -> None:
        job_id = await house.submit()
        lease = await house.claim_one(job_id)
        await house.desk.cancel(job_id, operation="c")
        assert (await house.end(lease, ending)).state == "cancelled"
        assert await house.claim() == ()

    async def test_attempts_are_append_only(self, house: House) -> None:
        job_id = await house.submit()
        await house.fail(await house.claim_one(job_id))
        first = (await house.job(job_id)).attempts
        await house.fail(await house.claim_one(job_id, worker="w2"))
        both = (await house.job(job_id)).attempts
        assert both[:1] == first
        assert [attempt.worker for attempt in both] == ["w1", "w2"]


def _offers(kind: str) -> tuple[Offer, ...]:
    return (Offer(kinds=(kind,)),)
