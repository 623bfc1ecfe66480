"""On a cluster: the shards of a queue lie on several primaries, and one that is lost takes no other with it."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from hostler.contracts.job import JobRequest, Submitted
from hostler.contracts.lease import Lease
from hostler.contracts.queue import KindSpec, QueueSpec
from hostler.kernel.errors import EngineUnavailableError, HostlerError, reroutable
from hostler.kernel.settings import EngineSettings
from hostler.policy.sharding import place_of, shard_for, shards_of
from hostler.testing.cluster_set import ClusterSet
from hostler.testing.eventually import eventually
from hostler.valkeyio.slots import slot_of

from .house import House, house

HOT = QueueSpec(name="hot", shards=6)
KIND = KindSpec(name="work.hot", queue="hot")
AT_MOST = 30.0


@pytest.fixture
async def nodes() -> AsyncGenerator[ClusterSet]:
    async with ClusterSet.started() as found:
        yield found


async def claim_from(home: House, shard: str) -> tuple[Lease, ...]:
    return await home.claim_some(KindSpec(name=KIND.name, queue=shard))


async def submit(home: House, operation: str, **fields: Any) -> Submitted | Exception:
    (answer,) = await home.desk.submit([JobRequest(kind=KIND.name, **fields)], operation=operation)
    return answer


async def test_a_primary_that_is_lost_stops_its_shards_only_and_nothing_of_them_is_lost(nodes: ClusterSet) -> None:
    async with house(EngineSettings(url=nodes.url)) as home:
        await home.foreman.declare_queue(HOT)
        await home.foreman.declare_kind(KIND)
        shards = shards_of(HOT)
        owners = {shard: await nodes.primary_of(place_of(shard)) for shard in shards}
        assert len(set(owners.values())) == 3, "the names spread over the primaries"
        assert len({slot_of(f"{{{place_of(shard)}}}") for shard in shards}) == 6
        registry = await nodes.primary_of("reg")
        struck = next(node for node in owners.values() if node is not registry)
        gone = [shard for shard, node in owners.items() if node is struck]
        left = [shard for shard in shards if shard not in gone]
        before = [await submit(home, f"before-{number}") for number in range(30)]
        ids = [answer.id for answer in before if isinstance(answer, Submitted)]
        assert len(ids) == 30
        await nodes.hold_back(struck)
        await asyncio.to_thread(struck.kill)
        await home.engine.until_down()

        meanwhile = {number: await submit(home, f"meanwhile-{number}") for number in range(60)}
        stored = [answer.id for answer in meanwhile.values() if isinstance(answer, Submitted)]
        refused = {number: answer for number, answer in meanwhile.items() if not isinstance(answer, Submitted)}
        assert {job.rpartition(".")[0] for job in stored} == {place_of(shard) for shard in left}
        assert refused
        assert all(isinstance(answer, EngineUnavailableError) and reroutable(answer) for answer in refused.values())
        key = next(f"k{n}" for n in range(1000) if shards[shard_for(f"concurrency:k{n}", 6)] in left)
        assert isinstance(await submit(home, "keyed", concurrency_key=key), Submitted)
        with_key = next(f"k{n}" for n in range(1000) if shards[shard_for(f"concurrency:k{n}", 6)] in gone)
        with pytest.raises(HostlerError):
            await submit(home, "keyed elsewhere", concurrency_key=with_key)
        for shard in left:
            while leases := await claim_from(home, shard):
                for lease in leases:
                    assert (await home.settle(lease)).accepted

        await nodes.hold_back(struck, held=False)
        await nodes.until_primary_is_not(place_of(gone[0]), struck)
        await home.engine.until_available(AT_MOST)
        again = {number: await submit(home, f"meanwhile-{number}") for number in range(60)}
        assert all(isinstance(answer, Submitted) for answer in again.values())
        assert [again[number] for number in range(60) if number not in refused] == [
            meanwhile[number] for number in range(60) if number not in refused
        ], "what was stored meanwhile is found again, in the same shard"
        await finish(home, shards)
        stats = await home.foreman.stats("hot")
        assert (stats.depth, stats.kept["succeeded"]) == (0, 91)
        for job in ids:
            assert (await home.desk.get(job)).state == "succeeded"
        assert await home.foreman.audit("hot") == ()


async def finish(home: House, shards: tuple[str, ...]) -> None:
    async def empty() -> bool:
        for shard in shards:
            for lease in await claim_from(home, shard):
                assert (await home.settle(lease)).accepted
        return not (await home.foreman.stats("hot")).depth

    await eventually(empty, within=AT_MOST)
