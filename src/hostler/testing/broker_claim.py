"""Promise 4 of a broker: claims are matched, atomic, in order, and within every amount."""

import asyncio

import msgspec
import pytest

from hostler.contracts.fence import attempt_of
from hostler.contracts.job import JobState
from hostler.contracts.lease import Hold
from hostler.contracts.needs import Avoid, Needs
from hostler.contracts.offer import Offer, Pool
from hostler.policy.lanes import derive, shun
from hostler.testing.broker_house import KIND, OFFERS, QUEUE, House, ref, slots


class OrderPromises:
    """Tenants take turns by weight; inside a tenant the earliest effective arrival goes first."""

    async def test_equal_jobs_go_first_in_first_out(self, house: House) -> None:
        ids = await house.submit_many(30)
        assert await house.drain_line() == ids

    async def test_jobs_of_one_instant_in_different_lanes_keep_their_order(self, house: House) -> None:
        ids = [await house.submit(("work", "draw")[n % 2], needs={"labels": {}}) for n in range(20)]
        assert await house.drain_line() == ids

    async def test_higher_priority_goes_first(self, house: House) -> None:
        low, high, middle = [await house.submit(priority=priority) for priority in (10, 90, 50)]
        assert await house.drain_line() == [high, middle, low]

    async def test_waiting_ages_each_level_of_priority_is_one_head_start(self, house: House) -> None:
        await house.declare(head_start=60.0)
        old = await house.submit(priority=10)
        await house.advance(121.0)
        younger = await house.submit(priority=12)
        much_more_urgent = await house.submit(priority=13)
        assert await house.drain_line() == [much_more_urgent, old, younger]

    async def test_a_retry_keeps_its_place(self, house: House) -> None:
        first = await house.submit(priority=90)
        lease = await house.claim_one(first)
        await house.advance(3600.0)
        fresh = await house.submit(priority=10)
        await house.fail(lease)
        assert await house.drain_line() == [first, fresh]

    async def test_one_claim_of_many_takes_the_best_first(self, house: House) -> None:
        ids = [await house.submit(priority=priority) for priority in (1, 3, 2, 5, 4)]
        assert [lease.job_id for lease in await house.claim(3)] == [ids[3], ids[4], ids[1]]

    async def test_tenants_take_turns(self, house: House) -> None:
        many = await house.submit_many(6, tenant="many")
        few = await house.submit_many(2, tenant="few")
        order = await house.drain_line()
        assert {one in few for one in order[:2]} == {True, False}
        assert {one in few for one in order[2:4]} == {True, False}
        assert [one for one in order if one in many] == many

    async def test_weights_divide_the_turns(self, house: House) -> None:
        await house.declare(weights={"gold": 3})
        gold = await house.submit_many(60, tenant="gold")
        await house.submit_many(60, tenant="plain")
        first_forty = [(await house.claim_one()).job_id for _ in range(40)]
        assert abs(sum(1 for one in first_forty if one in gold) - 30) <= 1

    async def test_a_tenant_that_was_away_saves_up_no_turns(self, house: House) -> None:
        await house.submit_many(20, tenant="busy")
        for _ in range(10):
            await house.claim_one()
        late = await house.submit_many(10, tenant="late")
        order = [(await house.claim_one()).job_id for _ in range(10)]
        assert 4 <= sum(1 for one in order if one in late) <= 6

    async def test_a_thousand_jobs_that_nobody_serves_hide_nothing(self, house: House) -> None:
        await house.submit_many(1000, priority=100, needs={"models": ("nowhere",)})
        servable = await house.submit(priority=0)
        assert (await house.claim_one()).job_id == servable

    async def test_a_tenant_whose_jobs_nobody_serves_delays_no_other(self, house: House) -> None:
        for n in range(20):
            await house.submit(tenant=f"a{n}", needs={"models": ("nowhere",)})
        servable = await house.submit(tenant="z")
        assert await house.drain_line() == [servable]

    async def test_a_claim_finds_what_became_due_without_any_upkeep(self, house: House) -> None:
        job_id = await house.submit(delay=5.0)
        await house.advance(5.1)
        await house.claim_one(job_id)
        assert await house.types(job_id) == ["submit", "wake", "claim"]

    async def test_upkeep_says_when_the_next_delayed_job_may_be_due_and_a_promotion_makes_it_ready(
        self, house: House
    ) -> None:
        await house.tick()
        later, sooner = await house.submit(delay=9.0), await house.submit(delay=5.0)
        await house.advance(1.0)
        report = await house.foreman.tick(QUEUE)
        assert (report.more, report.fresh) == (False, False)
        assert report.due_in == pytest.approx(4.0, abs=0.1)
        assert (await house.foreman.tick(QUEUE)).fresh
        await house.advance(3.0)
        assert await house.foreman.promote(QUEUE) == pytest.approx(1.0, abs=0.1)
        assert await house.state(sooner) is JobState.SCHEDULED
        await house.advance(1.1)
        assert await house.foreman.promote(QUEUE) == pytest.approx(3.9, abs=0.1)
        assert (await house.state(sooner), await house.state(later)) == (JobState.READY, JobState.SCHEDULED)
        await house.advance(4.0)
        assert await house.foreman.promote(QUEUE) is None
        assert await house.types(later) == ["submit", "wake"]

    async def test_a_paused_queue_gives_nothing_and_running_work_goes_on(self, house: House) -> None:
        await house.submit_many(2)
        lease = await house.claim_one()
        await house.foreman.pause(QUEUE, operation="p", reason="maintenance")
        assert await house.claim(5) == ()
        assert (await house.broker.renew("w1", [ref(lease)])).lost == ()
        assert (await house.end(lease)).accepted
        await house.foreman.resume(QUEUE, operation="r")
        assert len(await house.claim(5)) == 1

    async def test_a_draining_queue_gives_nothing(self, house: House) -> None:
        await house.submit()
        await house.foreman.drain(QUEUE, operation="d")
        assert await house.claim() == ()


