"""Promises 5, 8 and 9 of a broker: cancel, replay, wake, purge, expiry, and why a job waits."""

from datetime import timedelta

import pytest

from hostler.contracts.explain import Obstacle
from hostler.contracts.failure import Failure, FailureClass
from hostler.contracts.fence import attempt_of
from hostler.contracts.job import JobState
from hostler.contracts.lease import Die, Hold, Stopped
from hostler.contracts.offer import Offer
from hostler.kernel.errors import NotFoundError, StateConflictError
from hostler.testing.broker_house import KIND, OFFERS, QUEUE, House, ref


class CancelPromises:
    """A cancel is final before the work runs, asked of whoever runs it, then enforced."""

    async def test_what_does_not_run_is_cancelled_at_once(self, house: House) -> None:
        ready, scheduled, waiting = await house.submit(), await house.submit(delay=60.0), await house.submit("draw")
        lease = await house.claim_one(waiting, offers=(Offer(kinds=("draw",)),))
        await house.end(lease, Hold(reason="a person"))
        for n, job_id in enumerate((ready, scheduled, waiting)):
            assert await house.desk.cancel(job_id, operation=f"c{n}") is JobState.CANCELLED
        assert await house.claim(5) == ()
        await house.pass_time(61.0)
        assert await house.claim(5) == ()

    async def test_running_work_is_asked_and_ends_cancelled_once_it_says_so(self, house: House) -> None:
        job_id = await house.submit()
        lease = await house.claim_one(job_id)
        assert await house.desk.cancel(job_id, operation="c") is JobState.RUNNING
        assert (await house.job(job_id)).cancel_requested
        assert (await house.broker.renew("w1", [ref(lease)])).cancelled == (ref(lease),)
        assert (await house.end(lease, Stopped())).state == "cancelled"
        job = await house.job(job_id)
        assert (job.state, job.attempts[0].outcome) == (JobState.CANCELLED, "cancel")

    async def test_asking_twice_is_asking_once(self, house: House) -> None:
        job_id = await house.submit()
        lease = await house.claim_one(job_id)
        for operation in ("c1", "c1", "c2"):
            assert await house.desk.cancel(job_id, operation=operation) is JobState.RUNNING
        await house.end(lease, Stopped())
        assert await house.desk.cancel(job_id, operation="c3") is JobState.CANCELLED
        assert (await house.types(job_id)).count("cancel") == 2

    async def test_work_that_does_not_stop_loses_its_lease_after_the_grace(self, house: House) -> None:
        await house.declare(cancel_grace=5.0)
        job_id = await house.submit()
        lease = await house.claim_one(job_id)
        await house.desk.cancel(job_id, operation="c")
        for _ in range(4):
            await house.pass_time(1.0)
            await house.broker.renew("w1", [ref(lease)])
        await house.pass_time(2.0)
        assert await house.state(job_id) is JobState.CANCELLED
        assert (await house.broker.renew("w1", [ref(lease)])).lost == (ref(lease),)
        assert not (await house.end(lease)).accepted

    async def test_a_cancelled_job_whose_worker_died_is_not_run_again(self, house: House) -> None:
        job_id = await house.submit()
        await house.claim_one(job_id)
        await house.desk.cancel(job_id, operation="c")
        await house.pass_time(11.0)
        assert await house.state(job_id) is JobState.CANCELLED

    async def test_a_job_that_ended_otherwise_cannot_be_cancelled(self, house: House) -> None:
        job_id = await house.submit()
        await house.end(await house.claim_one(job_id))
        with pytest.raises(StateConflictError):
            await house.desk.cancel(job_id, operation="c")
        assert await house.state(job_id) is JobState.SUCCEEDED


class ShownPromises:
    """A job says where it runs or ran."""

    async def test_a_job_names_its_last_worker_after_its_end_and_none_while_it_waits(self, house: House) -> None:
        job_id = await house.submit()
        assert (await house.job(job_id)).worker is None
        lease = await house.claim_one(job_id)
        assert (await house.job(job_id)).worker == "w1"
        await house.end(lease, Hold(reason="a person"))
        assert (await house.job(job_id)).worker is None
        await house.desk.wake(job_id, operation="w")
        refused = Failure(class_=FailureClass.REFUSED, message="no")
        await house.end(await house.claim_one(job_id, worker="w2"), Die(failure=refused))
        assert (await house.job(job_id)).worker == "w2"
        await house.desk.replay(job_id, operation="r")
        assert (await house.job(job_id)).worker is None

    async def test_a_job_names_the_service_of_its_kind_from_the_start(self, house: House) -> None:
        await house.kind("served", service="simulation")
        assert (await house.job(await house.submit("served"))).service == "simulation"
        assert (await house.job(await house.submit())).service is None


