"""Behind sentinels: another server takes over, what was acknowledged stays, and nothing is numbered twice."""

import asyncio
import contextlib
import signal
from collections.abc import AsyncGenerator

import pytest

from hostler.chaos.nodes import HOST, Node, free_ports
from hostler.chaos.sentinel_set import SERVICE, SentinelSet
from hostler.contracts.fence import attempt_of
from hostler.contracts.job import JobState
from hostler.contracts.lease import Again, LeaseRef
from hostler.kernel.errors import EngineUnavailableError, EngineUnsafeError, HostlerError, NotFoundError, SettingsError
from hostler.kernel.settings import EngineSettings
from hostler.testing.eventually import eventually
from hostler.valkeyio.client import send
from hostler.valkeyio.connections import Route
from hostler.valkeyio.engine import Engine
from hostler.valkeyio.faults import mapped
from hostler.valkeyio.sentinels import Sentinels
from hostler.valkeyio.urls import sentinel_url
from hostler.valkeyio.ways import Followed, Straight

from .house import House, Load, house

AT_MOST = 30.0


@pytest.fixture
async def sentinels() -> AsyncGenerator[SentinelSet]:
    async with SentinelSet.started() as found:
        yield found


async def test_jobs_acknowledged_before_the_primary_is_killed_are_there_and_work_goes_on(
    sentinels: SentinelSet,
) -> None:
    async with house(EngineSettings(url=sentinels.url)) as home:
        assert home.engine.degraded == ()
        assert "`min-replicas-max-lag`" in home.engine.promise
        kept = await home.submit()
        held = await home.claim(lease_s=1.0)
        assert held.job_id == kept
        epoch = await home.epoch()
        load = Load(home)
        working = asyncio.create_task(load.run())
        await eventually(lambda: len(load.settled) > 100, within=AT_MOST)
        killed = await sentinels.kill_primary()
        before = len(load.settled)
        await eventually(lambda: len(load.settled) > before + 20, within=AT_MOST)
        working.cancel()
        await asyncio.wait({working})
        assert await sentinels.primary() is not killed
        states = {(await home.desk.get(job)).state for job in load.submitted}
        assert states <= {JobState.READY, JobState.RUNNING, JobState.SUCCEEDED}
        finished = [event.job for event in await home.events() if event.type == "finish"]
        assert len(finished) == len(set(finished)), "one result each"
        assert {lease.job_id for lease in load.settled} <= set(finished)
        # A lease that ended while nobody could renew it has one lease of grace.
        assert await home.epoch() > epoch
        await home.foreman.tick("main")
        assert (await home.desk.get(kept)).state is JobState.RUNNING
        assert (await home.settle(held)).accepted
        assert await home.foreman.audit("main") == ()


async def test_a_subscription_and_a_blocked_reader_hear_of_what_the_next_primary_does(sentinels: SentinelSet) -> None:
    async with house(EngineSettings(url=sentinels.url)) as home:
        await home.submit()
        await home.settle(await home.claim())
        assert await home.claim_some() == (), "an idle worker is one that is woken"
        page = await home.desk.events("main", after=0)
        asleep = asyncio.create_task(woken(home))
        reading = asyncio.create_task(home.desk.events("main", after=page.next, wait=AT_MOST))
        await sentinels.until_primary_is_not(await sentinels.kill_primary())
        await home.engine.until_available(AT_MOST)
        while asleep.done() and await asleep:  # what was published while nobody listened is not known: it looks
            asleep = asyncio.create_task(woken(home, timeout=0.5))
            await asyncio.wait({asleep})
        asleep = asyncio.create_task(woken(home))
        job = await home.submit()
        assert await asleep
        assert (await reading).events[-1].job == job


async def woken(home: House, *, timeout: float = AT_MOST) -> bool:
    return await home.broker.wait_for_work(["main"], "w1", timeout=timeout)


async def test_what_only_the_killed_primary_knew_is_refused_and_no_number_of_it_is_given_again() -> None:
    async with (
        SentinelSet.started(settings={"min-replicas-to-write": "0"}) as sentinels,
        house(EngineSettings(url=sentinels.url, allow_degraded=True)) as home,
    ):
        assert any("`min-replicas-to-write` is `0`" in reason for reason in home.engine.degraded)
        job = await home.submit()
        first = await home.claim()
        await home.settle(first, Again(failure=None))
        epoch, (old, *replicas) = await home.epoch(), await in_order(sentinels)
        await eventually(lambda: in_step(old, replicas))
        for node in replicas:
            node.signal(signal.SIGSTOP)
        await old.command("CLIENT", "KILL", "TYPE", "replica")
        stale = await home.claim()
        lost = await home.submit()
        lost_lease = await home.claim()
        await sentinels.kill_primary()
        for node in replicas:
            node.signal(signal.SIGCONT)
        await sentinels.until_primary_is_not(old)
        await home.engine.until_available(AT_MOST)
        assert (await home.desk.get(job)).state is JobState.READY
        with pytest.raises(NotFoundError):
            await home.desk.get(lost)
        lease = await home.claim()
        assert lease.job_id == stale.job_id == job
        assert lease.fence > stale.fence
        assert attempt_of(lease.fence) == attempt_of(stale.fence) == 2
        for gone in (first, stale, lost_lease):
            assert not (await home.settle(gone)).accepted
        refs = [LeaseRef(job_id=job, fence=fence) for fence in (stale.fence, lease.fence)]
        assert (await home.broker.renew("w1", refs)).lost == (refs[0],)
        assert await home.submit() != lost
        assert await home.epoch() > epoch
        assert (await home.settle(lease)).accepted


async def in_order(sentinels: SentinelSet) -> list[Node]:
    primary = await sentinels.primary()
    return [primary, *(node for node in sentinels.servers if node is not primary)]


