"""One live lease per job, fences that only rise, and endings that are recorded once."""

import asyncio
from collections import Counter

import pytest
from msgspec import Raw

from hostler.broker.engine_tick import tick
from hostler.contracts.failure import Failure, FailureClass
from hostler.contracts.job import Progress
from hostler.contracts.lease import Again, Die, Hold, LeaseRef, Settlement, Stopped, Succeed, Update
from hostler.contracts.queue import KindSpec, RetryPolicy
from hostler.testing.bench import Bench

BROKEN = Failure(class_=FailureClass.TRANSIENT, message="the line broke")


async def test_a_stale_fence_is_refused_and_is_one_event(bench: Bench) -> None:
    await bench.one()
    first = await bench.take()
    await bench.settle(first, Again(failure=BROKEN))
    second = await bench.take(worker="w2")
    assert second.fence == first.fence + 1
    before = await bench.record(first.job_id)
    for _ in range(3):
        settled = await bench.settle(first, Die(failure=BROKEN))
        assert not settled.accepted
    after = await bench.record(first.job_id)
    assert (after.state, after.fence, after.worker) == (before.state, before.fence, "w2")
    rejects = [event for event in await bench.events() if event.type == "reject"]
    assert [(event.worker, event.data) for event in rejects] == [("w1", {"fence": first.fence})]
    assert (await bench.meta())["t_rejected"] == 1


async def test_another_workers_lease_cannot_be_settled(bench: Bench) -> None:
    await bench.one()
    lease = await bench.take()
    assert not (await bench.settle(lease, worker="w2")).accepted
    assert (await bench.settle(lease)).state == "succeeded"


async def test_the_same_ending_again_is_accepted_and_changes_nothing(bench: Bench) -> None:
    await bench.one()
    lease = await bench.take()
    assert (await bench.settle(lease)).accepted
    events = await bench.events()
    assert (await bench.settle(lease)).accepted
    assert await bench.events() == events
    assert (await bench.meta())["t_succeeded"] == 1


@pytest.mark.row("000:32", "001:59")
async def test_fifty_racing_claimers_never_share_one_of_ten_thousand_jobs(bench: Bench) -> None:
    await bench.submit(10_000)
    taken: Counter[str] = Counter()

    async def claimer(number: int) -> None:
        while leases := await bench.claim(16, worker=f"w{number}"):
            taken.update(lease.job_id for lease in leases)

    await asyncio.gather(*(claimer(number) for number in range(50)))
    assert len(taken) == 10_000
    assert set(taken.values()) == {1}


@pytest.mark.row("000:61", "001:62")
async def test_a_worker_of_one_slot_gets_one_lease_however_many_claims_race(bench: Bench) -> None:
    await bench.submit(20)
    got = await asyncio.gather(*(bench.claim(4, slots=1) for _ in range(20)))
    assert sum(len(leases) for leases in got) == 1


async def test_a_lost_reply_is_answered_again_with_what_is_still_held(bench: Bench) -> None:
    await bench.submit(3)
    request = bench.request(2)
    first = await bench.broker.claim(request, operation="once")
    again = await bench.broker.claim(request, operation="once")
    assert [(one.job_id, one.fence) for one in again] == [(one.job_id, one.fence) for one in first]
    await bench.settle(first[0])
    left = await bench.broker.claim(request, operation="once")
    assert [one.job_id for one in left] == [first[1].job_id]
    assert (await bench.meta())["t_claimed"] == 2


async def test_renewal_extends_what_is_held_and_names_what_is_lost(bench: Bench) -> None:
    await bench.configure(lease=0.4)
    await bench.submit(2)
    kept, lost = await bench.claim(2)
    await bench.settle(lost, Again(failure=None))
    renewal = await bench.broker.renew("w1", [LeaseRef(job_id=one.job_id, fence=one.fence) for one in (kept, lost)])
    assert renewal.lost == (LeaseRef(job_id=lost.job_id, fence=lost.fence),)
    assert renewal.expires_at is not None
    assert renewal.expires_at > kept.expires_at