class AgainPromises:
    """Dead jobs are kept, inspectable, replayable; ended ones can be removed."""

    async def test_a_replay_is_a_new_generation_with_fresh_budgets_and_the_old_history(self, house: House) -> None:
        job_id = await house.dead()
        assert await house.desk.replay(job_id, operation="r") is JobState.READY
        job = await house.job(job_id)
        assert (job.generation, len(job.attempts), job.finished_at) == (2, 1, None)
        lease = await house.claim_one(job_id)
        assert (attempt_of(lease.fence), lease.generation, lease.attempts_used, lease.crashes) == (2, 2, 0, 0)
        await house.fail(lease)
        assert await house.state(job_id) is JobState.DEAD

    async def test_the_same_replay_twice_is_one_replay(self, house: House) -> None:
        job_id = await house.dead()
        for _ in range(2):
            assert await house.desk.replay(job_id, operation="r") is JobState.READY
        assert (await house.job(job_id)).generation == 2
        assert (await house.foreman.stats(QUEUE)).totals["replayed"] == 1

    async def test_only_a_dead_job_is_replayed_and_only_a_sleeping_one_woken(self, house: House) -> None:
        job_id = await house.submit()
        with pytest.raises(StateConflictError):
            await house.desk.replay(job_id, operation="r")
        with pytest.raises(StateConflictError):
            await house.desk.wake(job_id, operation="w")
        await house.end(await house.claim_one(job_id))
        with pytest.raises(StateConflictError):
            await house.desk.replay(job_id, operation="r2")

    async def test_a_scheduled_job_can_be_woken(self, house: House) -> None:
        job_id = await house.submit(delay=3600.0)
        assert await house.desk.wake(job_id, operation="w") is JobState.READY
        await house.claim_one(job_id)

    async def test_a_purged_job_is_gone_with_all_that_was_kept_of_it(self, house: House) -> None:
        job_id = await house.submit(payload="x" * 1000)
        with pytest.raises(StateConflictError):
            await house.desk.purge(job_id, operation="early")
        await house.end(await house.claim_one(job_id))
        await house.desk.purge(job_id, operation="p")
        await house.desk.purge(job_id, operation="p")
        for look in (house.desk.get, house.desk.timeline, house.desk.explain):
            with pytest.raises(NotFoundError):
                await look(job_id)
        stats = await house.foreman.stats(QUEUE)
        assert (stats.kept["succeeded"], stats.totals["purged"], stats.depth, stats.bytes) == (0, 1, 0, 0)


class ExpiryPromises:
    """The deadline travels with the job; a queue wait has an end of its own."""

    async def test_a_job_past_its_deadline_is_never_started(self, house: House) -> None:
        job_id = await house.submit(deadline=house.now() + timedelta(seconds=5))
        await house.advance(5.5)
        assert await house.claim() == ()
        await house.tick()
        assert await house.state(job_id) is JobState.EXPIRED

    async def test_scheduled_waiting_and_running_jobs_expire_too(self, house: House) -> None:
        deadline = house.now() + timedelta(seconds=5)
        running, waiting = await house.submit(deadline=deadline), await house.submit(deadline=deadline)
        scheduled = await house.submit(deadline=deadline, delay=60.0)
        first, second = await house.claim(2)
        await house.end(second, Hold(reason="a person"))
        await house.pass_time(6.0)
        for job_id in (running, waiting, scheduled):
            assert await house.state(job_id) is JobState.EXPIRED
        assert not (await house.end(first)).accepted
        assert (await house.job(running)).attempts[0].outcome == "expire"

    async def test_a_wait_in_the_queue_ends_by_its_timeout_unless_it_was_started(self, house: House) -> None:
        never = await house.submit(timeouts={"queue": 5.0})
        started = await house.submit(timeouts={"queue": 5.0}, priority=60)
        lease = await house.claim_one(started)
        await house.fail(lease)
        await house.pass_time(6.0)
        assert [await house.state(one) for one in (never, started)] == [JobState.EXPIRED, JobState.READY]

    async def test_the_kinds_own_queue_timeout_holds_unless_the_job_has_one(self, house: House) -> None:
        await house.kind("brief", timeouts={"queue": 5.0})
        short, long = await house.submit("brief"), await house.submit("brief", timeouts={"queue": 50.0})
        await house.pass_time(6.0)
        assert [await house.state(one) for one in (short, long)] == [JobState.EXPIRED, JobState.READY]

    async def test_work_that_ended_in_time_does_not_expire(self, house: House) -> None:
        job_id = await house.submit(deadline=house.now() + timedelta(seconds=5))
        await house.end(await house.claim_one(job_id))
        await house.pass_time(6.0)
        assert await house.state(job_id) is JobState.SUCCEEDED


