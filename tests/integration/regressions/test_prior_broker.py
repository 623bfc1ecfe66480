"""Each defect of the broker that Hostler replaces, as a test that it would fail, against the real engine."""

import asyncio
from datetime import UTC, timedelta

import msgspec
import pytest
from msgspec import Raw

from hostler.contracts.api import JobFilter
from hostler.contracts.job import JobRequest, JobState
from hostler.contracts.lease import Again, Succeed
from hostler.contracts.offer import Offer, Pool
from hostler.kernel.errors import InvalidError, TooLargeError
from hostler.policy.lanes import shun
from hostler.testing.broker import House
from hostler.testing.broker_house import KIND, OFFERS, QUEUE, ref, request, slots

# order


@pytest.mark.row("002:9", "000:5")
async def test_a_retry_of_an_urgent_job_does_not_starve_behind_fresh_ones(house: House) -> None:
    urgent = await house.submit(priority=90)
    lease = await house.claim_one(urgent)
    await house.advance(3_600.0)
    fresh = [await house.submit(priority=10) for _ in range(20)]
    await house.fail(lease)
    assert await house.drain_line() == [urgent, *fresh]


@pytest.mark.row("002:9", "000:5")
@pytest.mark.parametrize("priority", [0, 50, 100])
async def test_equal_jobs_stay_in_order_where_doubles_lose_their_last_digits(house: House, priority: int) -> None:
    ids: list[str] = []
    for _ in range(30):
        await house.advance(0.000001)
        ids.append(await house.submit(priority=priority))
    assert await house.drain_line() == ids


@pytest.mark.row("000:5")
async def test_a_hundred_unservable_jobs_at_the_head_hide_nothing(house: House) -> None:
    await house.submit_many(100, priority=100, needs={"service": "nowhere"})
    servable = await house.submit(priority=0)
    await house.claim_one(servable)


# matching


@pytest.mark.row("000:5")
async def test_a_deny_list_holds_although_the_job_asks_for_nothing_else(house: House) -> None:
    denied = [Offer(kinds=(KIND,), labels={"customer": "rival"})]
    job_id = await house.submit(avoid={"labels": {"customer": "rival"}})
    assert await house.claim(offers=denied) == ()
    await house.claim_one(job_id, offers=OFFERS)


@pytest.mark.row("000:5")
async def test_an_unwanted_value_alone_neither_blocks_a_job_for_ever_nor_lets_it_through(house: House) -> None:
    gold = [Offer(kinds=(KIND,), labels={"tier": "gold"})]
    silver = [Offer(kinds=(KIND,), labels={"tier": "silver"})]
    job_id = await house.submit(avoid={"labels": {"tier": "gold"}})
    assert await house.claim(offers=gold) == ()
    await house.claim_one(job_id, offers=silver)


@pytest.mark.row("002:108")
@pytest.mark.parametrize(
    "body",
    [
        b'{"kind":"work","needs":"80 GB"}',
        b'{"kind":"work","needs":{"quality_level":"high"}}',
        b'{"kind":"work","needs":{"timeout_minutes":5}}',
        b'{"kind":"work","needs":{"amounts":{"gpu_memory":"all"}}}',
        b'{"kind":"work","needs":{"amounts":{"gpu_memory":-1}}}',
        b'{"kind":"work","needs":{"models":"sdxl"}}',
        b'{"kind":"work","avoid":[]}',
        b'{"kind":"work","needs":null}',
    ],
)
def test_malformed_needs_are_refused_and_never_taken_as_none(body: bytes) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(body, type=JobRequest)


@pytest.mark.row("002:108")
async def test_a_version_that_cannot_be_judged_is_refused_with_its_field(house: House) -> None:
    with pytest.raises(InvalidError) as refused:
        await house.submit(needs={"versions": {"comfyui": "the newest"}})
    assert refused.value.facts["field"] == "needs.versions.comfyui"


