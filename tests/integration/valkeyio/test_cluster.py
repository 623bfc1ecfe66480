"""On a cluster: each queue on the primary that has its slot, through fail-over, resharding and nodes that come."""

import asyncio
import signal
from collections.abc import AsyncGenerator, Generator, Sequence
from datetime import UTC, datetime

import pytest

from hostler.chaos.nodes import HOST, SAFE, Node, free_ports
from hostler.contracts.api import JobFilter
from hostler.contracts.job import JobRequest, JobState, Submitted
from hostler.contracts.queue import KindSpec
from hostler.kernel.errors import EngineUnavailableError, EngineVersionError, HostlerError, SettingsError
from hostler.kernel.settings import EngineSettings
from hostler.testing.cluster_set import ClusterSet
from hostler.testing.eventually import eventually
from hostler.valkeyio.client import send
from hostler.valkeyio.engine import Engine
from hostler.valkeyio.faults import mapped
from hostler.valkeyio.keys import REGISTRY_TAG, meta_key
from hostler.valkeyio.library import Library
from hostler.valkeyio.library_text import NAME
from hostler.valkeyio.slots import slot_of

from .house import KIND, House, Load, house

AT_MOST = 30.0
NEVER = datetime(2100, 1, 1, tzinfo=UTC)
ELSEWHERE = KindSpec(name="work.elsewhere", queue="default")
"""Its queue lies on another primary than that of `KIND`, and the registry on the third."""


@pytest.fixture(scope="module")
def standing() -> Generator[ClusterSet]:
    found = ClusterSet()
    try:
        asyncio.run(found.start())
        yield found
    finally:
        asyncio.run(found.end())


@pytest.fixture
async def nodes(standing: ClusterSet) -> AsyncGenerator[ClusterSet]:
    """The cluster of this file, empty, with all nodes up."""
    await standing.ready()
    for owner in (await standing.map()).primaries:
        await next(node for node in standing.nodes if node.port == owner[1]).command("FLUSHALL")
    yield standing
    for node in standing.nodes:
        if not node.runs:
            await asyncio.to_thread(node.start)


@pytest.fixture
async def home(nodes: ClusterSet) -> AsyncGenerator[House]:
    async with house(EngineSettings(url=nodes.url)) as opened:
        await opened.foreman.declare_kind(ELSEWHERE)
        yield opened


async def ended(task: "asyncio.Task[None]") -> None:
    task.cancel()
    await asyncio.wait({task})


async def nothing_lost(home: House, *loads: tuple[Load, str]) -> None:
    for load, queue in loads:
        states = {(await home.desk.get(job)).state for job in load.submitted}
        assert states <= {JobState.READY, JobState.RUNNING, JobState.SUCCEEDED}
        finished = [event.job for event in await home.events(queue) if event.type == "finish"]
        assert len(finished) == len(set(finished)), "one result each"
        assert {lease.job_id for lease in load.settled} <= set(finished)
        fences = [lease.fence >> 20 for lease in load.settled]
        assert fences == sorted(fences), "lives follow each other"
        assert await home.foreman.audit(queue) == ()


@pytest.mark.row("003:293")
async def test_a_primary_that_is_killed_stops_its_own_queues_only_and_nothing_acknowledged_is_lost(
    nodes: ClusterSet, home: House
) -> None:
    assert home.engine.degraded == ()
    assert "in the last 2 s (`cluster-node-timeout`)" in home.engine.promise
    assert await nodes.primary_of(KIND.queue) is not await nodes.primary_of(ELSEWHERE.queue)
    kept = await home.submit()
    held = await home.claim(lease_s=1.0)
    assert held.job_id == kept
    epoch = await home.epoch()
    load, other = Load(home), Load(home, ELSEWHERE)
    working = [asyncio.create_task(one.run()) for one in (load, other)]
    await eventually(lambda: len(load.settled) > 50 and len(other.settled) > 50, within=AT_MOST)
    await nodes.hold_back(await nodes.primary_of(KIND.queue))
    killed = await nodes.kill_primary(KIND.queue)
    before, others = len(load.settled), len(other.settled)
    await home.engine.until_down()
    await eventually(lambda: len(other.settled) > others + 20, within=AT_MOST)
    assert f"{HOST}:{killed.port} (slots " in (home.engine.down_reason or "")
    assert len(load.settled) <= before + 1, "what was under way may have ended"
    await what_is_away_is_said_and_keeps_nothing_else(home)
    await nodes.hold_back(killed, held=False)
    await eventually(lambda: len(load.settled) > before + 20, within=AT_MOST)
    for task in working:
        await ended(task)
    assert other.refusals == []
    await nothing_lost(home, (load, KIND.queue), (other, ELSEWHERE.queue))
    # A lease that ended while nobody could renew it has one lease of grace.
    assert await home.epoch() > epoch
    await home.foreman.tick(KIND.queue)
    assert (await home.desk.get(kept)).state is JobState.RUNNING
    assert (await home.settle(held)).accepted
    await home.engine.until_available(AT_MOST)
    assert any("has no replica" in warning for warning in home.engine.warnings)


