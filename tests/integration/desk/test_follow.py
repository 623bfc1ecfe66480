"""Following a queue on a real engine: events without gaps, waits that end with the event, lists by cursor."""

import asyncio
import time

import pytest
from msgspec import Raw

from hostler.contracts.api import JobFilter
from hostler.contracts.failure import Failure, FailureClass
from hostler.contracts.job import JobState
from hostler.contracts.lease import Die
from hostler.contracts.queue import KindSpec
from hostler.kernel.errors import InvalidError, NotFoundError, UnknownQueueError
from hostler.testing.eventually import eventually
from hostler.testing.front import Front, request
from hostler.valkeyio.keys import prefix


async def test_a_waiting_reader_gets_the_event_as_it_comes(front: Front) -> None:
    first = asyncio.create_task(front.desk.events("images", after=0, wait=20.0))
    await eventually(lambda: _blocked(front))
    began = time.monotonic()
    job_id = await front.submit()
    page = await first
    assert time.monotonic() - began < 1.0
    assert [(event.job, event.type) for event in page.events] == [(job_id, "submit")]
    assert page.next == 1


async def test_many_waiting_readers_hold_one_connection(front: Front) -> None:
    readers = [asyncio.create_task(front.desk.events("images", after=0, wait=20.0)) for _ in range(50)]
    await eventually(lambda: _blocked(front))
    clients = (await front.engine.command("CLIENT", "LIST")).decode()
    assert sum("cmd=xread" in line for line in clients.splitlines()) == 1
    await front.submit()
    pages = await asyncio.gather(*readers)
    assert {page.next for page in pages} == {1}


async def test_a_wait_without_events_ends_in_time_and_empty(front: Front) -> None:
    began = time.monotonic()
    page = await front.desk.events("images", after=0, wait=0.2)
    assert 0.15 < time.monotonic() - began < 2.0
    assert (page.events, page.next, page.gap, page.epoch) == ((), 0, False, 0)


async def test_an_offset_from_the_future_of_a_lost_queue_is_a_gap(front: Front) -> None:
    await front.submit()
    page = await front.desk.events("images", after=1000)
    assert (page.gap, page.next) == (True, 1)


async def test_an_offset_that_is_no_longer_kept_is_a_gap(front: Front) -> None:
    for _ in range(5):
        await front.submit()
    await front.engine.command("XTRIM", f"{prefix('images')}ev", "MAXLEN", 2)
    page = await front.desk.events("images", after=0)
    assert page.gap
    assert [event.offset for event in page.events] == [4, 5]
    assert not (await front.desk.events("images", after=3)).gap


async def test_a_page_inside_an_entry_of_many_events_goes_on_where_it_ended(front: Front) -> None:
    await front.answers(*(request() for _ in range(10)))
    seen: list[int] = []
    while page := await front.desk.events("images", after=seen[-1] if seen else 0, limit=3):
        if not page.events:
            break
        assert len(page.events) <= 3
        seen += [event.offset for event in page.events]
    assert seen == list(range(1, 11))


async def test_a_stream_of_an_unknown_queue_is_refused(front: Front) -> None:
    with pytest.raises(UnknownQueueError):
        await front.desk.events("nowhere", after=0)


async def test_pages_over_all_queues_are_newest_first_and_complete(front: Front) -> None:
    await front.foreman.declare_kind(KindSpec(name="other", queue="others"))
    ids = [await front.submit("draw" if n % 2 else "other") for n in range(17)]
    seen: list[str] = []
    cursor = None
    while True:
        page, cursor = await front.desk.find(cursor=cursor, limit=5)
        seen += [job.id for job in page]
        if cursor is None:
            break
    assert seen == ids[::-1]


@pytest.mark.row("002:195")
async def test_dead_jobs_are_found_among_many_others_with_why_they_died(front: Front) -> None:
    dead = await front.submit(labels={"who": "me"})
    (lease,) = await front.claim()
    await front.end(lease, Die(failure=Failure(class_=FailureClass.INVALID_INPUT, message="no such sampler")))
    for _ in range(3):
        await front.answers(*(request() for _ in range(100)))
    page, cursor = await front.desk.find(JobFilter(queue="images", states=(JobState.DEAD,)))
    assert ([job.id for job in page], cursor) == ([dead], None)
    assert page[0].error is not None
    assert (page[0].error.class_, page[0].error.message) == ("invalid_input", "no such sampler")
    assert [attempt.outcome for attempt in page[0].attempts] == ["fail"]


async def test_one_fitting_job_behind_thousands_is_found_by_following_the_cursor(front: Front) -> None:
    wanted = await front.submit(tenant="rare")
    for _ in range(30):
        await front.answers(*(request() for _ in range(100)))
    found: list[str] = []
    cursor = None
    while True:
        page, cursor = await front.desk.find(JobFilter(queue="images", tenant="rare"), cursor=cursor)
        found += [job.id for job in page]
        if cursor is None:
            break
    assert found == [wanted]


async def test_a_cursor_that_no_list_gave_is_refused(front: Front) -> None:
    for cursor in ("!!", "AAAA", "x" * 1000):
        with pytest.raises(InvalidError):
            await front.desk.find(JobFilter(queue="images"), cursor=cursor)


async def test_what_no_broker_gave_out_as_an_id_is_not_found(front: Front) -> None:
    for job_id in ("", "images", "images.", "reg.1", "a{b.1", "images.x", "images.-1", "..", "images.1.2"):
        with pytest.raises(NotFoundError):
            await front.desk.get(job_id)


@pytest.mark.row("003:345")
async def test_a_job_that_cannot_be_read_is_dead_verbatim_and_hides_no_other(front: Front) -> None:
    broken, good = await front.submit(payload="first"), await front.submit(payload="second")
    damage = b"\xff\x00not an envelope"
    await front.engine.command("SET", f"{prefix('images')}p:{broken.partition('.')[2]}", damage)
    leases = await front.claim(5)
    assert [lease.job_id for lease in leases] == [good]
    job = await front.desk.get(broken, payload=True)
    assert (job.state, job.kind) == (JobState.DEAD, "(unreadable)")
    assert job.error is not None
    assert job.error.class_ == "internal"
    assert isinstance(job.payload, Raw)
    assert bytes(job.payload) == b'"\xc3\xbf\\u0000not an envelope"'
    assert await front.claim(5) == ()
    page, _ = await front.desk.find(JobFilter(queue="images", states=(JobState.DEAD,)))
    assert [one.id for one in page] == [broken]


async def _blocked(front: Front) -> bool:
    return b"cmd=xread" in await front.engine.command("CLIENT", "LIST")
