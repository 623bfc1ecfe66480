"""Promise 11 of a broker, and its books: events without gaps, exact counters, pages, retention, registry rows."""

from typing import Any

import pytest

from hostler.contracts.api import JobFilter
from hostler.contracts.event import Event
from hostler.contracts.failure import Failure, FailureClass, Stage
from hostler.contracts.job import Job, JobState
from hostler.contracts.lease import Die, Hold
from hostler.contracts.offer import Offer
from hostler.kernel.errors import NotFoundError, UnknownQueueError
from hostler.policy.lifecycle import JOB_MOVES, Verb
from hostler.testing.broker_house import KIND, QUEUE, House


class EventPromises:
    """Each move is one event at the next offset."""

    async def test_offsets_have_no_gaps_and_every_move_is_in_the_life_table(self, house: House) -> None:
        await _mixed_day(house)
        events = await _all_events(house)
        assert [event.offset for event in events] == list(range(1, len(events) + 1))
        states: dict[str, JobState] = {}
        for event in events:
            if event.job is None or event.state is None:
                continue
            before = states.get(event.job)
            assert event.state in JOB_MOVES[before, Verb(event.type)]
            states[event.job] = event.state
        assert states

    async def test_a_reader_resumes_from_any_offset(self, house: House) -> None:
        await _mixed_day(house)
        events = await _all_events(house)
        for after in range(len(events) + 1):
            page = await house.desk.events(QUEUE, after=after, limit=3)
            assert [event.offset for event in page.events] == [e.offset for e in events[after : after + 3]]
            assert page.next == (page.events[-1].offset if page.events else after)
            assert not page.gap

    async def test_a_reader_that_comes_more_than_an_hour_too_late_is_told(self, house: House) -> None:
        await house.declare(retention={"events": 100})
        for _ in range(30):
            for job_id in await house.submit_many(10):
                await house.desk.cancel(job_id, operation=house.operation())
        assert not (await house.desk.events(QUEUE, after=0, limit=10)).gap
        for _ in range(3):
            await house.advance(3601.0)
            await house.tick()
        page = await house.desk.events(QUEUE, after=0, limit=10)
        assert page.gap
        assert page.events[0].offset > 1

    async def test_a_timeline_is_the_jobs_events_in_order(self, house: House) -> None:
        job_id = await house.submit("once", delay=1.0)
        await house.advance(1.1)
        await house.fail(await house.claim_one(job_id))
        timeline = await house.desk.timeline(job_id)
        assert [(event.type, event.state) for event in timeline.events] == [
            ("submit", "scheduled"),
            ("wake", "ready"),
            ("claim", "running"),
            ("fail", "dead"),
        ]
        assert timeline.complete
        assert [event.offset for event in timeline.events] == sorted(event.offset for event in timeline.events)

    async def test_pause_resume_and_drain_are_events_of_the_queue_once_each(self, house: House) -> None:
        for verb in (house.foreman.pause, house.foreman.drain, house.foreman.resume):
            for n in range(2):
                await verb(QUEUE, operation=f"{verb.__name__}-{n}")
        assert [event.type for event in await _all_events(house) if event.job is None] == ["pause", "drain", "resume"]


