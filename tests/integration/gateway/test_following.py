"""Following a job over HTTP: long polls, event streams, and how they end."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import msgspec
from yarl import URL

from hostler.broker.foreman import EngineForeman
from hostler.contracts.failure import Failure, FailureClass
from hostler.contracts.job import BlobRef, Progress
from hostler.contracts.lease import Die, Lease, Succeed, Update
from hostler.contracts.queue import KindSpec
from hostler.testing.blobs import in_pieces, name_of
from hostler.testing.eventually import eventually
from hostler.valkeyio.engine import Engine

from .conftest import KIND, House, Opening


async def events_of(answer: aiohttp.ClientResponse) -> AsyncIterator[tuple[int, dict[str, Any]]]:
    offset = 0
    async for line in answer.content:
        if line.startswith(b"id: "):
            offset = int(line.rpartition(b"-")[2])
        elif line.startswith(b"data: "):
            yield offset, msgspec.json.decode(line[6:])


def streams(house: House, kind: str) -> float:
    return house.metrics.registry.get_sample_value("hostler_http_streams", {"kind": kind}) or 0.0


async def test_a_long_poll_answers_as_soon_as_the_job_has_ended(house: House) -> None:
    job_id = await house.submit()
    poll = asyncio.create_task(house.ask("GET", f"/v1/jobs/{job_id}?wait=30"))
    await eventually(lambda: streams(house, "wait") == 1)
    await house.finish(await house.claim())
    async with asyncio.timeout(3):
        answer = await poll
    assert (answer.json["state"], answer.json["result"]) == ("succeeded", {"said": "hello"})
    assert streams(house, "wait") == 0


async def test_a_long_poll_ends_in_time_with_the_job_as_it_is(house: House) -> None:
    job_id = await house.submit()
    answer = await house.ask("GET", f"/v1/jobs/{job_id}?wait=0.2")
    assert (answer.status, answer.json["state"]) == (200, "ready")


async def test_a_result_is_409_before_the_end_and_plain_json_after_it(house: House) -> None:
    job_id = await house.submit()
    early = await house.ask("GET", f"/v1/jobs/{job_id}/result")
    assert (early.status, early.json["code"]) == (409, "wrong-state")
    await house.finish(await house.claim())
    late = await house.ask("GET", f"/v1/jobs/{job_id}/result")
    assert (late.status, late.headers["content-type"], late.body) == (200, "application/json", b'{"said":"hello"}')


async def test_a_result_in_the_blob_store_is_served_as_the_result(house: House) -> None:
    content = b'"' + b"r" * 500_000 + b'"'
    await house.blobs.put(name_of(content), in_pieces(content), limit=1_000_000)
    job_id = await house.submit()
    lease = await house.claim()
    await house.finish(lease, Succeed(ref=BlobRef(sha256=name_of(content), size=len(content))))
    answer = await house.ask("GET", f"/v1/jobs/{job_id}/result")
    assert (answer.status, answer.headers["content-type"], answer.body) == (200, "application/json", content)


async def test_a_dead_job_has_no_result_but_says_why(house: House) -> None:
    job_id = await house.submit()
    failure = Failure(class_=FailureClass.INVALID_INPUT, message="the prompt is empty")
    await house.finish(await house.claim(), Die(failure=failure))
    answer = await house.ask("GET", f"/v1/jobs/{job_id}/result")
    assert (answer.status, answer.json["facts"]["state"]) == (409, "dead")
    job = (await house.ask("GET", f"/v1/jobs/{job_id}")).json
    assert (job["error"]["class"], job["error"]["message"]) == ("invalid_input", "the prompt is empty")


async def test_an_event_stream_tells_every_step_once_and_ends_with_the_job(house: House) -> None:
    job_id = await house.submit()
    async with house.session.get(f"/v1/jobs/{job_id}/events") as answer:
        assert answer.content_type == "text/event-stream"
        told = events_of(answer)
        assert (await anext(told))[1]["type"] == "submit"
        lease = await house.claim()
        assert (await anext(told))[1]["type"] == "claim"
        progress = Progress(fraction=0.5, message="half")
        await house.broker.progress(house.worker_id, [Update(job_id=job_id, fence=lease.fence, progress=progress)])
        offset, event = await anext(told)
        assert (event["type"], event["data"]["fraction"], event["offset"]) == ("progress", 0.5, offset)
        await house.finish(lease)
        assert [event["state"] async for _, event in told] == ["succeeded"]
    assert streams(house, "events") == 0
    timeline = (await house.ask("GET", f"/v1/jobs/{job_id}/timeline")).json
    moves = [event["type"] for event in timeline["events"] if event["state"] is not None]
    assert (moves, timeline["complete"]) == (["submit", "claim", "finish"], True)


async def test_a_stream_resumes_behind_the_last_event_without_gap_or_double(house: House) -> None:
    job_id = await house.submit()
    lease = await house.claim()
    for text in ("half ", "done"):
        update = Update(job_id=job_id, fence=lease.fence, progress=Progress(text=text))
        await house.broker.progress(house.worker_id, [update])
        await house.finish(await _another(house))
    await house.finish(lease)
    async with house.session.get(f"/v1/jobs/{job_id}/events") as answer:
        whole = [offset async for offset, _ in events_of(answer)]
    assert len(whole) == 5
    for seen in range(6):
        headers = {"Last-Event-ID": str(whole[seen - 1] if seen else 0)}
        async with house.session.get(f"/v1/jobs/{job_id}/events", headers=headers) as answer:
            assert [offset async for offset, _ in events_of(answer)] == whole[seen:]
    bad = await house.ask("GET", f"/v1/jobs/{job_id}/events", headers={"Last-Event-ID": "x"})
    assert (bad.status, bad.json["field"]) == (422, "header.Last-Event-ID")


async def _another(house: House) -> Lease:
    """Run another job in between, so that the stream is not this job's alone."""
    await house.submit()
    return await house.claim()


