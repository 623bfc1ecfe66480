"""A queue in shards, over HTTP: one queue to its clients, whichever shard a job lies in."""

from typing import Any

import msgspec
import pytest
from aiohttp import web

from hostler import connect
from hostler.contracts.api import JobFilter
from hostler.contracts.job import Progress
from hostler.contracts.lease import ClaimRequest, Lease, Succeed, Update
from hostler.contracts.offer import Pool
from hostler.contracts.problem import Problem
from hostler.kernel.errors import EngineUnavailableError
from hostler.testing.eventually import eventually
from hostler.valkeyio.engine import Engine

from .conftest import KIND, House, Opening
from .test_following import events_of

SHARDS = ("default~0", "default~1", "default~2")


async def spread(house: House, **row: Any) -> None:
    body = {"reason": "it is hot", "queue": {"shards": 3, **row}}
    answer = await house.ask("POST", "/v1/queues/default/configure", json=body)
    assert answer.status == 200, answer.body


def place_in(job: str) -> str:
    return job.rpartition(".")[0]


async def one_elsewhere(house: House) -> str:
    """Submit until the gateway has heard, and a job lies in another shard than the first; return that."""
    while True:
        if place_in(job := await house.submit()) != "default":
            return job


async def claimed(house: House, job: str) -> Lease:
    await house.announce()
    request = ClaimRequest(
        queue=place_in(job),
        worker=house.worker_id,
        limit=64,
        offers=house.offers,
        pools={"slots": Pool(id=house.worker_id, total=64)},
    )
    leases = await house.broker.claim(request, operation=f"claim-{job}")
    return next(lease for lease in leases if lease.job_id == job)


async def test_a_job_of_any_shard_is_followed_to_its_end_by_its_id(house: House) -> None:
    await spread(house)
    job = await one_elsewhere(house)
    lease = await claimed(house, job)
    update = Update(job_id=job, fence=lease.fence, progress=Progress(fraction=0.5))
    assert await house.broker.progress(house.worker_id, [update]) == ()
    async with house.session.get(f"/v1/jobs/{job}/events") as answer:
        told: list[str] = []
        async for _, event in events_of(answer):
            told.append(event["type"])
            if event["type"] == "progress":
                await house.finish(lease)
    assert told == ["submit", "claim", "progress", "finish"]
    assert (await house.ask("GET", f"/v1/jobs/{job}/timeline")).json["stream"] == place_in(job)
    shown = (await house.ask("GET", f"/v1/jobs/{job}")).json
    assert (shown["id"], shown["queue"], shown["state"]) == (job, "default", "succeeded")


async def test_a_queue_is_shown_as_one_with_its_shards_and_each_by_its_name(house: House) -> None:
    await spread(house)
    jobs = [await house.submit() for _ in range(12)]
    while not any(place_in(job) == "default~1" for job in jobs):  # until the gateway has heard of it
        jobs.append(await house.submit())
    whole = (await house.ask("GET", "/v1/queues/default")).json
    assert whole["stats"]["depth"] == len(jobs)
    assert [shard["name"] for shard in whole["stats"]["shards"]] == list(SHARDS)
    one = (await house.ask("GET", "/v1/queues/default~1")).json
    mine = [job for job in jobs if place_in(job) == "default~1"]
    assert (one["name"], one["stats"]["depth"], one["spec"]["name"]) == ("default~1", len(mine), "default")
    listed = (await house.ask("GET", "/v1/jobs?queue=default~1")).json["items"]
    assert [job["id"] for job in listed] == mine[::-1]
    names = [row["name"] for row in (await house.ask("GET", "/v1/queues")).json["items"]]
    assert names == ["default"]
    assert (await house.ask("GET", "/v1/queues/default~3")).status == 404
    metrics = (await house.ask("GET", "/metrics")).body.decode()
    assert f'hostler_queue_jobs{{queue="default",state="ready"}} {float(len(jobs))}' in metrics
    assert f'hostler_queue_shard_depth{{queue="default",shard="default~1"}} {float(len(mine))}' in metrics