class WhyPromises:
    """Bad needs never wait in silence."""

    async def test_a_job_that_nobody_serves_is_marked_within_five_seconds_and_says_who_lacks_what(
        self, house: House
    ) -> None:
        await house.hire("w1", offers=(Offer(kinds=(KIND,), models=("sdxl",)),))
        job_id = await house.submit(needs={"models": ("flux",)})
        await house.pass_time(4.0)
        assert (await house.job(job_id)).unworkable
        why = await house.desk.explain(job_id)
        assert (why.unworkable, why.state) == (True, JobState.READY)
        (need,) = why.needs
        assert (need.key, list(need.wanted), [held.worker for held in need.lacking]) == ("models", ["flux"], ["w1"])
        assert list(need.lacking[0].has) == ["sdxl"]
        assert (await house.foreman.stats(QUEUE)).unworkable == 1

    async def test_it_is_workable_again_as_soon_as_somebody_serves_it(self, house: House) -> None:
        job_id = await house.submit(needs={"models": ("flux",)})
        await house.pass_time(4.0)
        assert (await house.job(job_id)).unworkable
        offers = (Offer(kinds=(KIND,), models=("flux",)),)
        await house.hire("w2", offers=offers)
        await house.claim_one(job_id, worker="w2", offers=offers)
        assert not (await house.job(job_id)).unworkable
        assert (await house.foreman.stats(QUEUE)).unworkable == 0

    async def test_the_loss_of_the_last_worker_is_known_within_five_seconds(self, house: House) -> None:
        await house.hire("w1", ttl=10.0)
        job_id = await house.submit()
        await house.pass_time(4.0)
        assert not (await house.job(job_id)).unworkable
        await house.pass_time(11.0)
        assert (await house.job(job_id)).unworkable

    async def test_a_worker_with_a_sick_endpoint_serves_nobody(self, house: House) -> None:
        await house.hire("w1", offers=(Offer(kinds=(KIND,), healthy=False),))
        job_id = await house.submit()
        await house.pass_time(4.0)
        assert (await house.job(job_id)).unworkable
        why = await house.desk.explain(job_id)
        assert [need.key for need in why.needs] == ["healthy"]
        assert (why.endpoints, why.kept_out) == (1, {Obstacle.HEALTH: 1})

    async def test_who_has_what_a_job_needs_and_what_keeps_it_from_them_is_said(self, house: House) -> None:
        fit = Offer(kinds=(KIND,), models=("flux",))
        await house.hire("w1", offers=(fit, Offer(kinds=(KIND,), models=("sdxl",))))
        why = await house.desk.explain(await house.submit(needs={"models": ("flux",)}))
        assert [(one.worker, one.hindrances) for one in why.candidates] == [("w1", ())]
        assert why.kept_out == {}

    async def test_a_waiting_job_says_its_place_in_its_tenants_line(self, house: House) -> None:
        await house.hire("w1")
        await house.submit_many(2, tenant="other")
        ids = [await house.submit(priority=priority) for priority in (50, 50, 90)]
        places = [(await house.desk.explain(one)) for one in ids]
        assert [(why.position, why.ahead) for why in places] == [(2, 1), (3, 2), (1, 0)]

    async def test_a_job_that_does_not_wait_in_line_has_no_place(self, house: House) -> None:
        job_id = await house.submit()
        await house.claim_one(job_id)
        why = await house.desk.explain(job_id)
        assert (why.state, why.position, why.ahead, why.needs) == (JobState.RUNNING, None, None, ())

    async def test_a_paused_queue_is_among_the_reasons(self, house: House) -> None:
        await house.hire("w1")
        job_id = await house.submit()
        await house.foreman.pause(QUEUE, operation="p", reason="maintenance")
        assert any("paused" in reason for reason in (await house.desk.explain(job_id)).reasons)

    async def test_what_is_dead_says_why(self, house: House) -> None:
        job_id = await house.submit()
        failure = Failure(class_=FailureClass.INVALID_INPUT, message="no such sampler")
        await house.end(await house.claim_one(job_id, offers=OFFERS), Die(failure=failure))
        why = await house.desk.explain(job_id)
        assert why.state is JobState.DEAD
        assert not why.unworkable