class BookPromises:
    """Counters are exact, lists complete, what ended leaves by age and count."""

    async def test_counters_are_exact_after_a_mixed_day(self, house: House) -> None:
        await _mixed_day(house)
        stats = await house.foreman.stats(QUEUE)
        jobs = await _all_jobs(house)
        by_state = {state: sum(1 for one in jobs.values() if one is state) for state in JobState}
        assert (stats.ready, stats.scheduled, stats.running, stats.waiting) == (
            by_state[JobState.READY],
            by_state[JobState.SCHEDULED],
            by_state[JobState.RUNNING],
            by_state[JobState.WAITING],
        )
        assert {state: stats.kept.get(state, 0) for state in JobState if state.terminal} == {
            state: by_state[state] for state in JobState if state.terminal
        }
        assert stats.depth == stats.ready + stats.scheduled + stats.running + stats.waiting
        assert stats.totals["submitted"] == len(jobs) + stats.totals.get("purged", 0)
        assert await house.foreman.audit(QUEUE) == ()

    async def test_a_queue_that_never_was_is_unknown(self, house: House) -> None:
        with pytest.raises(UnknownQueueError):
            await house.foreman.stats("nowhere")

    async def test_ended_jobs_leave_by_age_and_dead_ones_later(self, house: House) -> None:
        await house.declare(retention={"terminal": 60.0, "dead": 600.0})
        job_id = await house.submit()
        await house.end(await house.claim_one(job_id))
        dead = await house.dead()
        await house.pass_time(50.0)
        assert await house.state(job_id) is JobState.SUCCEEDED
        await house.pass_time(12.0)
        with pytest.raises(NotFoundError):
            await house.desk.get(job_id)
        assert await house.state(dead) is JobState.DEAD
        assert (await house.foreman.stats(QUEUE)).kept["dead"] == 1

    async def test_ended_jobs_leave_by_count_oldest_first(self, house: House) -> None:
        await house.declare(retention={"terminal_count": 2})
        ids = await house.submit_many(5)
        for lease in await house.claim(5):
            await house.end(lease)
            await house.advance(0.01)
        await house.pass_time(2.0)
        page, _ = await house.desk.find(JobFilter(queue=QUEUE))
        assert sorted(job.id for job in page) == sorted(ids[-2:])

    async def test_pages_are_newest_first_and_together_complete(self, house: House) -> None:
        ids = await house.submit_many(25)
        seen: list[str] = []
        cursor: str | None = None
        while True:
            page, cursor = await house.desk.find(JobFilter(queue=QUEUE), cursor=cursor, limit=10)
            assert len(page) <= 10
            seen.extend(job.id for job in page)
            if cursor is None:
                break
        assert seen == ids[::-1]

    async def test_a_list_can_be_narrowed_by_each_fact(self, house: House) -> None:
        plain = await house.submit()
        other = await house.submit("draw", tenant="blue", labels={"a": "b", "c": "d"})
        running = await house.submit(tenant="a", priority=100)
        await house.claim_one(running)
        filters: tuple[tuple[dict[str, Any], set[str]], ...] = (
            ({"kind": "draw"}, {other}),
            ({"tenant": "blue"}, {other}),
            ({"labels": {"a": "b"}}, {other}),
            ({"labels": {"a": "x"}}, set()),
            ({"states": (JobState.READY,)}, {plain, other}),
            ({"states": (JobState.READY, JobState.RUNNING)}, {plain, other, running}),
            ({"worker": "w1"}, {running}),
        )
        for wanted, ids in filters:
            page, _ = await house.desk.find(JobFilter(queue=QUEUE, **wanted))
            assert {job.id for job in page} == ids

    @pytest.mark.row("002:195")
    async def test_dead_jobs_are_found_by_the_class_of_their_error_and_by_when_they_ended(self, house: House) -> None:
        idle = Failure(class_=FailureClass.TIMEOUT, stage=Stage.IDLE, message="silent")
        ended: list[Job] = []
        for failure in (idle, Failure(class_=FailureClass.REFUSED, message="no")):
            lease = await house.claim_one(await house.submit())
            await house.end(lease, Die(failure=failure))
            ended.append(await house.job(lease.job_id))
            await house.pass_time(60)
        await house.submit()
        early, late = ended
        filters: tuple[tuple[dict[str, Any], set[str]], ...] = (
            ({"error_class": "refused"}, {late.id}),
            ({"error_class": "timeout"}, {early.id}),
            ({"error_class": "timeout:idle"}, {early.id}),
            ({"error_class": "timeout:run"}, set()),
            ({"ended_since": late.finished_at}, {late.id}),
            ({"ended_until": late.finished_at}, {early.id}),
            ({"ended_since": early.finished_at}, {early.id, late.id}),
            ({"ended_since": early.finished_at, "error_class": "refused"}, {late.id}),
        )
        for wanted, ids in filters:
            page, _ = await house.desk.find(JobFilter(queue=QUEUE, **wanted))
            assert {job.id for job in page} == ids, wanted

    async def test_the_registry_has_a_row_for_every_queue_with_its_kinds(self, house: House) -> None:
        await house.declare("side", about="beside")
        rows = {row.queue.name: row for row in await house.foreman.registry()}
        assert {kind.name for kind in rows[QUEUE].kinds} == {"work", "draw", "once"}
        assert rows["side"].queue.about == "beside"

    async def test_declaring_a_kind_makes_its_queue(self, house: House) -> None:
        await house.kind("far", queue="afield")
        assert (await house.foreman.stats("afield")).depth == 0

    async def test_a_pause_keeps_its_reason_until_it_is_resumed(self, house: House) -> None:
        await house.foreman.pause(QUEUE, operation="p", reason="maintenance")
        stats = await house.foreman.stats(QUEUE)
        assert (stats.paused, stats.reason) == (True, "maintenance")
        await house.foreman.resume(QUEUE, operation="r")
        assert not (await house.foreman.stats(QUEUE)).paused