@pytest.mark.row("003:346")
async def test_a_lost_lease_goes_back_to_its_place_and_the_third_is_poison(bench: Bench) -> None:
    await bench.configure(lease=0.05)
    kind = KindSpec(name="work.do", retry=RetryPolicy(crashes=3))
    job = await bench.one(kind=kind)
    arrival = (await bench.record(job)).vt
    for number in range(3):
        lease = await bench.take(worker=f"w{number}")
        assert lease.crashes == number

        async def left() -> bool:
            return await bench.state(job) != "running"

        await bench.until(left)
        assert (await bench.record(job)).vt == arrival
    record = await bench.record(job)
    assert await bench.state(job) == "dead"
    assert (record.crashes, record.attempts, record.bad_workers) == (3, 0, ["w0", "w1", "w2"])
    assert [event.type for event in await bench.events()][-1] == "bury"
    assert (await bench.meta())["t_reaped"] == 3


async def test_progress_is_stored_under_its_fence_and_follows_the_job(bench: Bench) -> None:
    await bench.one()
    lease = await bench.take()
    update = Update(
        job_id=lease.job_id,
        fence=lease.fence,
        progress=Progress(fraction=0.5, message="half"),
        remote="r-17",
        remote_endpoint="e1",
        checkpoint=Raw(b'{"step":3}'),
    )
    assert await bench.broker.progress("w1", [update]) == ()
    stale = await bench.broker.progress("w2", [update])
    assert stale == (LeaseRef(job_id=lease.job_id, fence=lease.fence),)
    await bench.settle(lease, Again(failure=BROKEN))
    second = await bench.take()
    assert (second.remote, second.remote_endpoint) == ("r-17", "e1")
    assert isinstance(second.checkpoint, Raw)
    assert bytes(second.checkpoint) == b'{"step":3}'
    assert [(one.number, one.outcome, one.error, one.counted, one.remote) for one in second.history] == [
        (1, "retry", BROKEN, True, "r-17")
    ]
    progress = [event for event in await bench.events() if event.type == "progress"]
    assert [(event.state, event.data) for event in progress] == [(None, {"fraction": 0.5, "message": "half"})]


@pytest.mark.parametrize(
    ("ending", "state"),
    [
        (Succeed(result=Raw(b"1")), "succeeded"),
        (Again(failure=BROKEN), "ready"),
        (Again(failure=BROKEN, delay=30), "scheduled"),
        (Hold(reason="a person"), "waiting"),
        (Die(failure=BROKEN), "dead"),
        (Stopped(), "cancelled"),
    ],
)
async def test_each_ending_leads_where_the_table_says(bench: Bench, ending: object, state: str) -> None:
    await bench.one()
    lease = await bench.take()
    settlement = Settlement(job_id=lease.job_id, fence=lease.fence, ending=ending)  # pyright: ignore[reportArgumentType] - pytest hands over objects
    (settled,) = await bench.broker.settle("w1", [settlement])
    assert (settled.accepted, settled.state) == (True, state)
    assert (await bench.meta())["n_running"] == 0
    assert await bench.command("EXISTS", f"h:{{{bench.queue}}}:use") == 0


async def test_budgets_are_kept_apart(bench: Bench) -> None:
    kind = KindSpec(name="work.do", retry=RetryPolicy(attempts=2, overloads=3))
    job = await bench.one(kind=kind)
    for _ in range(3):
        await bench.settle(await bench.take(), Again(failure=BROKEN, counted=False, overload=True))
    await bench.settle(await bench.take(), Again(failure=None, counted=False))
    lease = await bench.take()
    assert (lease.attempts_used, lease.overloads) == (0, 3)  # what used no attempt breaks no row
    await bench.settle(lease, Again(failure=BROKEN))
    assert (await bench.settle(await bench.take(), Again(failure=BROKEN))).state == "dead"
    assert (await bench.record(job)).attempts == 2


async def test_upkeep_runs_at_most_every_half_second(bench: Bench) -> None:
    await bench.one()
    await bench.tick()
    sweep = (await bench.meta())["tick"]
    assert not (await tick(bench.library, bench.queue)).more
    assert (await bench.meta())["tick"] == sweep