async def what_is_away_is_said_and_keeps_nothing_else(home: House) -> None:
    requests = [JobRequest(kind=kind.name, run_at=NEVER) for kind in (KIND, ELSEWHERE)]
    refused, stored = await home.desk.submit(requests, operation="to both")
    assert isinstance(refused, EngineUnavailableError)
    assert isinstance(stored, Submitted)
    with pytest.raises(EngineUnavailableError, match="jobs of the queue main cannot be listed now"):
        await home.desk.find()
    found, _ = await home.desk.find(JobFilter(queue=ELSEWHERE.queue, states=(JobState.SCHEDULED,)))
    assert [job.id for job in found] == [stored.id]
    again = await home.desk.cancel(stored.id, operation="have done with it")
    assert again is JobState.CANCELLED


@pytest.mark.long
async def test_queues_go_on_while_the_primary_of_the_registry_is_down(nodes: ClusterSet, home: House) -> None:
    load, other = Load(home), Load(home, ELSEWHERE)
    left = await home.submit()
    assert (await home.claim(lease_s=1.5)).job_id == left
    working = [asyncio.create_task(one.run()) for one in (load, other)]
    await eventually(lambda: load.settled and other.settled, within=AT_MOST)
    await nodes.hold_back(await nodes.primary_of(REGISTRY_TAG))
    killed = await nodes.kill_primary(REGISTRY_TAG)
    await home.engine.until_down()
    assert (await home.desk.get(left)).state is JobState.RUNNING
    await eventually(lambda: reaped(home, left), within=AT_MOST)
    before = len(load.settled), len(other.settled)
    await eventually(lambda: len(load.settled) > before[0] + 20 and len(other.settled) > before[1] + 20, within=AT_MOST)
    await nodes.hold_back(killed, held=False)
    await nodes.until_primary_is_not(REGISTRY_TAG, killed)
    await home.engine.until_available(AT_MOST)
    for task in working:
        await ended(task)
    assert [*load.refusals, *other.refusals] == []
    assert {row.queue.name for row in await home.foreman.registry()} >= {KIND.queue, ELSEWHERE.queue}


async def reaped(home: House, job: str) -> bool:
    """Do upkeep, and tell whether it found that a lease had run out."""
    await home.foreman.tick(KIND.queue)
    return any(event.type == "reap" for event in (await home.desk.timeline(job)).events)


async def test_a_subscription_and_a_blocked_reader_hear_of_what_the_next_primary_does(
    nodes: ClusterSet, home: House
) -> None:
    await home.submit()
    await home.settle(await home.claim())
    assert await home.claim_some() == (), "an idle worker is one that is woken"
    page = await home.desk.events(KIND.queue, after=0)
    reading = asyncio.create_task(home.desk.events(KIND.queue, after=page.next, wait=AT_MOST))
    await quiet(home)
    await nodes.until_primary_is_not(KIND.queue, await nodes.kill_primary(KIND.queue))
    await home.engine.until_available(AT_MOST)
    await quiet(home)
    asleep = asyncio.create_task(woken(home))
    job = await home.submit()
    assert await asleep
    assert (await reading).events[-1].job == job


async def woken(home: House, kind: KindSpec = KIND, *, timeout: float = AT_MOST) -> bool:
    return await home.broker.wait_for_work([kind.queue], "w1", timeout=timeout)


