"""Promise 4 of a broker, where a worker has several endpoints: which of those that fit gets the job."""

from collections.abc import Sequence

import pytest

from hostler.contracts.lease import Lease
from hostler.contracts.offer import Offer, Pool, Standing
from hostler.policy.lanes import derive, shun
from hostler.testing.broker_house import KIND, QUEUE, House

MODELS = ("m1", "m2")


class PlacePromises:
    """Of several endpoints with room a job gets the least loaded; a warm one within a bound; never an excluded one."""

    async def test_jobs_spread_over_endpoints_in_proportion_to_their_slots(self, house: House) -> None:
        offers = endpoints(a=2, b=4)
        await house.submit_many(6)
        assert placed(await house.claim(3, offers=offers)) == {"a": 1, "b": 2}
        assert placed(await house.claim(9, offers=offers)) == {"a": 1, "b": 2}

    async def test_what_other_workers_run_on_an_endpoint_counts(self, house: House) -> None:
        offers = endpoints(a=4, b=4)
        await house.submit_many(4)
        assert placed(await house.claim(2, worker="w1", offers=offers[:1])) == {"a": 2}
        assert placed(await house.claim(2, worker="w2", offers=offers)) == {"b": 2}

    async def test_an_endpoint_twice_as_dear_gets_half_as_much(self, house: House) -> None:
        offers = endpoints(a=12, b=12)
        await house.submit_many(9)
        dear = [Standing(weight=2.0), Standing()]
        assert placed(await house.claim(9, offers=offers, standings=dear)) == {"a": 3, "b": 6}

    async def test_no_endpoint_gets_more_than_its_slots_whatever_its_weight(self, house: House) -> None:
        await house.submit_many(9)
        cheap = [Standing(weight=0.01), Standing()]
        assert placed(await house.claim(9, offers=endpoints(a=2, b=3), standings=cheap)) == {"a": 2, "b": 3}

    async def test_a_job_goes_where_its_model_is_in_memory(self, house: House) -> None:
        offers = endpoints(a=4, b=4)
        warm = [Standing(loaded=("m1",)), Standing(loaded=("m2",))]
        await house.submit_many(1, needs={"models": ["m2"]})
        await house.submit_many(1, needs={"models": ["m1"]})
        first, second = await house.claim(2, offers=offers, standings=warm)
        assert (first.offer, second.offer) == (1, 0)

    async def test_affinity_is_bounded_so_that_no_endpoint_idles_beside_a_warm_one(self, house: House) -> None:
        offers = endpoints(a=8, b=8)
        warm = [Standing(loaded=("m1",)), Standing(loaded=())]
        await house.submit_many(8, needs={"models": ["m1"]})
        shares = placed(await house.claim(8, offers=offers, standings=warm))
        assert shares["a"] >= shares["b"] >= 3

    async def test_a_job_waits_for_its_model_while_no_endpoint_may_load_it(self, house: House) -> None:
        offers = endpoints(a=4)
        job = await house.submit(needs={"models": ["m2"]})
        other = await house.submit()
        stays = [Standing(loaded=("m1",), swaps=())]
        await house.claim_one(other, offers=offers, standings=stays)
        assert await house.claim(offers=offers, standings=stays) == ()
        await house.claim_one(job, offers=offers, standings=[Standing(loaded=("m1",), swaps=("m2",))])

    async def test_what_waits_for_models_is_told_lane_by_lane_with_its_number_and_age(self, house: House) -> None:
        await house.submit_many(2, needs={"models": ["m1"]})
        await house.advance(3.0)
        await house.submit_many(1, needs={"models": ["m1"]}, tenant="other")
        await house.submit_many(1, needs={"models": ["m2", "m1"]})
        await house.submit()
        found = {one.lane.needs.models: (one.waiting, one.oldest) for one in await house.broker.demand(QUEUE)}
        assert found == {("m1",): (3, pytest.approx(3.0)), ("m1", "m2"): (1, pytest.approx(0.0))}
        await house.claim(1, offers=endpoints(a=4))
        assert sum(one.waiting for one in await house.broker.demand(QUEUE)) == 3

    async def test_nothing_is_told_of_a_queue_that_gives_nothing_out(self, house: House) -> None:
        await house.submit_many(2, needs={"models": ["m1"]})
        await house.foreman.pause(QUEUE, operation=house.operation())
        assert await house.broker.demand(QUEUE) == ()
        await house.foreman.resume(QUEUE, operation=house.operation())
        (told,) = await house.broker.demand(QUEUE)
        assert told.waiting == 2

    async def test_after_a_failure_the_other_endpoint_comes_first(self, house: House) -> None:
        offers = endpoints(a=4, b=4)
        await house.submit()
        lease = await house.claim_one(offers=offers)
        await house.fail(lease, lane=shun(lease.lane, "a"))
        assert placed([await house.claim_one(lease.job_id, offers=offers)]) == {"b": 1}

    async def test_the_endpoint_of_a_failure_is_better_than_none(self, house: House) -> None:
        offers = endpoints(a=4)
        await house.submit()
        lease = await house.claim_one(offers=offers)
        await house.fail(lease, lane=shun(lease.lane, "a"))
        await house.claim_one(lease.job_id, offers=offers)

    async def test_an_excluded_endpoint_never_gets_the_job(self, house: House) -> None:
        offers = endpoints(a=4, b=4)
        await house.submit()
        lease = await house.claim_one(offers=offers)
        await house.fail(lease, lane=derive(lease.lane, exclude="a"))
        assert await house.claim(offers=offers[:1]) == ()
        assert placed([await house.claim_one(lease.job_id, offers=offers)]) == {"b": 1}

    @pytest.mark.parametrize("models", [(), MODELS])
    async def test_equal_endpoints_share_alike(self, house: House, models: Sequence[str]) -> None:
        offers = endpoints(a=5, b=5, c=5)
        await house.submit_many(9, needs={"models": list(models)})
        assert placed(await house.claim(9, offers=offers)) == {"a": 3, "b": 3, "c": 3}


def endpoints(*, kinds: tuple[str, ...] = (KIND,), **slots: int) -> list[Offer]:
    """Return one offer for each endpoint, with so many slots."""
    return [
        Offer(kinds=kinds, endpoint=name, models=MODELS, pools={"slots": Pool(id=f"{name}:slots", total=total)})
        for name, total in slots.items()
    ]


def placed(leases: Sequence[Lease]) -> dict[str, int]:
    """Return how many leases each endpoint got, by its place in the alphabet."""
    names = ["abc"[lease.offer or 0] for lease in leases]
    return {name: names.count(name) for name in sorted(set(names))}