async def in_step(primary: Node, replicas: list[Node]) -> bool:
    offsets = {(await node.command("INFO", "replication"))["master_repl_offset"] for node in (primary, *replicas)}
    return len(offsets) == 1


async def test_a_primary_that_hangs_is_left_and_what_waits_on_it_fails_at_once(sentinels: SentinelSet) -> None:
    settings = EngineSettings(url=sentinels.url, command_timeout=AT_MOST)
    async with Engine.open(settings, role="test") as engine:
        await engine.command("SET", "kept", "1")
        hanging = await sentinels.primary()
        hanging.signal(signal.SIGSTOP)
        waiting = asyncio.create_task(engine.command("SET", "kept", "2"))
        blocked = asyncio.create_task(wait_for_nothing(engine))
        await engine.until_down()
        await engine.until_available(AT_MOST)
        for call in (waiting, blocked):
            with pytest.raises(EngineUnavailableError):
                await call
        await engine.command("SET", "kept", "3")
        hanging.signal(signal.SIGCONT)
        assert await (await sentinels.primary()).command("GET", "kept") == b"3"
        await eventually(lambda: is_replica(hanging), within=AT_MOST)
        assert await engine.command("GET", "kept") == b"3"


async def wait_for_nothing(engine: Engine) -> None:
    with mapped():
        await send(engine.blocking, "BLPOP", "nothing", 50)


async def is_replica(node: Node) -> bool:
    try:
        return (await node.command("INFO", "replication"))["role"] == "slave"
    except HostlerError:  # whoever is connected to a server that changes its role is cut off
        return False


async def test_sentinels_that_are_too_few_are_shown_before_and_while_the_primary_is_down(
    sentinels: SentinelSet,
) -> None:
    for node in sentinels.sentinels[1:]:
        await asyncio.to_thread(node.kill)
    (left, *_) = sentinels.sentinels

    async def alone() -> bool:
        try:
            await left.command("SENTINEL", "CKQUORUM", SERVICE)
        except HostlerError:
            return True
        return False

    await eventually(alone, within=AT_MOST)
    async with Engine.open(EngineSettings(url=sentinels.url), role="test") as engine:
        assert any("no other can be chosen: NOQUORUM" in warning for warning in engine.warnings)
        assert "1 of the 3 sentinels in the engine's URL answer: start the others" in engine.warnings
        await sentinels.kill_primary()
        await engine.until_down()
        await eventually(
            lambda: "can choose no other until more of them run: NOQUORUM" in str(engine.down_reason), within=AT_MOST
        )


async def test_a_service_that_no_sentinel_watches_is_named_with_those_that_they_do(sentinels: SentinelSet) -> None:
    url = sentinels.url.replace(f"/{SERVICE}", "/barn")
    with pytest.raises(SettingsError, match=rf"watches no service 'barn', but: {SERVICE}"):
        async with Engine.open(EngineSettings(url=url, wait=AT_MOST), role="test"):
            pass


async def test_sentinels_that_do_not_answer_are_an_engine_that_cannot_be_reached() -> None:
    (port,) = free_ports(1)
    url = f"redis+sentinel://user:secret@{HOST}:{port}/{SERVICE}"
    with pytest.raises(EngineUnavailableError, match=rf"none of the sentinels {HOST}:{port} answers") as caught:
        async with Engine.open(EngineSettings(url=url), role="test"):
            pass
    assert "secret" not in str(caught.value)


async def test_a_primary_that_may_lose_any_number_of_jobs_is_refused() -> None:
    async with SentinelSet.started(settings={"min-replicas-to-write": "0"}) as sentinels:
        with pytest.raises(EngineUnsafeError, match="CONFIG SET min-replicas-to-write 1"):
            async with Engine.open(EngineSettings(url=sentinels.url), role="test"):
                pass


async def test_a_server_that_is_a_replica_is_asked_nothing_for_what_it_knows_is_old(sentinels: SentinelSet) -> None:
    primary = await sentinels.primary()
    replica = next(node for node in sentinels.servers if node is not primary)
    for node, refused in ((primary, False), (replica, True)):
        way = Straight(EngineSettings(), f"redis://{HOST}:{node.port}", "test", Route((HOST, node.port)))
        try:
            with pytest.raises(EngineUnavailableError) if refused else contextlib.nullcontext(), mapped():
                assert await send(way.client, "GET", "nothing") is None
        finally:
            await way.aclose()


async def test_a_primary_that_comes_back_while_another_may_be_chosen_is_asked_nothing_until_that_is_known(
    sentinels: SentinelSet,
) -> None:
    settings, (primary, *replicas) = EngineSettings(), await in_order(sentinels)
    target = sentinel_url(sentinels.url)
    assert target is not None
    way = Followed(settings, Sentinels(settings, target), "test")

    async def asked() -> object:
        with mapped():
            return await send(way.client, "GET", "nothing")

    async def in_doubt() -> bool:
        with contextlib.suppress(EngineUnavailableError):
            await way.heal(EngineUnavailableError("it does not answer"))
            return False
        return True

    async def well() -> bool:
        with contextlib.suppress(EngineUnavailableError):
            await way.ask()
            return True
        return False

    try:
        await way.begin()
        assert await asked() is None
        for node in replicas:  # so that none can be chosen
            node.signal(signal.SIGSTOP)
        await asyncio.to_thread(primary.kill)
        await eventually(in_doubt, within=AT_MOST)
        await asyncio.to_thread(primary.start)
        await eventually(primary.answers, within=AT_MOST)
        with pytest.raises(EngineUnavailableError, match=r"whether .* is still the primary is being asked"):
            await asked()
        await eventually(well, within=AT_MOST)
        assert await asked() is None
    finally:
        await way.aclose()