async def test_fifty_readers_of_one_job_all_see_the_same_story(house: House) -> None:
    job_id = await house.submit()

    async def story() -> list[int]:
        async with house.session.get(f"/v1/jobs/{job_id}/events") as answer:
            return [offset async for offset, _ in events_of(answer)]

    readers = [asyncio.create_task(story()) for _ in range(50)]
    await eventually(lambda: streams(house, "events") == 50)
    await house.finish(await house.claim())
    stories = await asyncio.gather(*readers)
    assert len(stories[0]) == 3
    assert all(told == stories[0] for told in stories)


def tasks() -> "list[asyncio.Task[Any]]":
    """Return what runs, but for the gateway's own reading of a queue, which begins when it first looks at it."""
    return [task for task in asyncio.all_tasks() if "_follow" not in repr(task.get_coro())]


async def test_a_caller_that_goes_away_leaves_nothing_running(house: House) -> None:
    job_id = await house.submit()
    before = len(tasks())
    async with aiohttp.ClientSession(house.url) as session:
        polls = [asyncio.create_task(session.get(f"/v1/jobs/{job_id}?wait=50")) for _ in range(10)]
        answers = [await session.get(f"/v1/jobs/{job_id}/events") for _ in range(10)]
        await eventually(lambda: streams(house, "wait") == 10 and streams(house, "events") == 10)
        for poll in polls:
            poll.cancel()
        for answer in answers:
            answer.close()
        await asyncio.gather(*polls, return_exceptions=True)
    await eventually(lambda: streams(house, "wait") == 0 and streams(house, "events") == 0)
    await eventually(lambda: len(tasks()) <= before)


async def test_more_readers_than_may_wait_are_told_to_come_back(engine: Engine, opening: Opening) -> None:
    await EngineForeman(engine).declare_kind(KindSpec(name=KIND))
    async with opening(engine, streams=2) as house:
        job_id = await house.submit()
        polls = [asyncio.create_task(house.ask("GET", f"/v1/jobs/{job_id}?wait=20")) for _ in range(2)]
        await eventually(lambda: streams(house, "wait") == 2)
        for path in (f"/v1/jobs/{job_id}?wait=1", f"/v1/jobs/{job_id}/events"):
            answer = await house.ask("GET", path)
            assert (answer.status, answer.json["code"]) == (429, "capacity")
            assert int(answer.headers["retry-after"]) >= 1
        await house.finish(await house.claim())
        assert [poll.json["state"] for poll in await asyncio.gather(*polls)] == ["succeeded"] * 2


async def test_a_gateway_that_stops_ends_polls_and_streams_at_once_and_cleanly(house: House) -> None:
    job_id = await house.submit()
    poll = asyncio.create_task(house.ask("GET", f"/v1/jobs/{job_id}?wait=50"))
    async with house.session.get(f"/v1/jobs/{job_id}/events") as answer:
        told = events_of(answer)
        await anext(told)
        await eventually(lambda: streams(house, "wait") == 1)
        house.stop.set()
        async with asyncio.timeout(3):
            assert [event async for event in told] == []
            assert (await poll).json["state"] == "ready"
            await house.served


async def test_a_job_that_never_was_is_404_everywhere(house: House) -> None:
    for job_id in ("default.99", "nobody.1", "nonsense", "a.b.c", "%00", "..%2f"):
        for path in ("", "/timeline", "/explain", "/result", "/events"):
            answer = await house.ask("GET", URL(f"{house.url}/v1/jobs/{job_id}{path}", encoded=True))
            assert (answer.status, answer.json["code"]) == (404, "not-found")