async def test_a_submit_that_nobody_repeats_is_led_past_a_shard_that_takes_nothing(house: House) -> None:
    await spread(house)
    await one_elsewhere(house)
    assert (await house.ask("POST", "/v1/queues/default~1/drain", json={})).status == 200
    jobs = [await house.submit() for _ in range(30)]
    assert {place_in(job) for job in jobs} == {"default", "default~2"}
    batch = await house.ask("POST", "/v1/jobs/batch", json={"jobs": [{"kind": KIND}] * 5})
    assert all("id" in item for item in batch.json["items"]), batch.body
    named = [
        await house.ask("POST", "/v1/jobs", json={"kind": KIND}, headers={"Operation-Id": f"mine-{number}"})
        for number in range(30)
    ]
    assert {answer.status for answer in named} == {201, 429}, "what may be repeated is refused, and says so"
    refused = next(answer for answer in named if answer.status == 429)
    assert refused.json["facts"]["reroute"] is True


async def test_the_client_takes_another_operation_where_one_leads_to_a_shard_that_takes_nothing(house: House) -> None:
    await spread(house)
    await one_elsewhere(house)
    await house.ask("POST", "/v1/queues/default~1/drain", json={})
    async with connect(house.url) as fleet:
        jobs = [await fleet.submit(KIND) for _ in range(20)]
    assert {place_in(job.id) for job in jobs} == {"default", "default~2"}


async def test_the_client_keeps_an_operation_that_may_have_been_done_whatever_it_is_refused_with_later() -> None:
    heard: list[str] = []
    elsewhere = Problem(
        type="urn:hostler:error:engine-unavailable",
        title="away",
        status=503,
        code="engine-unavailable",
        retry="later",
        facts={"reroute": True},
    )

    async def answer(request: web.Request) -> web.Response:
        heard.append(request.headers["Operation-Id"])
        if len(heard) == 2 and request.transport is not None:
            request.transport.abort()
        return web.Response(status=503, body=msgspec.json.encode(elsewhere), content_type="application/problem+json")

    app = web.Application()
    app.router.add_post("/v1/jobs", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        async with connect(url, tries=4) as fleet:
            with pytest.raises(EngineUnavailableError):
                await fleet.submit(KIND)
    finally:
        await runner.cleanup()
    assert heard[1] != heard[0], "it was not sent"
    assert heard[1:] == [heard[1]] * 3, "it may have been"


async def test_what_a_shard_may_not_be_told_is_refused_by_name(house: House) -> None:
    await spread(house)
    of_shard = await house.ask("POST", "/v1/queues/default~1/configure", json={"reason": "x", "queue": {"lease": 5}})
    assert (of_shard.status, "configure that" in of_shard.json["detail"]) == (422, True)
    into_shard = await house.ask("POST", "/v1/jobs", json={"kind": KIND, "queue": "default~1"})
    assert into_shard.status == 422
    await house.submit()
    moved = await house.ask("POST", "/v1/queues/default/configure", json={"reason": "x", "queue": {"shards": 5}})
    assert (moved.status, "key_shards=3" in moved.json["detail"]) == (409, True)


async def test_shards_that_came_while_a_gateway_ran_are_heard_by_whoever_follows(
    engine: Engine, opening: Opening, house: House
) -> None:
    async with opening(engine) as other:
        await spread(house)
        job = await one_elsewhere(house)
        await eventually(lambda: follows(other), within=20)
        async with other.session.get(f"/v1/jobs/{job}/events") as answer:
            async for _, event in events_of(answer):
                if event["type"] == "submit":
                    await house.finish(await claimed(house, job), Succeed())
        assert (await other.ask("GET", f"/v1/jobs/{job}")).json["state"] == "succeeded"
    jobs, _ = await house.desk.find(JobFilter(queue="default"))
    assert job in {one.id for one in jobs}


async def follows(house: House) -> bool:
    text = (await house.ask("GET", "/metrics")).body.decode()
    return all(f'hostler_tail_offset{{queue="{shard}"}}' in text for shard in SHARDS)