class MatchPromises:
    """Only who fits gets the job, and who fits is judged by needs and avoid, always."""

    @pytest.mark.parametrize(
        ("needs", "avoid"),
        [
            ({"service": "openai"}, {}),
            ({"models": ["flux"]}, {}),
            ({"labels": {"tier": "silver"}}, {}),
            ({"versions": {"comfyui": ">=0.4"}}, {}),
            ({"isolation": "container"}, {}),
            ({"amounts": {"gpu_memory": 25}}, {}),
            ({}, {"service": "comfyui"}),
            ({}, {"models": ["sdxl"]}),
            ({}, {"labels": {"tier": "gold"}}),
            ({}, {"versions": {"comfyui": "<0.4"}}),
            ({}, {"isolation": "none"}),
            ({}, {"workers": ["w1"]}),
        ],
    )
    async def test_a_worker_that_does_not_fit_gets_nothing_and_one_that_does_gets_it(
        self, house: House, needs: dict[str, object], avoid: dict[str, object]
    ) -> None:
        other = msgspec.structs.replace(
            _OFFER,
            service=str(needs.get("service", "other")),
            models=("flux",),
            labels={"tier": "silver"},
            versions={"comfyui": "0.4"},
            isolation=("container",),
            pools={"gpu_memory": Pool(id="gpu9", total=80)},
        )
        job_id = await house.submit(needs=needs, avoid=avoid)
        assert await house.claim(offers=[_OFFER]) == ()
        await house.claim_one(job_id, worker="w2", offers=[other])

    async def test_the_lease_names_the_offer_that_fits(self, house: House) -> None:
        await house.submit(needs={"models": ("b",)})
        offers = [msgspec.structs.replace(_OFFER, models=(model,)) for model in ("a", "b", "c")]
        assert (await house.claim_one(offers=offers)).offer == 1

    async def test_an_unhealthy_offer_gets_nothing(self, house: House) -> None:
        job_id = await house.submit()
        sick = [msgspec.structs.replace(OFFERS[0], healthy=False)]
        assert await house.claim(offers=sick) == ()
        await house.claim_one(job_id)

    async def test_another_kind_is_never_handed_out(self, house: House) -> None:
        await house.submit("draw")
        assert await house.claim(offers=[Offer(kinds=(KIND,))]) == ()

    async def test_a_job_moved_to_a_lane_without_a_worker_never_comes_back_to_it(self, house: House) -> None:
        job_id = await house.submit()
        lease = await house.claim_one(job_id)
        elsewhere = derive(lease.lane, exclude="w1")
        assert elsewhere is not None
        await house.fail(lease, counted=False, lane=elsewhere)
        assert await house.claim(64) == ()
        await house.claim_one(job_id, worker="w2")

    async def test_a_shunned_worker_gets_the_job_only_when_no_other_fit_one_lives(self, house: House) -> None:
        await house.hire("w1")
        await house.hire("w2")
        job_id = await house.submit()
        lease = await house.claim_one(job_id)
        await house.fail(lease, lane=shun(lease.lane, "w1"))
        assert await house.claim() == ()
        await house.dismiss("w2")
        await house.pass_time(12.0)
        await house.claim_one(job_id)

    async def test_a_shunned_worker_does_not_get_the_job_back_before_another_one_has_looked(self, house: House) -> None:
        other = [msgspec.structs.replace(OFFERS[0], labels={"room": "other"})]
        await house.hire("w1")
        await house.hire("w2", offers=other)
        job_id = await house.submit()
        lease = await house.claim_one(job_id)
        await house.fail(lease, lane=shun(lease.lane, "w1"))
        assert await house.claim() == ()
        await house.claim_one(job_id, worker="w2", offers=other)

    async def test_a_lease_carries_what_its_worker_needs_to_run_it(self, house: House) -> None:
        job_id = await house.submit(payload={"n": 1}, tenant="blue", labels={"a": "b"}, timeouts={"run": 7.0})
        lease = await house.claim_one(job_id, lease_s=20.0)
        assert (bytes(lease.payload), lease.tenant, lease.labels) == (b'{"n":1}', "blue", {"a": "b"})
        assert (lease.timeouts.run, attempt_of(lease.fence), lease.generation) == (7.0, 1, 1)
        assert (lease.attempts_used, lease.attempts_max, lease.crashes, lease.overloads) == (0, 5, 0, 0)
        assert lease.lease_s == 20.0
        assert (lease.expires_at - lease.now).total_seconds() == pytest.approx(20.0)
        assert (lease.lane.kind, lease.lane.needs, lease.lane.avoid) == (
            KIND,
            Needs(amounts={"slots": 1.0}),
            Avoid(),
        )
        job = await house.job(job_id)
        assert (job.state, job.worker, job.attempt, job.started_at) == (JobState.RUNNING, "w1", 1, lease.now)

    async def test_fifty_racing_claimers_share_out_each_job_once(self, house: House) -> None:
        ids = await house.submit_many(200)
        claims = await asyncio.gather(*(house.claim(5, worker=f"r{n}") for n in range(50)))
        got = [lease.job_id for leases in claims for lease in leases]
        assert sorted(got) == sorted(ids)

    async def test_the_same_operation_returns_only_leases_that_are_still_held(self, house: House) -> None:
        await house.submit_many(3)
        first = await house.claim(2, operation="again")
        assert [ref(lease) for lease in await house.claim(2, operation="again")] == [ref(lease) for lease in first]
        await house.end(first[0])
        assert [ref(lease) for lease in await house.claim(2, operation="again")] == [ref(first[1])]
        assert (await house.foreman.stats(QUEUE)).running == 1

    async def test_a_limit_of_nothing_tells_what_an_operation_was_given_and_ends_it(self, house: House) -> None:
        await house.submit_many(3)
        (given,) = await house.claim(1, operation="first")
        assert [ref(lease) for lease in await house.claim(0, operation="first")] == [ref(given)]
        assert await house.claim(0, operation="never sent") == ()
        assert await house.claim(1, operation="never sent") == (), "a try that was on its way for long comes too late"
        assert len(await house.claim(2, operation="another")) == 2


