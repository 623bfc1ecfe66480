"""Amounts, concurrency keys and limits: what is taken, what is given back, what is refused without a trace."""

import asyncio

import pytest

from hostler.broker.engine_submit import Submitter, prepare, submit_jobs
from hostler.contracts.failure import Failure, FailureClass
from hostler.contracts.job import JobRequest, Submitted
from hostler.contracts.lease import Again, Die, Hold, Stopped, Succeed
from hostler.contracts.needs import Needs
from hostler.contracts.offer import Offer, Pool
from hostler.contracts.queue import Limits, Retention
from hostler.kernel.errors import IdempotencyConflictError, InternalError, QueueFullError
from hostler.testing.bench import KIND, Bench

GPU = "gpu_memory"


def with_gpu(total: float, pool: str = "gpu0") -> Offer:
    return Offer(kinds=("work.do",), pools={GPU: Pool(id=pool, total=total)})


def needs(amount: float) -> Needs:
    return Needs(amounts={GPU: amount})


async def used(bench: Bench) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = await bench.command("HGETALL", f"h:{{{bench.queue}}}:use")
    return found


async def test_two_workers_in_front_of_one_gpu_share_its_memory(bench: Bench) -> None:
    await bench.submit(6, needs=needs(8))
    offer = with_gpu(24)
    first = await bench.claim(2, worker="w1", offers=[offer])
    second = await bench.claim(2, worker="w2", offers=[offer])
    assert (len(first), len(second)) == (2, 1)
    assert (await used(bench))[b"gpu0|gpu_memory"] == b"24000"
    await bench.settle(first[0])
    assert len(await bench.claim(2, worker="w2", offers=[offer])) == 1


async def test_the_second_offer_is_taken_when_the_first_is_full(bench: Bench) -> None:
    await bench.submit(4)
    offers = [Offer(kinds=("work.do",), pools={"slots": Pool(id=f"e{n}", total=1)}) for n in range(3)]
    leases = await bench.claim(4, offers=offers)
    assert [lease.offer for lease in leases] == [0, 1, 2]


async def test_what_a_worker_can_spare_now_bounds_a_claim(bench: Bench) -> None:
    await bench.submit(4)
    leases = await bench.claim(4, pools={"slots": Pool(id="w1", total=8, free=3)})
    assert len(leases) == 3


async def test_fractions_add_up_exactly(bench: Bench) -> None:
    await bench.submit(30, needs=Needs(amounts={"share": 0.1}))
    pools = {"share": Pool(id="w1", total=1.0)}
    for _ in range(3):
        leases = await bench.claim(30, pools=pools)
        assert len(leases) == 9  # 0.1 is rounded up to two hexadecimal digits: 0.1016
        for lease in leases:
            await bench.settle(lease)
    assert await used(bench) == {}


@pytest.mark.parametrize("how", [Succeed(), Again(failure=None), Hold(reason="x"), Stopped(), None])
async def test_amounts_come_back_on_every_way_out(bench: Bench, how: Succeed | Again | Hold | Stopped | None) -> None:
    await bench.configure(lease=0.05)
    job = await bench.one(needs=needs(2))
    (lease,) = await bench.claim(offers=[with_gpu(2)])
    assert await used(bench) != {}
    if how is not None:
        await bench.settle(lease, how)
    else:

        async def reaped() -> bool:
            return await bench.state(job) == "ready"

        await bench.until(reaped)
    assert await used(bench) == {}


async def test_a_big_job_that_waited_is_not_starved_by_small_ones(bench: Bench) -> None:
    await bench.configure(reserve_after=0.0)
    offer = with_gpu(8)
    await bench.submit(2, needs=needs(4))
    running = list(await bench.claim(2, offers=[offer]))
    big = await bench.one(needs=needs(8))
    await bench.submit(20, needs=needs(4))
    for lease in running:
        assert await bench.claim(2, offers=[offer]) == ()
        await bench.settle(lease)
    assert [lease.job_id for lease in await bench.claim(2, offers=[offer])] == [big]


async def test_small_jobs_pass_a_big_one_that_has_not_waited_long(bench: Bench) -> None:
    offer = with_gpu(8)
    await bench.submit(1, needs=needs(4))
    await bench.claim(1, offers=[offer])
    await bench.one(needs=needs(8))
    small = await bench.one(needs=needs(4))
    assert [lease.job_id for lease in await bench.claim(2, offers=[offer])] == [small]


@pytest.mark.row("002:203")
async def test_jobs_of_one_key_run_one_after_the_other_in_order(bench: Bench) -> None:
    ids = await bench.submit(5, concurrency_key="k")
    free = await bench.one()
    got: list[str] = []
    leases = await bench.claim(10)
    assert [lease.job_id for lease in leases] == [ids[0], free]
    for _ in range(5):
        got.append(leases[0].job_id)
        await bench.settle(leases[0])
        leases = await bench.claim(10)
    assert got == ids
    assert not [key for key in await bench.keys() if f"{{{bench.queue}}}:k" in key]


