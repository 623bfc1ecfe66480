"""Promise 4 of a broker, where jobs belong together: one goes where the last of its session ran, within a bound."""

from collections.abc import Sequence
from typing import Any

import pytest

from hostler.contracts.lease import Lease
from hostler.contracts.offer import Standing
from hostler.policy.affinity import LABEL
from hostler.policy.lanes import derive, shun
from hostler.testing.broker_house import KIND, House
from hostler.testing.broker_place import endpoints, placed

COLD = (Standing(loaded=("m2",), swaps=("m1", "m2")), Standing(loaded=("m1",)))


class AffinityPromises:
    """A session's next job gets the endpoint of its last one while that is within its share; it never waits for it."""

    async def test_a_sessions_jobs_go_where_the_first_of_them_ran(self, house: House) -> None:
        dear = [Standing(), Standing(weight=0.1)]
        await ran(house, at="a", labels=session("s"))
        for _ in range(3):
            assert await placed_next(house, labels=session("s"), standings=dear) == "a"

    async def test_jobs_of_other_sessions_and_of_none_go_to_the_least_loaded(self, house: House) -> None:
        dear = [Standing(), Standing(weight=0.1)]
        await ran(house, at="a", labels=session("s"))
        for labels in (session("t"), {}, {LABEL + "s": "s"}):
            assert await placed_next(house, labels=labels, standings=dear) == "b"

    async def test_a_session_is_its_tenants_own(self, house: House) -> None:
        await ran(house, at="a", labels=session("s"), tenant="one")
        dear = [Standing(), Standing(weight=0.1)]
        assert await placed_next(house, labels=session("s"), tenant="two", standings=dear) == "b"
        assert await placed_next(house, labels=session("s"), tenant="one", standings=dear) == "a"

    async def test_a_kind_says_where_its_payload_names_the_session(self, house: House) -> None:
        await house.kind(KIND, affinity=["/user", "/topic/0"])
        dear = [Standing(), Standing(weight=0.1)]
        await ran(house, at="a", payload={"user": "u", "topic": [1, 2], "text": "one"})
        assert await placed_next(house, payload={"text": "two", "topic": [1], "user": "u"}, standings=dear) == "a"
        for other in ({"user": "u", "topic": [2]}, {"user": "u"}, {"user": None, "topic": [1]}):
            assert await placed_next(house, payload=other, standings=dear) == "b"

    async def test_jobs_of_one_session_that_are_claimed_together_stay_together(self, house: House) -> None:
        await house.submit_many(2, labels=session("s"))
        await house.submit_many(2, labels=session("t"))
        leases = await house.claim(4, offers=endpoints(a=4, b=4))
        assert placed(leases[:2]) == {"a": 2} or placed(leases[2:]) == {"b": 2}
        assert placed(leases) == {"a": 2, "b": 2}

    async def test_a_session_of_many_jobs_never_takes_more_than_its_share_and_a_quarter(self, house: House) -> None:
        await ran(house, at="a", labels=session("s"))
        await house.submit_many(16, labels=session("s"))
        shares = placed(await house.claim(16, offers=endpoints(a=16, b=16)))
        assert max(shares.values()) <= 10 <= 4 + min(shares.values())

    async def test_a_full_home_is_left_at_once_and_the_session_stays_where_it_went(self, house: House) -> None:
        await ran(house, at="a", labels=session("s"))
        await house.submit()
        full = await house.claim_one(offers=endpoints(a=1))
        assert await placed_next(house, labels=session("s"), offers=endpoints(a=1, b=1)) == "b"
        await house.end(full)
        assert await placed_next(house, labels=session("s"), offers=endpoints(a=1, b=1)) == "b"

    async def test_a_home_that_is_gone_is_nobodys_wait(self, house: House) -> None:
        await ran(house, at="a", labels=session("s"))
        await house.submit(labels=session("s"))
        lease = await house.claim_one(worker="w2", offers=endpoints(b=4, a=4)[:1])
        await house.end(lease)
        assert await placed_next(house, labels=session("s")) == "b"

    @pytest.mark.parametrize("shunned", [True, False])
    async def test_a_home_where_the_job_failed_is_not_taken_again(self, house: House, *, shunned: bool) -> None:
        await ran(house, at="a", labels=session("s"))
        await house.submit(labels=session("s"))
        lease = await house.claim_one(offers=endpoints(a=4))
        await house.fail(lease, lane=shun(lease.lane, "a") if shunned else derive(lease.lane, exclude="a"))
        assert placed([await house.claim_one(lease.job_id, offers=endpoints(a=4, b=4))]) == {"b": 1}

    async def test_home_goes_before_another_that_holds_the_model_too(self, house: House) -> None:
        warm = [Standing(loaded=("m1",)), Standing(loaded=("m1",), weight=0.1)]
        needs = {"models": ["m1"]}
        await ran(house, at="a", labels=session("s"), needs=needs)
        assert await placed_next(house, labels=session("s"), needs=needs, standings=warm) == "a"

    async def test_a_home_whose_memory_lost_the_model_is_none(self, house: House) -> None:
        needs = {"models": ["m1"]}
        await ran(house, at="a", labels=session("s"), needs=needs)
        assert await placed_next(house, labels=session("s"), needs=needs, standings=COLD) == "b"

    async def test_a_session_is_forgotten_after_its_time(self, house: House) -> None:
        await house.declare(retention={"affinity": 60.0})
        dear = [Standing(), Standing(weight=0.1)]
        await ran(house, at="a", labels=session("s"))
        await house.pass_time(58)
        assert await placed_next(house, labels=session("s"), standings=dear) == "a"
        await house.pass_time(59)
        assert await placed_next(house, labels=session("s"), standings=dear) == "a"
        await house.pass_time(61)
        assert await placed_next(house, labels=session("s"), standings=dear) == "b"

    async def test_a_queue_may_remember_no_session(self, house: House) -> None:
        await house.declare(retention={"affinity": 0.0})
        await ran(house, at="a", labels=session("s"))
        dear = [Standing(), Standing(weight=0.1)]
        assert await placed_next(house, labels=session("s"), standings=dear) == "b"

    async def test_a_replayed_job_is_still_of_its_session(self, house: House) -> None:
        await house.submit("once", labels=session("s"))
        offers = endpoints(a=4, b=4, kinds=("once",))
        lease = await house.claim_one(offers=offers[:1])
        await house.fail(lease)
        await house.desk.replay(lease.job_id, operation=house.operation())
        dear = [Standing(), Standing(weight=0.1)]
        assert placed([await house.claim_one(lease.job_id, offers=offers, standings=dear)]) == {"a": 1}

    async def test_a_session_with_a_concurrency_key_keeps_both(self, house: House) -> None:
        dear = [Standing(), Standing(weight=0.1)]
        await ran(house, at="a", labels=session("s"))
        await house.submit_many(2, labels=session("s"), concurrency_key="k")
        offers = endpoints(a=4, b=4)
        (first,) = await house.claim(2, offers=offers, standings=dear)
        await house.end(first)
        (second,) = await house.claim(2, offers=offers, standings=dear)
        assert placed([first, second]) == {"a": 2}

    async def test_the_timeline_says_what_went_to_its_sessions_endpoint(self, house: House) -> None:
        first, second = [await house.submit(labels=session("s")) for _ in range(2)]
        for job in (first, second):
            await house.end(await house.claim_one(job, offers=endpoints(a=4)))
        assert [await claims(house, job) for job in (first, second)] == [[None], [True]]


def session(name: str) -> dict[str, str]:
    """Return the labels of a job of this session."""
    return {LABEL: name}


async def ran(house: House, *, at: str, **fields: Any) -> None:
    """Let one job run at this endpoint."""
    await house.submit(**fields)
    await house.end(await house.claim_one(offers=[offer for offer in endpoints(a=4, b=4) if offer.endpoint == at]))


async def placed_next(
    house: House, *, standings: Sequence[Standing] = (), offers: Sequence[Any] = (), **fields: Any
) -> str:
    """Let one job run, and return where it did."""
    job = await house.submit(**fields)
    lease: Lease = await house.claim_one(job, offers=offers or endpoints(a=4, b=4), standings=standings)
    await house.end(lease)
    (name,) = placed([lease])
    return name


async def claims(house: House, job: str) -> list[object]:
    """Return what the job's claims said about affinity."""
    events = (await house.desk.timeline(job)).events
    return [event.data.get("affinity") for event in events if event.type == "claim"]