@pytest.mark.row("000:5")
async def test_an_amount_that_a_worker_does_not_know_is_not_ignored(house: House) -> None:
    job_id = await house.submit(needs={"amounts": {"storage": 100}})
    assert await house.claim() == ()
    roomy = [Offer(kinds=(KIND,), pools={"storage": Pool(id="disk", total=500)})]
    await house.claim_one(job_id, offers=roomy)


@pytest.mark.row("000:5")
async def test_a_job_that_no_worker_fits_is_named_within_five_seconds(house: House) -> None:
    await house.hire("w1", offers=[Offer(kinds=(KIND,), service="simulationx")])
    job_id = await house.submit(needs={"service": "simulation"})
    await house.pass_time(4.0)
    why = await house.desk.explain(job_id)
    assert why.unworkable
    assert [(need.key, need.wanted, need.lacking[0].has) for need in why.needs] == [
        ("service", "simulation", "simulationx")
    ]


@pytest.mark.row("000:5")
async def test_the_worker_that_failed_does_not_get_the_job_straight_back(house: House) -> None:
    await house.hire("w1")
    await house.hire("w2")
    job_id = await house.submit()
    lease = await house.claim_one(job_id, worker="w1")
    await house.fail(lease, lane=shun(lease.lane, "w1"))
    assert await house.claim(worker="w1") == ()
    await house.claim_one(job_id, worker="w2")


# one worker, one job


@pytest.mark.row("000:61", "001:62")
async def test_twenty_claims_at_once_of_a_worker_with_one_slot_give_one_job(house: House) -> None:
    await house.submit_many(20)
    claims = await asyncio.gather(*(house.claim(3, pools=slots("w1", 1)) for _ in range(20)))
    assert sum(map(len, claims)) == 1
    assert (await house.foreman.stats(QUEUE)).running == 1


@pytest.mark.row("001:59", "000:32")
async def test_fifty_racing_workers_never_share_a_job(house: House) -> None:
    await house.submit_many(1_000)
    claims = await asyncio.gather(*(house.claim(20, worker=f"w{n}") for n in range(50)))
    got = [lease.job_id for leases in claims for lease in leases]
    assert len(got) == len(set(got)) == 1_000


@pytest.mark.row("001:158")
async def test_a_claim_beyond_what_the_worker_can_spare_drops_nothing_on_the_floor(house: House) -> None:
    await house.submit_many(5)
    assert len(await house.claim(5, pools=slots("w1", 5, free=2))) == 2
    stats = await house.foreman.stats(QUEUE)
    assert (stats.ready, stats.running) == (3, 2)


@pytest.mark.row("001:170")
async def test_running_jobs_say_who_runs_them_since_when(house: House) -> None:
    job_id = await house.submit()
    await house.claim_one(job_id, worker="w7")
    (job,), _ = await house.desk.find(JobFilter(queue=QUEUE, states=(JobState.RUNNING,)))
    assert (job.id, job.worker, job.started_at) == (job_id, "w7", house.now())
    assert job.started_at is not None
    assert job.started_at.tzinfo is UTC


# what is lost


@pytest.mark.row("000:62", "003:344")
async def test_the_jobs_of_a_dead_machine_come_back_without_anybody_asking(house: House) -> None:
    ids = await house.submit_many(5)
    await house.claim(5, worker="dead")
    await house.pass_time(12.0)
    assert [lease.job_id for lease in await house.claim(5, worker="alive")] == ids


@pytest.mark.row("002:203", "001:384")
async def test_a_late_worker_does_not_overwrite_the_result_of_the_new_owner(house: House) -> None:
    job_id = await house.submit()
    late = await house.claim_one(job_id, worker="late")
    await house.pass_time(12.0)
    owner = await house.claim_one(job_id, worker="owner")
    assert (await house.end(owner, Succeed(result=Raw(b'"new"')))).accepted
    assert not (await house.end(late, Succeed(result=Raw(b'"old"')))).accepted
    assert bytes((await house.job(job_id)).result) == b'"new"'


