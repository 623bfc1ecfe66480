"""A queue in three shards is one queue to whoever submits, looks, operates and follows."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator
from itertools import count

import pytest

from hostler.broker.desk import EngineDesk
from hostler.contracts.api import JobFilter
from hostler.contracts.event import Event
from hostler.contracts.job import Job, JobState, Submitted
from hostler.contracts.lease import Die, Lease
from hostler.contracts.queue import KindSpec, Limits, QueueSpec
from hostler.kernel.errors import IdempotencyConflictError, InvalidError, QueueFullError, UnknownQueueError, reroutable
from hostler.policy.sharding import home_of, shard_for
from hostler.testing.broker_house import TRANSIENT
from hostler.testing.eventually import eventually
from hostler.testing.front import Front, request
from hostler.valkeyio.engine import Engine
from hostler.valkeyio.slots import slot_of

SHARDS = ("images~0", "images~1", "images~2")
PLACES = ("images", "images~1", "images~2")


@pytest.fixture
async def front(engine: Engine) -> AsyncGenerator[Front]:
    found = Front(engine)
    await found.foreman.declare_queue(QueueSpec(name="images", shards=3))
    await found.foreman.declare_kind(KindSpec(name="draw", queue="images"))
    await found.hire()
    yield found
    for place in PLACES:
        assert await found.foreman.audit("images") == (), place
    assert await found.leaked() == []
    await found.aclose()


def place_in(job: str) -> str:
    return job.rpartition(".")[0]


async def one_each(front: Front) -> dict[str, str]:
    """Submit until every shard has got a job of this call; return the first of each by its place."""
    found: dict[str, str] = {}
    while len(found) < len(PLACES):
        job = await front.submit()
        found.setdefault(place_in(job), job)
    return found


async def claim_all(front: Front, limit: int = 64) -> list[Lease]:
    return [lease for shard in SHARDS for lease in await front.claim(limit, queue=shard)]


async def events(front: Front, shard: str) -> tuple[Event, ...]:
    return (await front.desk.events(shard, after=0)).events


async def listed(front: Front, which: JobFilter, limit: int) -> list[Job]:
    found: list[Job] = []
    cursor: str | None = None
    while True:
        jobs, cursor = await front.desk.find(which, cursor=cursor, limit=limit)
        found += jobs
        if cursor is None:
            return found


async def test_shards_lie_in_slots_of_their_own() -> None:
    assert len({slot_of(f"{{{place}}}") for place in PLACES}) == 3


async def test_jobs_of_one_ordering_key_lie_in_one_shard_one_runs_at_a_time_and_in_their_order(front: Front) -> None:
    keys = [f"user-{number}" for number in range(12)]
    sent = [await front.submit(concurrency_key=key) for _ in range(4) for key in keys]
    by_key = {key: sent[place :: len(keys)] for place, key in enumerate(keys)}
    assert {key: {place_in(job) for job in jobs} for key, jobs in by_key.items()} == {
        key: {PLACES[shard_for(f"concurrency:{key}", 3)]} for key in keys
    }
    assert {place_in(job) for job in sent} == set(PLACES), "keys are spread"
    key_of = {job: key for key, jobs in by_key.items() for job in jobs}
    ended: dict[str, list[str]] = {key: [] for key in keys}
    while leases := await claim_all(front):
        running = Counter(key_of[lease.job_id] for lease in leases)
        assert set(running.values()) == {1}, "one of a key at a time"
        for lease in leases:
            assert lease.queue == "images"
            assert (await front.end(lease)).accepted
            ended[key_of[lease.job_id]].append(lease.job_id)
    assert ended == by_key


async def test_two_gateways_find_the_same_job_by_its_idempotency_key(front: Front) -> None:
    other = EngineDesk(front.engine)
    first = [await front.submit(idempotency_key=f"order-{number}") for number in range(12)]
    again = await other.submit(
        [request(idempotency_key=f"order-{number}") for number in range(12)], operation="the-other-gateway"
    )
    assert [one for one in again if isinstance(one, Submitted) and not one.created] == list(again)
    assert [one.id for one in again if isinstance(one, Submitted)] == first
    assert {place_in(job) for job in first} == set(PLACES)
    (conflict,) = await front.answers(request(idempotency_key="order-1", payload="another body"))
    assert isinstance(conflict, IdempotencyConflictError)
    await other.aclose()


async def test_jobs_without_a_key_are_spread_evenly_and_an_operation_finds_its_own_through_any_gateway(
    front: Front,
) -> None:
    other = EngineDesk(front.engine)
    sent = [await front.desk.submit([request()], operation=f"op-{number}") for number in range(150)]
    again = [await other.submit([request()], operation=f"op-{number}") for number in range(150)]
    assert again == sent
    found = Counter(place_in(one.id) for (one,) in sent if isinstance(one, Submitted))
    assert found.keys() == set(PLACES)
    assert all(30 <= number <= 70 for number in found.values()), found
    assert (await front.foreman.stats("images")).depth == 150
    await other.aclose()


async def test_jobs_of_one_call_are_answered_in_its_order_whatever_shards_they_go_to(front: Front) -> None:
    asked = [request(concurrency_key=f"user-{number % 7}" if number % 2 else None) for number in range(250)]
    answers = await front.desk.submit(asked, operation="many")
    assert await front.desk.submit(asked, operation="many") == answers
    for wanted, answer in zip(asked, answers, strict=True):
        assert isinstance(answer, Submitted)
        key = wanted.concurrency_key
        assert key is None or place_in(answer.id) == PLACES[shard_for(f"concurrency:{key}", 3)]
    kept = {job.id: job for job in await listed(front, JobFilter(queue="images"), 100)}
    assert len({answer.id for answer in answers if isinstance(answer, Submitted)}) == len(kept) == 250


async def test_counters_are_the_sums_of_the_shards_and_each_is_shown(front: Front) -> None:
    await one_each(front)
    await front.submit(delay=3600.0)
    for lease in (await claim_all(front))[:2]:
        await front.end(lease)
    whole = await front.foreman.stats("images")
    parts = [await front.foreman.stats(shard) for shard in SHARDS]
    assert [part.name for part in whole.shards] == list(SHARDS)
    assert [part.totals for part in whole.shards] == [part.totals for part in parts]
    for name in ("ready", "scheduled", "running", "waiting", "depth", "bytes", "offset", "lanes"):
        assert getattr(whole, name) == sum(getattr(part, name) for part in parts), name
    assert whole.totals == {name: sum(part.totals[name] for part in parts) for name in whole.totals}
    assert (whole.kept["succeeded"], whole.workers) == (2, 1)
    assert whole.totals["submitted"] == sum(whole.kept.values()) + whole.depth
    with pytest.raises(UnknownQueueError, match="images has no shard images~3; it has images~0, images~1, images~2"):
        await front.foreman.stats("images~3")


async def test_pause_resume_and_drain_reach_every_shard(front: Front) -> None:
    await one_each(front)
    await front.foreman.pause("images", operation=front.operation(), reason="lunch")
    stats = await front.foreman.stats("images")
    assert (stats.paused, stats.reason, await claim_all(front)) == (True, "lunch", [])
    await front.foreman.resume("images", operation=front.operation())
    assert {place_in(lease.job_id) for lease in await claim_all(front, 1)} == set(PLACES)
    await front.foreman.drain("images", operation=front.operation())
    assert (await front.foreman.stats("images")).draining
    answers = [answer for _ in range(6) for answer in await front.answers(request())]
    assert all(isinstance(answer, Exception) for answer in answers)


async def test_a_shard_that_takes_nothing_refuses_what_is_led_there_and_says_that_another_may(front: Front) -> None:
    await front.foreman.drain("images~1", operation=front.operation(), reason="it is to go")
    whole = await front.foreman.stats("images")
    assert [shard.draining for shard in whole.shards] == [False, True, False]
    assert not whole.draining
    answers = [answer for _ in range(60) for answer in await front.answers(request())]
    refused = [answer for answer in answers if not isinstance(answer, Submitted)]
    assert {place_in(answer.id) for answer in answers if isinstance(answer, Submitted)} == {"images", "images~2"}
    assert refused
    assert all(map(reroutable, refused))
    key = next(f"k{number}" for number in count() if shard_for(f"concurrency:k{number}", 3) == 1)
    (keyed,) = await front.answers(request(concurrency_key=key))
    assert isinstance(keyed, Exception)
    assert not reroutable(keyed), "it has to be there"


async def test_limits_are_shared_out(front: Front) -> None:
    await front.foreman.declare_queue(QueueSpec(name="images", shards=3, limits=Limits(depth=6)))
    answers = [answer for _ in range(60) for answer in await front.answers(request())]
    stored = Counter(place_in(answer.id) for answer in answers if isinstance(answer, Submitted))
    assert stored == dict.fromkeys(PLACES, 2)
    full = next(answer for answer in answers if isinstance(answer, QueueFullError))
    assert "share of depth" in full.message
    assert full.facts["queue"] == "images"


async def test_a_list_goes_over_all_shards_newest_first_and_holds_its_place_in_each(front: Front) -> None:
    sent = [await front.submit(concurrency_key=f"user-{number}") for number in range(40)]
    pages = await listed(front, JobFilter(queue="images"), 7)
    assert [job.id for job in pages] == sent[::-1]
    assert {job.queue for job in pages} == {"images"}
    for shard, place in zip(SHARDS, PLACES, strict=True):
        mine = [job for job in sent[::-1] if place_in(job) == place]
        assert [job.id for job in await listed(front, JobFilter(queue=shard), 3)] == mine
    assert [job.id for job in await listed(front, JobFilter(), 9)] == sent[::-1]


async def test_a_page_that_was_begun_before_a_submit_is_gone_on_with_as_if_there_was_none(front: Front) -> None:
    sent = [await front.submit() for _ in range(20)]
    first, cursor = await front.desk.find(JobFilter(queue="images"), limit=8)
    for _ in range(6):
        await front.submit()
    rest, _ = await front.desk.find(JobFilter(queue="images"), cursor=cursor, limit=100)
    assert [job.id for job in (*first, *rest)] == sent[::-1]


async def test_the_dead_of_all_shards_are_listed_replayed_and_purged_by_id(front: Front) -> None:
    jobs = await one_each(front)
    for lease in await claim_all(front):
        await front.end(lease, Die(failure=TRANSIENT))
    dead = await listed(front, JobFilter(queue="images", states=(JobState.DEAD,)), 2)
    assert jobs.items() <= {place_in(job.id): job.id for job in dead}.items() or len(dead) > 3
    for number, job in enumerate(dead):
        if number % 2:
            assert await front.desk.replay(job.id, operation=front.operation()) is JobState.READY
        else:
            await front.desk.purge(job.id, operation=front.operation())
    left = await listed(front, JobFilter(queue="images"), 50)
    assert {job.id for job in left} == {job.id for number, job in enumerate(dead) if number % 2}
    assert {job.state for job in left} == {JobState.READY}


async def test_upkeep_of_the_queue_is_upkeep_of_every_shard(front: Front) -> None:
    jobs = await one_each(front)
    for shard in SHARDS:
        await front.claim(64, queue=shard, lease_s=0.05)
    await until_ready(front, jobs)


async def until_ready(front: Front, jobs: dict[str, str]) -> None:
    async def back() -> bool:
        await front.foreman.tick("images")
        return all([(await front.desk.get(job)).attempts for job in jobs.values()])

    await eventually(back, within=20)


async def test_who_waits_for_work_is_woken_by_a_job_in_any_shard(front: Front) -> None:
    assert await claim_all(front) == [], "an idle worker is one that is woken"
    while await front.broker.wait_for_work(SHARDS, "w1", timeout=0.3):
        pass  # what was published while nobody listened is not known, so it looks once
    for number in (2, 0, 1):
        key = next(f"k{n}" for n in count() if shard_for(f"concurrency:k{n}", 3) == number)
        asleep = asyncio.create_task(front.broker.wait_for_work(SHARDS, "w1", timeout=20.0))
        await front.submit(concurrency_key=key)
        assert await asleep
        assert await claim_all(front)
        assert await claim_all(front) == []


async def test_each_shard_is_followed_by_itself_and_a_timeline_says_which(front: Front) -> None:
    jobs = await one_each(front)
    with pytest.raises(InvalidError, match="images has 3 shards, and each a stream of its own: images~0, images~1"):
        await front.desk.events("images", after=0)
    for shard, place in zip(SHARDS, PLACES, strict=True):
        told = await events(front, shard)
        assert [event.offset for event in told] == list(range(1, len(told) + 1))
        timeline = await front.desk.timeline(jobs[place])
        assert timeline.stream == shard
        assert timeline.events[0] in told


async def test_why_a_job_waits_says_in_which_shard(front: Front) -> None:
    await front.foreman.pause("images", operation=front.operation())
    for place, job in (await one_each(front)).items():
        reasons = (await front.desk.explain(job)).reasons
        shard = SHARDS[PLACES.index(place)]
        assert any(f"it waits in {shard}, one of 3 shards" in reason for reason in reasons), reasons


async def test_a_queue_without_shards_has_the_keys_and_ids_that_it_always_had(front: Front) -> None:
    await front.foreman.declare_kind(KindSpec(name="plain", queue="plain"))
    job = await front.submit("plain", concurrency_key="one")
    assert place_in(job) == "plain"
    assert (await front.desk.timeline(job)).stream == "plain"
    assert (await front.desk.events("plain", after=0)).stream == "plain"
    assert (await front.foreman.stats("plain")).shards == ()
    keys: list[bytes] = await front.engine.command("KEYS", "h:{plain*")
    assert all(key.startswith(b"h:{plain}:") for key in keys)
    assert home_of("plain") == "plain"
