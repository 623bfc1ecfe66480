"""Who goes first: tenants by weight, inside a tenant by effective arrival, and nothing hides behind anything."""

import asyncio
import itertools
from collections import Counter

import pytest

from hostler.contracts.lease import Again, Lease
from hostler.contracts.needs import Avoid, Lane, Needs
from hostler.contracts.offer import Offer
from hostler.contracts.queue import KindSpec
from hostler.testing.bench import Bench

HEAD_START = 60_000_000


async def claimed(bench: Bench, n: int, *, step: int = 1, **more: object) -> list[str]:
    """Return the ids of the next `n` claims in order."""
    ids: list[str] = []
    while len(ids) < n:
        leases = await bench.claim(min(step, n - len(ids)), **more)
        assert leases, f"{len(ids)} of {n} came"
        ids += [lease.job_id for lease in leases]
    return ids


def shunning(lease: Lease, worker: str) -> Lane:
    return Lane(kind=lease.kind, needs=lease.lane.needs, avoid=Avoid(shunned=(worker,)))


@pytest.mark.parametrize("step", [1, 7, 64])
async def test_equal_jobs_are_first_in_first_out_to_the_last_digit(bench: Bench, step: int) -> None:
    ids = await bench.submit(300)
    assert await claimed(bench, 300, step=step) == ids


async def test_jobs_of_one_moment_in_different_lanes_keep_their_order(bench: Bench) -> None:
    kinds = [KindSpec(name=f"work.k{n}") for n in range(5)]
    offer = Offer(kinds=tuple(kind.name for kind in kinds))
    ids = [await bench.one(kind=kinds[n % 5]) for n in range(60)]
    assert await claimed(bench, 60, step=8, offers=[offer]) == ids


async def test_arrivals_rise_strictly_and_stay_exact_integers(bench: Bench) -> None:
    ids = await bench.submit(200)
    arrivals = [(await bench.record(job)).vt for job in ids]
    assert all(later == earlier + 1 for earlier, later in itertools.pairwise(arrivals[:100]))
    assert len(set(arrivals)) == 200
    assert max(arrivals) < 2**53


async def test_a_level_of_priority_is_a_head_start_and_waiting_makes_up_for_it(bench: Bench) -> None:
    await bench.configure(head_start=0.2)
    low = await bench.one(priority=49)
    others = [await bench.one(priority=50)]
    arrival = (await bench.record(low)).vt

    async def made_up() -> bool:
        others.append(await bench.one(priority=50))
        return (await bench.record(others[-1])).vt > arrival

    await bench.until(made_up)
    order = await claimed(bench, len(others) + 1)
    assert order == [*others[:-1], low, others[-1]]


async def test_the_head_start_is_exact(bench: Bench) -> None:
    low, high = await bench.one(priority=0), await bench.one(priority=100)
    behind = (await bench.record(low)).vt - (await bench.record(high)).vt
    apart = (await bench.record(high)).created - (await bench.record(low)).created
    assert 100 * HEAD_START - behind in range(apart - 2, apart + 3)
    assert await claimed(bench, 2) == [high, low]


async def test_a_retry_keeps_its_place(bench: Bench) -> None:
    ids = await bench.submit(5)
    lease = await bench.take()
    await bench.settle(lease, Again(failure=None))
    assert await claimed(bench, 5) == ids


async def test_tenants_share_by_weight(bench: Bench) -> None:
    await bench.configure(weights={"gold": 3})
    await bench.submit(200, tenant="iron")
    await bench.submit(200, tenant="gold")
    got = Counter([(await bench.take()).tenant for _ in range(80)])
    assert got == {"gold": 60, "iron": 20}


async def test_a_tenant_that_was_away_does_not_get_its_turns_back(bench: Bench) -> None:
    await bench.submit(100, tenant="here")
    await claimed(bench, 50, step=10)
    await bench.submit(100, tenant="back")
    got = Counter(lease.tenant for lease in await bench.claim(20))
    assert abs(got["here"] - got["back"]) <= 2


async def test_a_thousand_unservable_jobs_at_the_head_hide_nothing(bench: Bench) -> None:
    for n in range(10):
        await bench.submit(100, kind=KindSpec(name=f"other.k{n}"), priority=100, tenant=f"t{n}")
    job = await bench.one(priority=0)
    assert await claimed(bench, 1) == [job]


async def test_needs_decide_who_gets_a_job(bench: Bench) -> None:
    big = await bench.one(needs=Needs(models=("big",)))
    small = await bench.one(needs=Needs(models=("small",)))
    here = Offer(kinds=("work.do",), models=("small",))
    there = Offer(kinds=("work.do",), models=("big", "small"))
    assert await claimed(bench, 1, worker="w1", offers=[here]) == [small]
    assert await bench.claim(worker="w1", offers=[here]) == ()
    (lease,) = await bench.claim(worker="w2", offers=[here, there])
    assert (lease.job_id, lease.offer) == (big, 1)


async def test_a_worker_that_a_job_avoids_never_gets_it(bench: Bench) -> None:
    await bench.one(avoid=Avoid(workers=("w1",)))
    assert await bench.claim(worker="w1") == ()
    assert len(await bench.claim(worker="w2")) == 1


async def test_a_shunned_worker_gets_the_job_only_while_no_other_lives(bench: Bench) -> None:
    await bench.one()
    lease = await bench.take(worker="w1")
    await bench.settle(lease, Again(failure=None, lane=shunning(lease, "w1")))
    assert await bench.claim(worker="w2", offers=[Offer(kinds=("else",))]) == ()
    (again,) = await bench.claim(worker="w1")
    await bench.settle(again, Again(failure=None))
    assert await bench.claim(worker="w2", limit=1) != ()


async def test_a_shunned_worker_waits_while_another_lives(bench: Bench) -> None:
    await bench.one()
    lease = await bench.take(worker="w1")
    assert await bench.claim(worker="w2") == ()
    await bench.settle(lease, Again(failure=None, lane=shunning(lease, "w1")))
    await bench.one()
    await bench.settle(
        await bench.take(worker="w2"), Again(failure=None), worker="w2"
    )  # w2 knows the new lane from now on
    assert [one.job_id for one in await bench.claim(limit=2, worker="w1")] == [bench.id(2)]
    assert [one.job_id for one in await bench.claim(worker="w2")] == [bench.id(1)]


async def test_new_lanes_reach_workers_that_claimed_before(bench: Bench) -> None:
    offer = Offer(kinds=("work.do",), models=tuple(f"m{n}" for n in range(300)))
    ids: list[str] = []
    for n in range(300):
        ids.append(await bench.one(needs=Needs(models=(f"m{n}",))))
        if n % 50 == 0:
            assert await claimed(bench, 1, offers=[offer]) == [ids.pop(0)]
    assert await claimed(bench, len(ids), step=16, offers=[offer]) == ids


async def test_a_wake_up_reaches_one_idle_worker_for_one_job(bench: Bench) -> None:
    workers = [f"w{n}" for n in range(5)]
    for worker in workers:
        assert await bench.claim(worker=worker) == ()
    waits = [asyncio.create_task(bench.broker.wait_for_work([bench.queue], worker, timeout=30)) for worker in workers]
    async with asyncio.timeout(20):
        assert await asyncio.gather(*waits) == [True] * 5  # the subscription's own first look
        second = [
            asyncio.create_task(bench.broker.wait_for_work([bench.queue], worker, timeout=1.0)) for worker in workers
        ]
        await bench.one()
        assert sum(await asyncio.gather(*second)) == 1
