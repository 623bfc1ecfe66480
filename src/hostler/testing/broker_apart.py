"""Promise 7 of a broker, where several jobs share a worker: poison is told from what only ran beside it."""

from collections.abc import Iterable, Sequence

from hostler.contracts.job import JobState
from hostler.contracts.lease import Lease, Suspicion
from hostler.policy.suspicion import LATE, SOON, suspicion
from hostler.testing.broker_house import House, ref


class ApartPromises:
    """A job that lost a worker is a suspect: it is kept from a worker that holds another, and only from that."""

    async def test_what_was_lost_together_comes_back_one_to_a_worker(self, house: House) -> None:
        ids = await _suspects(house, 3)
        (first,) = await house.claim(5, worker="w1")
        assert await house.claim(5, worker="w1", suspicion=Suspicion.SUSPECT) == ()
        (second,), (third,) = await house.claim(5, worker="w2"), await house.claim(5, worker="w3")
        assert [lease.job_id for lease in (first, second, third)] == ids
        assert [(lease.crashes, lease.crashes_max) for lease in (first, second, third)] == [(1, 3)] * 3

    async def test_other_work_passes_a_suspect_that_waits_for_another_worker(self, house: House) -> None:
        first, second = await _suspects(house, 2)
        fresh = await house.submit_many(3)
        assert [lease.job_id for lease in await house.claim(3, worker="w1")] == [first, *fresh[:2]]
        beside = await house.claim(3, worker="w1", suspicion=Suspicion.SUSPECT)
        assert [lease.job_id for lease in beside] == fresh[2:]
        assert (await house.claim_one(worker="w2")).job_id == second

    async def test_work_of_other_lanes_tenants_and_keys_passes_a_suspect_too(self, house: House) -> None:
        first, second = await _suspects(house, 2)
        key, other = await house.submit(concurrency_key="k"), await house.submit("draw", tenant="b")
        got = await house.claim(5, worker="w1")
        assert {lease.job_id for lease in got} == {first, key, other}
        assert (await house.claim_one(worker="w2")).job_id == second

    async def test_a_suspect_with_losses_left_waits_for_another_worker_a_moment_only(self, house: House) -> None:
        first, second = await _suspects(house, 2)
        (lease,) = await house.claim(5, worker="w1")
        await house.advance(SOON / 2)
        assert await house.claim(5, worker="w1", suspicion=Suspicion.SUSPECT) == ()
        await house.advance(SOON)
        (other,) = await house.claim(5, worker="w1", suspicion=Suspicion.SUSPECT)
        assert (lease.job_id, other.job_id) == (first, second)

    async def test_one_whose_next_loss_is_its_last_waits_longer_but_not_for_ever(self, house: House) -> None:
        first, second = await _suspects(house, 2, times=2)
        (lease,) = await house.claim(5, worker="w1")
        assert (lease.job_id, lease.crashes) == (first, 2)
        await house.pass_time(5.0)
        for held in (Suspicion.SUSPECT, Suspicion.LAST):
            assert await house.claim(5, worker="w1", suspicion=held) == ()
        for _ in range(int(LATE) // 5):
            await house.broker.renew("w1", [ref(lease)])
            await house.pass_time(5.0)
        (other,) = await house.claim(5, worker="w1", suspicion=Suspicion.LAST)
        assert other.job_id == second

    async def test_no_suspect_joins_one_whose_next_loss_is_its_last(self, house: House) -> None:
        await _suspects(house, 1)
        await house.advance(SOON * 2)
        assert await house.claim(5, worker="w1", suspicion=Suspicion.LAST) == ()
        assert len(await house.claim(5, worker="w1", suspicion=Suspicion.SUSPECT)) == 1

    async def test_a_job_with_a_key_that_waits_for_another_worker_keeps_its_key_free(self, house: House) -> None:
        first, second = await _suspects(house, 2, concurrency_key=("a", "b"))
        assert [lease.job_id for lease in await house.claim(5, worker="w1")] == [first]
        lease = await house.claim_one(second, worker="w2")
        assert (await house.end(lease)).accepted

    async def test_a_suspect_that_ended_or_was_cancelled_keeps_nobody(self, house: House) -> None:
        first, second, third = await _suspects(house, 3)
        await house.desk.cancel(first, operation="c")
        lease = await house.claim_one(second, worker="w1")
        await house.end(lease)
        await house.claim_one(third, worker="w1")

    async def test_replayed_jobs_are_suspects_no_more(self, house: House) -> None:
        ids = await _suspects(house, 2, times=3)
        assert [await house.state(one) for one in ids] == [JobState.DEAD] * 2
        for one in ids:
            await house.desk.replay(one, operation=f"r-{one}")
        assert len(await house.claim(5, worker="w1")) == 2

    async def test_what_a_suspect_waits_for_is_said(self, house: House) -> None:
        (only,) = await _suspects(house, 1)
        assert any("took 1 worker down" in reason for reason in (await house.desk.explain(only)).reasons)

    async def test_poison_dies_and_what_shared_its_workers_does_not(self, house: House) -> None:
        """Three workers at a time, of which the one that holds the poison dies; the others finish what they hold."""
        poison, *innocent = await house.submit_many(6)
        for life in ("a", "b", "c"):
            held = [await _all_it_gets(house, f"{life}{number}") for number in range(3)]
            for leases in held:
                if poison not in {lease.job_id for lease in leases}:
                    for lease in leases:
                        await house.end(lease)
            await house.pass_time(11.0)
        assert await house.state(poison) is JobState.DEAD
        for number in range(5):
            for lease in await _all_it_gets(house, f"d{number}"):
                await house.end(lease)
        assert [await house.state(one) for one in innocent] == [JobState.SUCCEEDED] * 5


async def _suspects(
    house: House, number: int, *, times: int = 1, concurrency_key: Sequence[str | None] = ()
) -> list[str]:
    """Submit jobs and let so many workers die that hold them one by one; all come back now."""
    keys = concurrency_key or [None] * number
    ids = [await house.submit(**({"concurrency_key": key} if key else {})) for key in keys]
    for life in range(times):
        for place in range(number):
            assert len(await house.claim(1, worker=f"lost-{life}-{place}")) == 1
        await house.pass_time(9.0)
        await house.tick()
    return ids


async def _all_it_gets(house: House, worker: str) -> list[Lease]:
    """Claim as a worker does: again until nothing comes, and each time with what it holds."""
    held: list[Lease] = []
    while got := await house.claim(5, worker=worker, suspicion=_worst(held)):
        held += got
    return held


def _worst(held: Iterable[Lease]) -> Suspicion:
    return max((suspicion(one.crashes, one.crashes_max) for one in held), default=Suspicion.NONE)