class RosterPromises:
    """The promises of the worker registry."""

    async def test_an_announced_worker_is_listed_until_its_lease_lapses(self, house: House) -> None:
        await house.hire("w2", ttl=10.0)
        await house.hire("w1", ttl=60.0)
        assert [worker.id for worker in await house.registry.workers()] == ["w1", "w2"]
        await house.advance(10.5)
        assert [worker.id for worker in await house.registry.workers()] == ["w1"]
        gone = {worker.id: worker.state for worker in await house.registry.workers(include_gone=True)}
        assert gone == {"w1": "ready", "w2": "lost"}

    async def test_a_renewed_announcement_keeps_it_listed_and_the_latest_wins(self, house: House) -> None:
        await house.hire("w1", ttl=10.0)
        await house.advance(9.0)
        await house.hire("w1", ttl=10.0, slots=3, offers=(Offer(kinds=("draw",)),))
        await house.advance(9.0)
        (worker,) = await house.registry.workers()
        assert (worker.slots, worker.offers[0].kinds) == (3, ("draw",))

    async def test_a_withdrawn_worker_is_gone_at_once_and_its_leases_are_not_touched(self, house: House) -> None:
        await house.hire("w1")
        job_id = await house.submit()
        await house.claim_one(job_id)
        await house.registry.withdraw("w1")
        await house.registry.withdraw("w1")
        assert await house.registry.workers() == ()
        assert await house.state(job_id) is JobState.RUNNING
        (gone,) = await house.registry.workers(include_gone=True)
        assert gone.state == "stopped"

    async def test_a_command_reaches_its_worker_once_and_in_order(self, house: House) -> None:
        await house.hire("w1")
        (record,) = await house.registry.workers()
        assert not (await house.registry.announce(record)).commands
        await house.registry.command("w1", "pause", reason="x")
        assert (await house.registry.announce(record)).commands
        await house.registry.command("w1", "resume")
        assert await house.registry.commands("w1") == ("pause", "resume")
        assert await house.registry.commands("w1") == ()
        assert not (await house.registry.announce(record)).commands
        with pytest.raises(NotFoundError):
            await house.registry.command("nobody", "pause")


async def _mixed_day(house: House) -> None:
    """Let every verb happen at least once."""
    await house.hire("w1")
    ids = await house.submit_many(6)
    leases = await house.claim(5)
    await house.end(leases[0])
    await house.fail(leases[1], delay=2.0)
    await house.end(leases[2], Hold(reason="x"))
    await house.desk.cancel(leases[3].job_id, operation=house.operation())
    await house.end(leases[3])
    await house.desk.cancel(ids[5], operation=house.operation())
    dead = await house.dead()
    await house.submit(delay=1.0)
    await house.submit(timeouts={"queue": 1.0}, needs={"models": ("nowhere",)})
    await house.pass_time(12.0)
    assert not (await house.end(leases[4])).accepted
    await house.desk.replay(dead, operation=house.operation())
    await house.desk.purge(ids[0], operation=house.operation())
    await house.submit(KIND)


async def _all_events(house: House) -> list[Event]:
    events: list[Event] = []
    after = 0
    while (page := await house.desk.events(QUEUE, after=after, limit=100)).events:
        events.extend(page.events)
        after = page.next
    return events


async def _all_jobs(house: House) -> dict[str, JobState]:
    jobs: dict[str, JobState] = {}
    cursor: str | None = None
    while True:
        page, cursor = await house.desk.find(JobFilter(queue=QUEUE), cursor=cursor, limit=100)
        jobs.update({job.id: job.state for job in page})
        if cursor is None:
            return jobs