class AmountPromises:
    """A worker never holds more than its slots and amounts, whoever shares them."""

    async def test_a_worker_with_one_slot_gets_one_job_however_often_it_asks(self, house: House) -> None:
        await house.submit_many(30)
        one = slots("w1", 1)
        claims = await asyncio.gather(*(house.claim(3, pools=one) for _ in range(20)))
        (lease,) = [lease for leases in claims for lease in leases]
        assert await house.claim(pools=one) == ()
        await house.end(lease)
        assert len(await house.claim(3, pools=one)) == 1

    async def test_two_workers_in_front_of_one_gpu_share_it(self, house: House) -> None:
        gpu = [msgspec.structs.replace(OFFERS[0], pools={"gpu_memory": Pool(id="gpu0", total=24)})]
        await house.submit_many(5, needs={"amounts": {"gpu_memory": 10}})
        first = await house.claim(5, worker="w1", offers=gpu)
        assert len(first) == 2
        assert await house.claim(5, worker="w2", offers=gpu) == ()
        await house.end(first[0])
        assert len(await house.claim(5, worker="w2", offers=gpu)) == 1

    async def test_every_ending_gives_the_amounts_back(self, house: House) -> None:
        one = slots("w1", 1)
        for way in ("finish", "retry", "reap", "cancel"):
            job_id = await house.submit()
            lease = await house.claim_one(job_id, pools=one)
            if way == "finish":
                await house.end(lease)
            elif way == "retry":
                await house.fail(lease, delay=FAR)
            elif way == "reap":
                await house.pass_time(11.0)
                await house.desk.cancel(job_id, operation="after the reap")
            else:
                await house.desk.cancel(job_id, operation="while it runs")
                await house.end(lease)
        assert len(await house.claim(pools=one)) == 0
        await house.submit()
        assert len(await house.claim(pools=one)) == 1

    async def test_what_a_worker_can_spare_bounds_the_claim_below_its_total(self, house: House) -> None:
        await house.submit_many(5)
        assert len(await house.claim(5, pools=slots("w1", 5, free=2))) == 2

    async def test_a_job_that_takes_two_slots_takes_two(self, house: House) -> None:
        await house.submit_many(3, needs={"amounts": {"slots": 2}})
        assert len(await house.claim(5, pools=slots("w1", 5))) == 2

    async def test_a_fraction_of_an_amount_is_enough_for_many(self, house: House) -> None:
        half = {**slots("w1", 64), "cpu": Pool(id="w1", total=2)}
        await house.submit_many(6, needs={"amounts": {"cpu": 0.5}})
        assert len(await house.claim(6, pools=half)) == 4

    async def test_a_big_job_is_not_starved_by_small_ones(self, house: House) -> None:
        await house.declare(reserve_after=30.0)
        four = slots("w1", 4)
        small = [*await house.submit_many(3)]
        running = list(await house.claim(4, pools=four))
        big = await house.submit(needs={"amounts": {"slots": 4}})
        await house.submit_many(40)
        await house.advance(31.0)
        for _ in range(12):
            running.extend(await house.claim(4, pools=four))
            if any(lease.job_id == big for lease in running):
                break
            await house.end(running.pop(0))
            for lease in running:
                await house.broker.renew("w1", [ref(lease)])
        assert any(lease.job_id == big for lease in running)
        assert small

    async def test_before_that_wait_small_jobs_pass_a_big_one(self, house: House) -> None:
        await house.declare(reserve_after=30.0)
        two = slots("w1", 2)
        await house.submit()
        await house.claim_one(pools=two)
        await house.submit(needs={"amounts": {"slots": 2}})
        small = await house.submit()
        await house.claim_one(small, pools=two)


