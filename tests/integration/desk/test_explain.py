"""Why a job waits, on a real engine: sentences that name who and what."""

from datetime import UTC, datetime

import msgspec
import pytest

from hostler.contracts.failure import Failure, FailureClass
from hostler.contracts.lease import Again, Hold
from hostler.contracts.needs import Avoid, Needs
from hostler.contracts.offer import Offer, Pool
from hostler.contracts.queue import KindSpec
from hostler.contracts.service import Endpoint, EndpointState, Enrolment
from hostler.contracts.worker import WorkerState
from hostler.policy.lanes import derive
from hostler.registry.endpoints import EngineEndpoints
from hostler.testing.eventually import eventually
from hostler.testing.front import Front, request
from hostler.valkeyio.engine import Engine


async def test_without_any_worker_that_is_the_first_reason(front: Front) -> None:
    why = await front.desk.explain(await front.submit())
    assert why.reasons[0] == "no worker of this queue lives"
    assert (why.needs, why.position, why.estimate_s) == ((), 1, None)


@pytest.mark.row("003:116")
async def test_each_need_names_every_worker_that_lacks_it_and_what_it_has(front: Front) -> None:
    await front.hire("w1", offers=(Offer(kinds=("draw",), models=("sdxl",)),))
    await front.hire("w2", offers=(Offer(kinds=("draw",), models=("turbo",), labels={"tier": "gold"}),))
    job_id = await front.submit(needs=Needs(models=("flux",), labels={"tier": "gold"}))
    why = await front.desk.explain(job_id)
    assert {need.key: [holding.worker for holding in need.lacking] for need in why.needs} == {
        "models": ["w1", "w2"],
        "labels.tier": ["w1"],
    }
    assert "flux" in " ".join(why.reasons)

    async def marked() -> bool:
        await front.foreman.tick("images")
        return (await front.desk.explain(job_id)).unworkable

    await eventually(marked, within=6.0)
    assert (await front.foreman.stats("images")).unworkable == 1


async def test_a_worker_that_fits_but_takes_no_work_is_named(front: Front) -> None:
    await front.hire(state=WorkerState.DRAINING)
    why = await front.desk.explain(await front.submit())
    assert "w1 is draining" in why.reasons[0]


async def test_amounts_that_are_taken_and_keys_that_are_busy_are_reasons(front: Front) -> None:
    await front.hire(slots=1)
    await front.submit(concurrency_key="k")
    await front.claim(slots=1.0)
    why = " ".join((await front.desk.explain(await front.submit(concurrency_key="k"))).reasons)
    assert "1 of 1 jobs of its concurrency key 'k' run" in why
    assert "it needs 1 slots: w1 has 0 of 1 left" in why


async def test_an_estimate_comes_from_measured_claims_or_says_how_many_there_were(front: Front) -> None:
    await front.hire()
    await front.answers(*(request() for _ in range(20)))
    last = await front.submit()
    early = await front.desk.explain(last)
    assert early.estimate_s is None
    assert "not enough data for an estimate (0 of 5 claims)" in early.reasons
    for lease in await front.claim(10):
        await front.end(lease)
    later = await front.desk.explain(last)
    assert (later.position, later.ahead) == (11, 10)
    assert later.estimate_s is not None
    assert later.estimate_s > 0


async def test_a_pause_a_backoff_and_a_hold_say_why_and_until_when(front: Front) -> None:
    await front.hire()
    retried, held = await front.submit(), await front.submit()
    first, second = await front.claim(2)
    await front.end(first, Again(failure=None, delay=60.0))
    await front.end(second, Hold(reason="a licence"))
    assert "it is tried again at" in (await front.desk.explain(retried)).reasons[0]
    assert (await front.desk.explain(held)).reasons[0] == "it waits for: a licence"
    waiting = await front.submit()
    await front.foreman.pause("images", operation="p", reason="new disks")
    assert "the queue images is paused: new disks" in (await front.desk.explain(waiting)).reasons


async def test_a_job_that_nobody_else_can_take_says_how_its_last_attempt_ended_and_where_it_is_not_tried_again(
    front: Front,
) -> None:
    await front.hire()
    job_id = await front.submit()
    (lease,) = await front.claim()
    failure = Failure(class_=FailureClass.CAPABILITY_MISMATCH, message="model 'flux' not found")
    await front.end(lease, Again(failure=failure, lane=derive(lease.lane, exclude="w1")))
    why = (await front.desk.explain(job_id)).reasons
    assert "not again at w1, where it failed" in why
    assert "its last attempt ended as capability_mismatch: model 'flux' not found" in why