async def quiet(home: House, kind: KindSpec = KIND) -> None:
    """Wait until it listens: what was published while nobody did is not known, so it looks once."""
    while await woken(home, kind, timeout=0.5):
        pass


async def test_a_subscription_at_any_node_hears_of_queues_of_all(nodes: ClusterSet, home: House) -> None:
    for kind in (KIND, ELSEWHERE):
        assert await home.claim_some(kind) == (), "an idle worker is one that is woken"
        await quiet(home, kind)
        asleep = asyncio.create_task(woken(home, kind))
        await home.submit(kind)
        assert await asleep


async def test_a_slot_that_moves_at_once_takes_its_queue_along_under_load_and_back(
    nodes: ClusterSet, home: House
) -> None:
    first = await nodes.primary_of(KIND.queue)
    second = await nodes.primary_of(ELSEWHERE.queue)
    load = Load(home)
    working = asyncio.create_task(load.run())
    page = await home.desk.events(KIND.queue, after=0)
    epochs = [page.epoch]
    for target in (second, first):
        before = len(load.settled)
        await eventually(lambda before=before: len(load.settled) > before + 20, within=AT_MOST)
        await nodes.migrate(KIND.queue, target)
        before = len(load.settled)
        await eventually(lambda before=before: len(load.settled) > before + 20, within=AT_MOST)
        epochs.append(await home.epoch())
    await ended(working)
    assert epochs == sorted(set(epochs)), "every move begins a new life"
    await nothing_lost(home, (load, KIND.queue))
    assert await nodes.primary_of(KIND.queue) is first


async def test_a_blocked_reader_goes_along_with_its_slot(nodes: ClusterSet, home: House) -> None:
    first = await nodes.primary_of(KIND.queue)
    page = await home.desk.events(KIND.queue, after=0)
    reading = asyncio.create_task(home.desk.events(KIND.queue, after=page.next, wait=AT_MOST))
    await nodes.migrate(KIND.queue, await nodes.primary_of(ELSEWHERE.queue))
    job = await home.submit()
    assert (await reading).events[-1].job == job
    await nodes.migrate(KIND.queue, first)


async def test_every_primary_has_the_library_and_one_that_came_later_gets_it_with_the_first_call() -> None:
    async with ClusterSet.started() as nodes, house(EngineSettings(url=nodes.url)) as home:
        await Library(home.engine).ensure()
        for address in (await nodes.map()).primaries:
            assert await has_library(next(node for node in nodes.nodes if node.port == address[1]))
        job = await home.submit()
        added = await nodes.add()
        assert not await has_library(added)
        await nodes.migrate(KIND.queue, added)
        lease = await home.claim()
        assert lease.job_id == job
        assert (await home.settle(lease)).accepted
        assert await has_library(added)
        await home.engine.until_available(AT_MOST)
        assert any(f"{HOST}:{added.port} has no replica" in warning for warning in home.engine.warnings)


async def has_library(node: Node) -> bool:
    found: Sequence[object] = await node.command("FUNCTION", "LIST", "LIBRARYNAME", NAME)
    return bool(found)


async def test_while_a_slot_is_moved_key_by_key_its_queue_refuses_all_and_tears_nothing(
    nodes: ClusterSet, home: House
) -> None:
    first, second = await nodes.primary_of(KIND.queue), await nodes.primary_of(ELSEWHERE.queue)
    slot = slot_of(meta_key(KIND.queue))
    load, other = Load(home), Load(home, ELSEWHERE)
    working = [asyncio.create_task(one.run()) for one in (load, other)]
    await eventually(lambda: len(load.settled) > 20, within=AT_MOST)
    await second.command("CLUSTER", "SETSLOT", slot, "IMPORTING", await nodes.id_of(first))
    await first.command("CLUSTER", "SETSLOT", slot, "MIGRATING", await nodes.id_of(second))
    done, others = len(load.settled), len(other.settled)
    await eventually(lambda: load.refusals and len(other.settled) > others + 10, within=AT_MOST)
    while keys := await first.command("CLUSTER", "GETKEYSINSLOT", slot, 20):
        await first.command("MIGRATE", HOST, second.port, "", 0, 5000, "KEYS", *keys)
        assert len(load.settled) <= done + 1, "what was under way may have ended"
    for node in (second, first):
        await node.command("CLUSTER", "SETSLOT", slot, "NODE", await nodes.id_of(second))
    await eventually(lambda: len(load.settled) > done + 20, within=AT_MOST)
    for task in working:
        await ended(task)
    assert {type(error) for error in load.refusals} == {EngineUnavailableError}
    assert any("is being moved" in error.message for error in load.refusals)
    assert other.refusals == []
    await nothing_lost(home, (load, KIND.queue), (other, ELSEWHERE.queue))
    await nodes.migrate(KIND.queue, first)


