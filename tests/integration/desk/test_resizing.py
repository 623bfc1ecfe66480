"""More or fewer shards, while it is used: no job is lost sight of, none parted from those of its key."""

from collections.abc import AsyncGenerator
from itertools import count
from typing import Any

import pytest

from hostler.broker.desk import EngineDesk
from hostler.contracts.job import JobState, Submitted
from hostler.contracts.queue import KindSpec, QueueSpec, Retention
from hostler.kernel.errors import CapacityError, ConflictError, InvalidError
from hostler.policy.sharding import shard_for, shards_of
from hostler.registry.kinds import Kinds
from hostler.testing.front import Front, request
from hostler.valkeyio.engine import Engine

ONE = QueueSpec(name="images")


@pytest.fixture
async def front(engine: Engine) -> AsyncGenerator[Front]:
    found = Front(engine)
    await found.foreman.declare_queue(ONE)
    await found.foreman.declare_kind(KindSpec(name="draw", queue="images"))
    await found.hire()
    yield found
    assert await found.leaked() == []
    await found.aclose()


def row(number: int, **more: Any) -> QueueSpec:
    return QueueSpec(name="images", shards=number, **more)


def key_of(shard: int, number: int) -> str:
    return next(f"k{n}" for n in count() if shard_for(f"concurrency:k{n}", number) == shard)


def id_key_of(shard: int, number: int) -> str:
    return next(f"i{n}" for n in count() if shard_for(f"idempotency:default:i{n}", number) == shard)


async def finish_all(front: Front, spec: QueueSpec) -> None:
    for shard in shards_of(spec):
        while leases := await front.claim(64, queue=shard):
            for lease in leases:
                assert (await front.end(lease)).accepted


async def test_jobs_without_keys_use_more_shards_at_once_and_those_with_keys_stay(front: Front) -> None:
    before = [await front.submit(concurrency_key="mine") for _ in range(3)]
    await front.foreman.declare_queue(row(3, key_shards=1))
    keyed = [await front.submit(concurrency_key=key_of(shard, 3)) for shard in range(3)]
    free = [await front.submit() for _ in range(24)]
    assert {job.rpartition(".")[0] for job in (*before, *keyed)} == {"images"}
    assert {job.rpartition(".")[0] for job in free} == {"images", "images~1", "images~2"}
    assert (await front.desk.get(before[0])).state is JobState.READY
    await finish_all(front, row(3))
    assert (await front.foreman.stats("images")).kept["succeeded"] == 30


async def test_keys_are_not_moved_while_jobs_have_not_ended_and_the_ways_out_are_named(front: Front) -> None:
    await front.submit()
    with pytest.raises(
        ConflictError, match=r"1 jobs of images have not ended.* key_shards=1 .* or let the queue take no"
    ):
        await front.foreman.declare_queue(row(3))
    assert ONE in {row.queue.name: row.queue for row in await front.foreman.registry()}.values()
    assert isinstance((await front.answers(request(concurrency_key="mine")))[0], Submitted)


async def test_keys_are_not_moved_while_an_idempotency_key_is_remembered(front: Front) -> None:
    first = await front.submit(idempotency_key="order-1")
    await finish_all(front, ONE)
    with pytest.raises(ConflictError, match="images remembers idempotency keys"):
        await front.foreman.declare_queue(row(3))
    assert await front.submit(idempotency_key="order-1") == first


async def test_keys_move_once_all_has_ended_and_nothing_is_remembered(front: Front) -> None:
    await front.foreman.declare_queue(QueueSpec(name="images", retention=Retention(idempotency=0.0)))
    await front.submit(idempotency_key="order-1", concurrency_key="mine")
    await finish_all(front, ONE)
    await front.foreman.declare_queue(row(3))
    found = [await front.submit(concurrency_key=key_of(shard, 3)) for shard in range(3)]
    assert [job.rpartition(".")[0] for job in found] == ["images", "images~1", "images~2"]


async def test_who_has_not_heard_of_the_change_stores_no_job_with_a_key_where_it_does_not_belong(front: Front) -> None:
    stale = Kinds(front.engine, monotonic=lambda: 0.0)
    await stale.read()
    desk = EngineDesk(front.engine, kinds=stale)
    await front.foreman.declare_queue(row(3))
    asked = [request(idempotency_key=id_key_of(shard, 3), concurrency_key=None) for shard in range(3)]
    first = await front.desk.submit(asked, operation="knows")
    second = await desk.submit(asked, operation="does not know")
    assert [one.id for one in second if isinstance(one, Submitted)] == [
        one.id for one in first if isinstance(one, Submitted)
    ]
    assert [one.created for one in second if isinstance(one, Submitted)] == [False] * 3
    await desk.aclose()


async def test_while_keys_move_jobs_with_a_key_are_refused_for_a_moment_and_others_are_not(front: Front) -> None:
    await front.kinds.configure(row(3))  # and whoever changes it has not come to the registry yet
    keyed, free = await front.answers(request(concurrency_key="mine"), request())
    assert isinstance(keyed, CapacityError)
    assert "are being changed" in keyed.message
    assert isinstance(free, Submitted)


