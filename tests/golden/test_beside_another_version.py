"""Two versions on one engine: each calls its own functions, and reads what the other wrote with fields of its own."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, aclosing
from typing import Any, Final

import pytest
from msgspec import Raw

import hostler
from hostler.broker import engine_submit
from hostler.chaos.check import Submission, check
from hostler.contracts.failure import Failure, FailureClass
from hostler.contracts.job import JobRequest, JobState
from hostler.contracts.lease import Die
from hostler.contracts.needs import Lane, Needs
from hostler.contracts.offer import Offer
from hostler.contracts.queue import KindSpec, QueueSpec
from hostler.contracts.service import Enrolment
from hostler.contracts.timeouts import Timeouts
from hostler.kernel.errors import StateConflictError
from hostler.registry.endpoints import EngineEndpoints
from hostler.registry.kinds import Kinds
from hostler.testing.engine_fabric import fabric_on
from hostler.testing.eventually import eventually
from hostler.testing.fabric import Fabric
from hostler.testing.front import Front
from hostler.testing.machine_compare import all_events
from hostler.valkeyio.engine import Engine
from hostler.valkeyio.layout import VERSION
from hostler.valkeyio.library_text import Build
from hostler.worker.handlers import HandlerSet

QUEUE = "rolling"
EACH = 60
"""Jobs between two steps of the upgrade."""
GOLD: Final = {"tier": "gold"}


@hostler.handler("count.up", queue=QUEUE)
async def count_up(call: hostler.Call[Any]) -> int:
    await asyncio.sleep(0.005)  # not waiting: the work itself
    return call.payload + 1


def of_version(engine: Engine, version: int) -> AbstractAsyncContextManager[Fabric]:
    return fabric_on(engine, build=Build(version=version))


async def submitted(fabric: Fabric, operation: str) -> list[Submission]:
    requests = [
        JobRequest(
            kind="count.up",
            payload=Raw(b"%d" % number),
            priority=number % 3 * 50,
            tenant=f"t{number % 4}",
            concurrency_key=f"line-{number}" if number < EACH // 6 else None,
        )
        for number in range(EACH)
    ]
    answers = await fabric.ports.desk.submit(requests, operation=operation)
    told: list[Submission] = []
    for answer, request in zip(answers, requests, strict=True):
        assert not isinstance(answer, Exception)
        told.append(Submission(id=answer.id, request=request))
    return told


@pytest.mark.row("000:89")
async def test_an_upgrade_worker_by_worker_under_load_loses_no_job_and_records_none_twice(engine: Engine) -> None:
    async with of_version(engine, VERSION) as old, of_version(engine, VERSION + 1) as new:
        await old.ports.foreman.declare_queue(QueueSpec(name=QUEUE))
        for kind in HandlerSet.of(count_up).kinds():
            await old.ports.foreman.declare_kind(kind)
        told = await submitted(old, "first")
        async with old.worker(count_up, slots=4, id="b1"):
            async with old.worker(count_up, slots=4, id="a1"):
                told += await submitted(new, "second")
                await eventually(lambda: moving(new), within=20)
            async with new.worker(count_up, slots=4, id="a2"):
                told += await submitted(old, "third")
                await eventually(lambda: moving(old), within=20)
                told += await submitted(new, "fourth")
                jobs = {one.id: await new.ended(one.id, within=30) for one in told}

        events = await all_events(old.ports.desk, QUEUE)
        verdict = check(
            events,
            submitted=told,
            final=jobs,
            stats=await new.ports.foreman.stats(QUEUE),
            audit=await old.ports.foreman.audit(QUEUE),
        )
    assert verdict.clean, verdict
    assert {job.state.value for job in jobs.values()} == {"succeeded"}
    finished = [event for event in events if event.type == "finish"]
    assert len(finished) == len(told) == 4 * EACH
    assert {event.worker for event in finished} == {"a1", "a2", "b1"}


async def moving(fabric: Fabric) -> bool:
    """Tell whether a third of all jobs so far have succeeded, and some run."""
    stats = await fabric.ports.foreman.stats(QUEUE)
    return stats.running > 0 and 3 * stats.totals["succeeded"] > stats.totals["submitted"]


class LaterNeeds(Needs, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Needs, as a later version may know them."""

    driver: str | None = None