class KeyPromises:
    """Jobs with one concurrency key never run at the same time."""

    async def test_two_jobs_of_one_key_never_run_together(self, house: House) -> None:
        first, second = [await house.submit(concurrency_key="k") for _ in range(2)]
        other = await house.submit(concurrency_key="l")
        leases = await house.claim(5)
        assert [lease.job_id for lease in leases] == [first, other]
        assert await house.claim(5) == ()
        await house.end(leases[0])
        await house.claim_one(second)

    async def test_the_limit_of_a_key_is_the_queues(self, house: House) -> None:
        await house.declare(limits={"key_running": 2})
        for _ in range(3):
            await house.submit(concurrency_key="k")
        assert len(await house.claim(5)) == 2

    @pytest.mark.parametrize("way", ["retry", "reap", "hold", "fail", "cancel"])
    async def test_a_key_is_free_again_however_the_attempt_ends(self, house: House, way: str) -> None:
        first = await house.submit("once" if way == "fail" else KIND, concurrency_key="k", priority=60)
        second = await house.submit(concurrency_key="k")
        lease = await house.claim_one(first)
        if way == "retry":
            await house.fail(lease, delay=FAR)
        elif way == "reap":
            await house.pass_time(11.0)
            await house.desk.cancel(first, operation="c")
        elif way == "hold":
            await house.end(lease, _HOLD)
        elif way == "fail":
            await house.fail(lease)
        else:
            await house.desk.cancel(first, operation="c")
            await house.end(lease)
        await house.claim_one(second)

    async def test_cancelled_and_expired_jobs_of_a_key_block_nobody(self, house: House) -> None:
        first, second, third = [await house.submit(concurrency_key="k") for _ in range(3)]
        await house.desk.cancel(first, operation="1")
        await house.desk.cancel(second, operation="2")
        await house.claim_one(third)

    async def test_a_job_of_a_key_that_nobody_serves_blocks_no_other_of_it(self, house: House) -> None:
        await house.submit(concurrency_key="k", needs={"models": ("nowhere",)}, priority=100)
        servable = await house.submit(concurrency_key="k")
        await house.claim_one(servable)

    async def test_a_big_job_whose_key_is_taken_keeps_no_room_for_itself(self, house: House) -> None:
        await house.declare(reserve_after=30.0)
        first = await house.submit(concurrency_key="k")
        await house.submit(concurrency_key="k", needs={"amounts": {"slots": 2}})
        other = await house.submit()
        await house.pass_time(31.0)
        leases = await house.claim(3, pools=slots("w1", 2))
        assert [lease.job_id for lease in leases] == [first, other]

    async def test_a_key_with_a_thousand_jobs_hides_no_other_work(self, house: House) -> None:
        await house.submit_many(300, concurrency_key="k", priority=90)
        other = await house.submit()
        assert other in [lease.job_id for lease in await house.claim(5)]


_HOLD = Hold(reason="a person")
FAR = 100_000.0
_OFFER = Offer(
    kinds=(KIND,),
    service="comfyui",
    models=("sdxl",),
    labels={"tier": "gold"},
    versions={"comfyui": "0.3.40"},
    pools={"gpu_memory": Pool(id="gpu0", total=24)},
)