async def test_a_change_that_is_refused_at_the_last_moment_leaves_all_as_it_was(front: Front) -> None:
    configure = front.kinds.configure

    async def meanwhile(spec: QueueSpec) -> None:
        if spec.shards == 3:
            await front.submit()
        await configure(spec)

    front.kinds.configure = meanwhile
    with pytest.raises(ConflictError, match="have not ended"):
        await front.foreman.declare_queue(row(3))
    front.kinds.configure = configure
    assert (await front.submit(concurrency_key="mine")).startswith("images.")


async def test_shards_go_only_when_they_are_closed_and_hold_nothing(front: Front) -> None:
    await front.foreman.declare_queue(row(3, key_shards=1))
    for _ in range(12):
        await front.submit()
    one = row(2, key_shards=1)
    with pytest.raises(ConflictError, match="once that takes no new jobs and is empty: set open_shards=2 first"):
        await front.foreman.declare_queue(one)
    await front.foreman.declare_queue(row(3, key_shards=1, open_shards=2))
    held = (await front.foreman.stats("images~2")).depth
    assert held
    with pytest.raises(ConflictError, match=f"images~2 still holds {held} jobs, {held} of which have not ended"):
        await front.foreman.declare_queue(one)
    await finish_all(front, row(3))
    with pytest.raises(ConflictError, match=f"images~2 still holds {held} jobs, 0 of which have not ended"):
        await front.foreman.declare_queue(one)
    jobs, _ = await front.desk.find(limit=100)
    for job in jobs:
        await front.desk.purge(job.id, operation=front.operation())
    await front.foreman.declare_queue(one)
    assert [shard.name for shard in (await front.foreman.stats("images")).shards] == ["images~0", "images~1"]


async def test_a_shard_that_is_closed_gives_out_what_it_holds_and_takes_nothing_in(front: Front) -> None:
    await front.foreman.declare_queue(row(2, key_shards=1))
    before = [await front.submit() for _ in range(12)]
    stale = Kinds(front.engine, monotonic=lambda: 0.0)
    await stale.read()
    desk = EngineDesk(front.engine, kinds=stale)
    await front.foreman.declare_queue(row(2, key_shards=1, open_shards=1))
    after = [await front.submit() for _ in range(12)]
    for number in range(12):
        (answer,) = await desk.submit([request()], operation=f"does not know {number}")
        assert isinstance(answer, Submitted), "it looks again, and finds where it belongs now"
        after.append(answer.id)
    assert {job.rpartition(".")[0] for job in before} == {"images", "images~1"}
    assert {job.rpartition(".")[0] for job in after} == {"images"}
    await finish_all(front, row(2))
    assert (await front.foreman.stats("images")).kept["succeeded"] == 36
    await desk.aclose()


async def test_a_queue_that_is_closed_runs_out_and_still_knows_what_was_submitted(front: Front) -> None:
    first = await front.submit(idempotency_key="order-1")
    await front.foreman.declare_queue(QueueSpec(name="images", open_shards=0))
    for refused in await front.answers(request(), request(concurrency_key="mine")):
        assert isinstance(refused, CapacityError)
        assert "images takes no such jobs just now: it is closed" in refused.message
    assert await front.submit(idempotency_key="order-1") == first
    await finish_all(front, ONE)
    await front.foreman.declare_queue(ONE)
    assert await front.submit()


async def test_who_has_not_heard_that_a_shard_went_puts_nothing_there(front: Front) -> None:
    await front.foreman.declare_queue(row(2, key_shards=1))
    stale = Kinds(front.engine, monotonic=lambda: 0.0)
    await stale.read()
    desk = EngineDesk(front.engine, kinds=stale)
    await front.foreman.declare_queue(row(2, key_shards=1, open_shards=1))
    await front.foreman.declare_queue(ONE)
    answers = [await desk.submit([request()], operation=f"op-{number}") for number in range(20)]
    ids = [answer.id for (answer,) in answers if isinstance(answer, Submitted)]
    assert len(ids) == 20
    assert {job.rpartition(".")[0] for job in ids} == {"images"}
    await desk.aclose()


async def test_shards_that_are_new_or_come_back_take_work_as_the_first_does(front: Front) -> None:
    await front.foreman.declare_queue(row(3, key_shards=1))
    await front.foreman.drain("images~2", operation=front.operation())
    await front.foreman.declare_queue(row(3, key_shards=1, open_shards=2))
    await front.foreman.declare_queue(row(2, key_shards=1))
    await front.foreman.pause("images", operation=front.operation(), reason="lunch")
    await front.foreman.declare_queue(row(4, key_shards=1))
    shards = (await front.foreman.stats("images")).shards
    assert [(shard.paused, shard.draining) for shard in shards] == [(True, False)] * 4


async def test_keys_cannot_be_spread_over_more_shards_than_there_are(front: Front) -> None:
    with pytest.raises(InvalidError, match="key_shards is 3, and images has 2 shards"):
        await front.foreman.declare_queue(row(2, key_shards=3))


async def test_only_shards_that_no_key_belongs_to_are_closed_by_themselves(front: Front) -> None:
    with pytest.raises(InvalidError, match="keys of images are spread over 3 shards, so 2 cannot be all"):
        await front.foreman.declare_queue(row(3, open_shards=2))