@pytest.mark.row("000:97")
async def test_nobody_completes_a_job_without_its_lease(house: House) -> None:
    job_id = await house.submit()
    lease = await house.claim_one(job_id, worker="w1")
    forged = await house.end(lease, Succeed(result=Raw(b'"made up"')), worker="health-monitor")
    assert not forged.accepted
    assert (await house.job(job_id)).state is JobState.RUNNING


@pytest.mark.row("000:50")
async def test_a_pause_of_the_broker_leaves_no_ghost_lease_and_blames_no_worker(house: House) -> None:
    ids = await house.submit_many(3)
    leases = await house.claim(3)
    await house.tick()
    await house.restart()
    await house.advance(60.0)
    await house.tick()
    assert (await house.broker.renew("w1", [ref(lease) for lease in leases[:2]])).lost == ()
    assert (await house.end(leases[0])).accepted
    for _ in range(12):
        await house.pass_time(0.5)
        await house.broker.renew("w1", [ref(leases[1])])
    assert await house.state(ids[1]) is JobState.RUNNING
    await house.end(leases[1])
    again = await house.claim_one(ids[2], worker="w2")
    assert again.crashes == 0
    await house.end(again)
    assert (await house.foreman.stats(QUEUE)).running == 0
    assert await house.foreman.audit(QUEUE) == ()


@pytest.mark.row("003:344")
async def test_an_acknowledged_job_is_there_after_the_engine_was_killed(house: House) -> None:
    ids = await house.submit_many(50)
    await house.restart()
    assert await house.drain_line() == ids


# endings


@pytest.mark.row("002:21")
async def test_a_worker_that_stops_gives_its_job_back_unharmed(house: House) -> None:
    job_id = await house.submit("once")
    lease = await house.claim_one(job_id)
    await house.end(lease, Again(failure=None, counted=False))
    assert (await house.claim_one(job_id)).attempts_used == 0


@pytest.mark.row("001:384")
async def test_a_cancelled_job_is_cancelled_not_failed_and_never_completes(house: House) -> None:
    job_id = await house.submit()
    lease = await house.claim_one(job_id)
    await house.desk.cancel(job_id, operation="c")
    assert (await house.broker.renew("w1", [ref(lease)])).cancelled == (ref(lease),)
    await house.end(lease, Succeed())
    assert await house.state(job_id) is JobState.CANCELLED
    assert "finish" not in await house.types(job_id)


@pytest.mark.row("001:77")
async def test_each_failed_attempt_is_one_event_and_only_the_last_one_says_dead(house: House) -> None:
    await house.kind("twice", retry={"attempts": 2})
    job_id = await house.submit("twice")
    for _ in range(2):
        await house.fail(await house.claim_one(job_id, offers=[Offer(kinds=("twice",))]))
    assert await house.types(job_id) == ["submit", "claim", "retry", "claim", "fail"]
    events = (await house.desk.timeline(job_id)).events
    assert [event.state for event in events] == ["ready", "running", "ready", "running", "dead"]


@pytest.mark.row("001:77")
async def test_an_event_says_the_state_that_was_committed_with_it(house: House) -> None:
    job_id = await house.submit()
    await house.end(await house.claim_one(job_id), Succeed(result=Raw(b"1")))
    last = (await house.desk.timeline(job_id)).events[-1]
    assert (last.type, last.state) == ("finish", JobState.SUCCEEDED)
    assert await house.state(job_id) is JobState.SUCCEEDED


@pytest.mark.row("003:158")
async def test_a_retry_loses_neither_input_priority_nor_history(house: House) -> None:
    job_id = await house.submit(payload={"prompt": "a lighthouse"}, priority=77, labels={"project": "x"})
    before = await house.job(job_id)
    await house.fail(await house.claim_one(job_id))
    await house.fail(await house.claim_one(job_id))
    after = await house.job(job_id)
    assert (after.payload, after.priority, after.labels) == (before.payload, 77, {"project": "x"})
    lease = await house.claim_one(job_id)
    assert [attempt.number for attempt in lease.history] == [1, 2]
    assert bytes(lease.payload) == b'{"prompt":"a lighthouse"}'