async def test_what_a_job_avoids_is_said_to_be_there_and_not_to_be_lacking(front: Front) -> None:
    await front.hire(offers=(Offer(kinds=("draw",), labels={"tier": "gold"}),))
    why = (await front.desk.explain(await front.submit(avoid=Avoid(labels={"tier": "gold"})))).reasons
    assert "labels.tier: gold is to be avoided, and is at w1 (has gold)" in why


async def test_a_running_job_names_its_worker_and_needs_nothing(front: Front) -> None:
    await front.hire()
    job_id = await front.submit()
    await front.claim()
    why = await front.desk.explain(job_id)
    assert (why.position, why.needs, why.reasons) == (None, (), ("w1 runs it, attempt 1",))


async def test_jobs_of_other_tenants_and_of_lanes_for_other_workers_are_not_ahead(front: Front) -> None:
    plain, flux = Offer(kinds=("draw",), labels={"tier": "gold"}), Offer(kinds=("draw",), models=("flux",))
    await front.submit(needs=Needs(models=("flux",)), priority=90)
    await front.submit(needs=Needs(labels={"tier": "gold"}), priority=60)
    for worker, offer in (("w1", plain), ("w2", flux)):
        await front.hire(worker, offers=(offer,))
        await front.claim(worker=worker, offers=(offer,))
    await front.submit(needs=Needs(models=("flux",)), priority=90)
    await front.submit(tenant="blue")
    gold = Needs(labels={"tier": "gold"})
    await front.submit(needs=gold)
    last = await front.submit(needs=gold)
    why = await front.desk.explain(last)
    assert (why.position, why.ahead) == (2, 1)
    assert "2 tenants take turns, its own gets 50% of them" in why.reasons


async def test_upkeep_makes_a_lost_worker_one_event_and_its_lane_unworkable(front: Front) -> None:
    await front.hire()
    job_id = await front.submit()
    await front.foreman.tick("images")
    assert not (await front.desk.get(job_id)).unworkable
    await front.registry.withdraw("w1")

    async def marked() -> bool:
        await front.foreman.tick("images")
        return (await front.desk.get(job_id)).unworkable

    await eventually(marked, within=6.0)


async def test_an_amount_is_said_as_it_was_asked_for(front: Front) -> None:
    gpu = Pool(id="gpu0", total=16_000.0)
    offers = (Offer(kinds=("draw",), pools={"gpu_memory": gpu}),)
    await front.hire(offers=offers)
    needs = Needs(amounts={"gpu_memory": 10_000.0})
    await front.submit(needs=needs)
    waits = await front.submit(needs=needs)
    assert len(await front.claim(2, offers=offers)) == 1
    assert any("it needs 10000 gpu_memory" in reason for reason in (await front.desk.explain(waits)).reasons)


async def test_an_announced_endpoint_that_nobody_serves_is_named_with_the_command_that_serves_it(
    front: Front, engine: Engine
) -> None:
    await front.foreman.declare_kind(KindSpec(name="draw", queue="images", service="lamp", declared_by="lamp-http"))
    endpoints = EngineEndpoints(engine)
    for name, service, tier in (("a", None, "gold"), ("b", None, "tin"), ("c", "torch", "gold"), ("d", None, "gold")):
        said = Enrolment(id=name, connector="lamp-http", url=f"http://{name}:1", service=service, labels={"tier": tier})
        await endpoints.enroll(said)
    job_id = await front.submit(needs=Needs(labels={"tier": "gold"}))
    why = (await front.desk.explain(job_id)).reasons
    assert why[0] == "no worker of this queue lives"
    start = "start one with `hostler worker --connectors lamp-http:*`"
    assert [one for one in why if "announced" in one] == [
        f"a, c, d (lamp-http) are announced, and no worker serves them: {start}"
    ]
    torch = await front.submit(needs=Needs(service="torch"))
    assert f"c (lamp-http) is announced, and no worker serves it: {start}" in (await front.desk.explain(torch)).reasons
    seen = Endpoint(
        id="a",
        service="lamp",
        connector="lamp-http",
        url="http://a:1",
        protocol="http",
        state=EndpointState.UNHEALTHY,
        message="no answer",
        seen_at=datetime.now(UTC),
    )
    offer = Offer(kinds=("draw",), service="lamp", endpoint="a", labels={"tier": "gold"}, healthy=False)
    await front.hire(offers=(offer,), endpoints=(seen,))
    assert (await front.desk.explain(job_id)).reasons[-2].startswith("c, d (lamp-http) are announced")
    offer, seen = msgspec.structs.replace(offer, healthy=True), msgspec.structs.replace(seen, state=EndpointState.READY)
    await front.hire(offers=(offer,), endpoints=(seen,))
    assert not any("announced" in one for one in (await front.desk.explain(job_id)).reasons)
    for name in "abcd":
        await endpoints.leave(name)