@pytest.mark.long
async def test_a_primary_that_hangs_is_left_and_what_waits_on_it_fails_at_once(nodes: ClusterSet) -> None:
    async with Engine.open(EngineSettings(url=nodes.url, command_timeout=AT_MOST), role="test") as engine:
        key = meta_key(KIND.queue)
        await engine.command("SET", key, "1")
        hanging = await nodes.primary_of(KIND.queue)
        hanging.signal(signal.SIGSTOP)
        waiting = asyncio.create_task(engine.command("SET", key, "2"))
        blocked = asyncio.create_task(wait_for_nothing(engine))
        await engine.until_down()
        with pytest.raises(EngineUnavailableError) as refused:  # long before its time limit
            await engine.command("GET", key)
        assert refused.value.facts["executed"] is False
        await engine.until_available(AT_MOST)
        for call in (waiting, blocked):
            with pytest.raises(EngineUnavailableError):
                await call
        await engine.command("SET", key, "3")
        hanging.signal(signal.SIGCONT)
        await eventually(lambda: is_replica(hanging), within=AT_MOST)
        assert await engine.command("GET", key) == b"3"


async def wait_for_nothing(engine: Engine) -> None:
    with mapped():
        await send(engine.blocking, "XREAD", "BLOCK", 50_000, "STREAMS", f"{meta_key(KIND.queue)}-none", "0-0")


async def is_replica(node: Node) -> bool:
    try:
        return (await node.command("INFO", "replication"))["role"] == "slave"
    except HostlerError:  # whoever is connected to a server that changes its role is cut off
        return False


@pytest.mark.long
async def test_an_orderly_change_of_primaries_is_followed_and_costs_no_acknowledged_job(
    nodes: ClusterSet, home: House
) -> None:
    primary = await nodes.primary_of(KIND.queue)
    (replica,) = await nodes.replicas_of(primary)
    load = Load(home)
    working = asyncio.create_task(load.run())
    await eventually(lambda: len(load.settled) > 20, within=AT_MOST)
    await replica.command("CLUSTER", "FAILOVER")
    await nodes.until_primary_is_not(KIND.queue, primary)
    before = len(load.settled)
    await eventually(lambda: len(load.settled) > before + 20, within=AT_MOST)
    await ended(working)
    await nothing_lost(home, (load, KIND.queue))


async def test_one_node_by_itself_is_refused_and_told_which_url_to_use(nodes: ClusterSet) -> None:
    with pytest.raises(EngineVersionError, match=r"redis\+cluster://HOST:PORT,HOST:PORT"):
        async with Engine.open(EngineSettings(url=nodes.nodes[0].url), role="test"):
            pass


async def test_a_server_by_itself_is_no_cluster_and_the_url_for_it_is_named() -> None:
    (port,) = free_ports(1)
    node = await asyncio.to_thread(Node, port, [f"{name} {value}" for name, value in SAFE.items()])
    try:
        await asyncio.to_thread(node.start)
        await eventually(node.answers, within=AT_MOST)
        with pytest.raises(SettingsError, match=f"redis://{HOST}:{port}"):
            async with Engine.open(EngineSettings(url=f"redis+cluster://{HOST}:{port}"), role="test"):
                pass
    finally:
        await node.end()


async def test_nodes_that_do_not_answer_are_an_engine_that_cannot_be_reached() -> None:
    (port,) = free_ports(1)
    url = f"redis+cluster://user:secret@{HOST}:{port}"
    with pytest.raises(EngineUnavailableError, match=rf"none of the cluster's nodes {HOST}:{port} answers") as caught:
        async with Engine.open(EngineSettings(url=url), role="test"):
            pass
    assert "secret" not in str(caught.value)