@pytest.mark.row("003:156")
async def test_priority_nought_and_a_single_attempt_mean_what_they_say(house: House) -> None:
    job_id = await house.submit("once", priority=0)
    assert (await house.job(job_id)).priority == 0
    await house.fail(await house.claim_one(job_id))
    assert await house.state(job_id) is JobState.DEAD


@pytest.mark.row("002:195", "003:345")
async def test_the_dead_are_listed_with_all_their_attempts_and_can_be_replayed(house: House) -> None:
    job_id = await house.dead()
    (job,), _ = await house.desk.find(JobFilter(queue=QUEUE, states=(JobState.DEAD,)))
    assert (job.id, len(job.attempts), job.error is not None) == (job_id, 1, True)
    await house.desk.replay(job_id, operation="r")
    await house.end(await house.claim_one(job_id))
    assert await house.state(job_id) is JobState.SUCCEEDED


# looking


@pytest.mark.row("000:60")
async def test_a_list_is_filtered_before_it_is_cut_into_pages(house: House) -> None:
    wanted = [await house.submit("draw") for _ in range(3)]
    await house.submit_many(60)
    found: list[str] = []
    cursor: str | None = None
    while True:
        page, cursor = await house.desk.find(JobFilter(queue=QUEUE, kind="draw"), cursor=cursor, limit=2)
        found.extend(job.id for job in page)
        if cursor is None:
            break
    assert found == wanted[::-1]


@pytest.mark.row("000:60")
async def test_totals_count_the_queue_and_not_the_page(house: House) -> None:
    await house.submit_many(60)
    page, _ = await house.desk.find(JobFilter(queue=QUEUE), limit=10)
    assert len(page) == 10
    assert (await house.foreman.stats(QUEUE)).ready == 60


async def test_the_first_in_line_has_the_first_place(house: House) -> None:
    ids = await house.submit_many(2)
    assert [(await house.desk.explain(one)).position for one in ids] == [1, 2]


@pytest.mark.row("000:60")
async def test_states_that_are_shown_are_states_that_exist(house: House) -> None:
    running = await house.submit(priority=100)
    await house.claim_one(running)
    waiting = await house.submit()
    for states, ids in (([JobState.RUNNING], [running]), ([JobState.READY], [waiting]), ([JobState.EXPIRED], [])):
        page, _ = await house.desk.find(JobFilter(queue=QUEUE, states=tuple(states)))
        assert [job.id for job in page] == ids


@pytest.mark.row("002:197")
async def test_a_job_without_an_end_in_time_expires_and_never_starts(house: House) -> None:
    job_id = await house.submit(deadline=house.now() + timedelta(seconds=2))
    await house.advance(3.0)
    assert await house.claim() == ()
    assert await house.state(job_id) is JobState.EXPIRED


async def test_expired_jobs_at_the_head_cost_a_claim_nothing(house: House) -> None:
    for _ in range(20):
        await house.submit(priority=100, deadline=house.now() + timedelta(seconds=2))
    good = await house.submit()
    await house.advance(3.0)
    await house.claim_one(good)


@pytest.mark.row("002:197")
async def test_ended_jobs_are_not_kept_for_ever(house: House) -> None:
    await house.declare(retention={"terminal": 60.0})
    await house.submit_many(5)
    for lease in await house.claim(5):
        await house.end(lease)
    await house.advance(61.0)
    await house.pass_time(2.0)
    assert (await house.desk.find(JobFilter(queue=QUEUE)))[0] == ()


async def test_large_payloads_never_go_through_the_broker(house: House) -> None:
    (refused,) = await house.submit_all([request(payload="x" * 300_000)])
    assert isinstance(refused, TooLargeError)
    assert (await house.foreman.stats(QUEUE)).depth == 0


async def test_workers_of_before_a_restart_do_not_stay_as_phantoms(house: House) -> None:
    await house.hire("ghost", ttl=10.0)
    await house.restart()
    await house.advance(11.0)
    assert await house.registry.workers() == ()