class LaterTimeouts(Timeouts, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Timeouts, as a later version may know them."""

    upload: float | None = None


class LaterKind(KindSpec, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A kind, as a later version may know it."""

    colour: str | None = None


class LaterQueue(QueueSpec, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A queue, as a later version may know it."""

    mood: str | None = None


class LaterEnrolment(Enrolment, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """An endpoint, as a later version may announce it."""

    rack: str | None = None


class LaterEndpoint(Enrolment, frozen=True, kw_only=True, omit_defaults=True):
    """An endpoint that says otherwise how much it takes."""

    slots: Any = None


class LaterKindOfCache(KindSpec, frozen=True, kw_only=True, omit_defaults=True):
    """A kind that says otherwise how it is cached."""

    cache: Any = None


@pytest.fixture
async def front(engine: Engine) -> AsyncGenerator[Front]:
    async with aclosing(Front(engine)) as opened:
        await opened.foreman.declare_kind(KindSpec(name="draw", queue="images"))
        await opened.hire()
        yield opened


async def test_rows_of_a_later_version_are_read_as_far_as_this_one_knows_them(engine: Engine) -> None:
    kinds, endpoints = Kinds(engine), EngineEndpoints(engine)
    await kinds.declare_queue(LaterQueue(name="images", about="pictures", mood="calm"))
    await kinds.declare_kind(
        LaterKind(name="draw", queue="images", timeouts=LaterTimeouts(run=5.0, upload=1.0), colour="red")
    )
    await endpoints.enroll(
        LaterEnrolment(id="e1", connector="simulation-http", url="http://127.0.0.1:8299", labels={"a": "b"}, rack="7")
    )

    fresh = Kinds(engine)
    assert (await fresh.queue("images")) == QueueSpec(name="images", about="pictures")
    assert (await fresh.kind("draw")) == KindSpec(name="draw", queue="images", timeouts=Timeouts(run=5.0))
    (enrolled,) = (await endpoints.census()).enrolled
    assert enrolled.enrolment.labels == {"a": "b"}


async def test_a_row_that_cannot_be_read_keeps_nobody_from_the_others(engine: Engine, front: Front) -> None:
    endpoints = EngineEndpoints(engine)
    await endpoints.enroll(Enrolment(id="e1", connector="simulation-http", url="http://127.0.0.1:8299"))
    await endpoints.enroll(LaterEndpoint(id="e2", connector="simulation-http", url="http://127.0.0.1:83", slots="many"))
    await Kinds(engine).declare_kind(LaterKindOfCache(name="paint", queue="images", cache="by mood"))
    await front.hire("w2", slots="many")

    rows = await Kinds(engine).rows()
    assert [kind.name for row in rows for kind in row.kinds] == ["draw"]
    assert [one.enrolment.id for one in (await endpoints.census()).enrolled] == ["e1"]
    assert [worker.id for worker in await front.registry.workers()] == ["w1"]


async def test_a_job_of_a_later_version_runs_here_when_nothing_of_it_matters_for_where(front: Front) -> None:
    job = await front.submit(timeouts=LaterTimeouts(run=7.0, upload=1.0))

    (lease,) = await front.claim()
    assert (lease.job_id, lease.kind, lease.timeouts) == (job, "draw", Timeouts(run=7.0))
    assert (await front.desk.get(job)).kind == "draw"


async def test_a_job_that_needs_what_this_version_does_not_know_waits_for_a_worker_that_does(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = await front.submit(needs=Needs(labels=GOLD))
    with monkeypatch.context() as later:
        later.setattr(engine_submit, "lane_of", lane_of_a_later_version)
        later.setattr(engine_submit, "lane_key", lane_key_of_a_later_version)
        job = await front.submit(needs=LaterNeeds(labels=GOLD, driver=">=550"))
    golden = (Offer(kinds=("draw",), labels=GOLD),)
    await front.hire(offers=golden)

    assert [lease.job_id for lease in await front.claim(limit=8, offers=golden)] == [plain]
    (lacking,) = (await front.desk.explain(job)).needs
    assert "driver" in str(lacking)
    needs = (await front.desk.get(job)).needs
    assert needs.labels["tier"] == "gold"
    assert "driver" in str(needs)


async def test_a_job_whose_needs_are_not_all_known_is_not_replayed_here_and_nothing_of_them_is_lost(
    front: Front,
) -> None:
    job = await front.submit(needs=LaterNeeds(driver=">=550"))
    (lease,) = await front.claim()  # its lane is this version's own
    await front.end(lease, Die(failure=Failure(class_=FailureClass.INVALID_INPUT, message="no")))

    with pytest.raises(StateConflictError, match=r"needs\.driver"):
        await front.desk.replay(job, operation="replay")
    assert (await front.desk.get(job)).state is JobState.DEAD


def lane_of_a_later_version(request: JobRequest) -> Lane:
    return Lane(kind=request.kind, needs=request.needs)


def lane_key_of_a_later_version(lane: Lane) -> str:
    return f"later-{lane.kind}"