async def test_a_key_holds_over_lanes_and_an_unservable_lane_does_not_block_it(bench: Bench) -> None:
    await bench.submit(3, concurrency_key="k", needs=Needs(models=("nowhere",)))
    ids = await bench.submit(3, concurrency_key="k")
    for job in ids:
        (lease,) = await bench.claim(10)
        assert lease.job_id == job
        assert await bench.claim(10) == ()
        await bench.settle(lease)
    assert (await bench.meta())["n_ready"] == 3


async def test_as_many_jobs_of_a_key_run_as_the_queue_allows(bench: Bench) -> None:
    await bench.configure(limits=Limits(key_running=3))
    await bench.submit(10, concurrency_key="k")
    leases = await bench.claim(10)
    assert len(leases) == 3
    await bench.settle(leases[0], Again(failure=None, delay=60))
    assert len(await bench.claim(10)) == 1


async def test_limits_refuse_without_a_trace(bench: Bench) -> None:
    await bench.configure(limits=Limits(depth=3, tenant_depth=2, bytes=1000))
    await bench.submit(2, tenant="a")
    before = await bench.keys()
    meta = await bench.meta()
    for fields in ({"tenant": "a"}, {"tenant": "b", "payload": "x" * 2000}):
        with pytest.raises(QueueFullError) as refused:
            await bench.one(**fields)
        assert refused.value.retry_after > 0
    assert await bench.keys() == before
    after = await bench.meta()
    assert {**after, "last": 0} == {**meta, "last": 0}
    await bench.one(tenant="b")
    with pytest.raises(QueueFullError):
        await bench.one(tenant="c")
    await bench.settle(await bench.take())
    await bench.one(tenant="c")


async def test_lanes_are_limited_and_a_refused_one_is_not_kept(bench: Bench) -> None:
    await bench.configure(limits=Limits(lanes=2))
    await bench.one(needs=Needs(models=("a",)))
    await bench.one(needs=Needs(models=("b",)))
    with pytest.raises(QueueFullError):
        await bench.one(needs=Needs(models=("c",)))
    await bench.one(needs=Needs(models=("b",)))
    assert await bench.command("HLEN", f"h:{{{bench.queue}}}:lanes") == 2


async def test_the_same_operation_stores_once(bench: Bench) -> None:
    prepared = [prepare(JobRequest(kind="work.do"), KIND)] * 3
    first = await submit_jobs(bench.library, bench.queue, prepared, "op")
    assert await submit_jobs(bench.library, bench.queue, prepared, "op") == first
    assert (await bench.meta())["t_submitted"] == 3


async def test_an_idempotency_key_gives_the_first_job_and_refuses_another_body(bench: Bench) -> None:
    await bench.configure(retention=Retention(idempotency=0.4))
    job = await bench.one(idempotency_key="i", payload=1)
    assert await bench.one(idempotency_key="i", payload=1) == job
    assert await bench.one(idempotency_key="i", payload=1, tenant="other") != job
    with pytest.raises(IdempotencyConflictError):
        await bench.one(idempotency_key="i", payload=2)

    async def forgotten() -> bool:
        return await bench.command("EXISTS", f"h:{{{bench.queue}}}:i:default:i") == 0

    await bench.until(forgotten)
    assert await bench.one(idempotency_key="i", payload=2) != job
    assert (await bench.meta())["t_deduplicated"] == 1


async def test_submits_that_wait_at_one_moment_share_calls_and_keep_their_answers(bench: Bench) -> None:
    submitter = Submitter(bench.library)
    prepared = [prepare(JobRequest(kind="work.do", tenant=f"t{n}"), KIND) for n in range(300)]
    answers = await asyncio.gather(*(submitter.submit(bench.queue, [one], f"op{n}") for n, one in enumerate(prepared)))
    ids = [one.id for (one,) in answers if isinstance(one, Submitted)]
    assert len(set(ids)) == 300
    tenants = [(await bench.record(job)).tenant for job in ids]
    assert tenants == [f"t{n}" for n in range(300)]
    with pytest.raises(InternalError):
        await submitter.submit(bench.queue, prepared, "too-many")


async def test_a_dead_job_gives_back_what_it_took(bench: Bench) -> None:
    await bench.one(concurrency_key="k", needs=needs(1))
    second = await bench.one(concurrency_key="k", needs=needs(1))
    (lease,) = await bench.claim(offers=[with_gpu(1)])
    failure = Failure(class_=FailureClass.INVALID_INPUT, message="no")
    await bench.settle(lease, Die(failure=failure))
    assert [one.job_id for one in await bench.claim(offers=[with_gpu(1)])] == [second]
