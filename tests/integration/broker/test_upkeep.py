"""Time: delays, expiry, cancels, unworkable lanes, retention, and grace after a restart."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

from hostler.broker.desk_audit import Audit
from hostler.contracts.lease import Again, Hold, LeaseRef, Succeed
from hostler.contracts.needs import Needs
from hostler.contracts.offer import Offer
from hostler.contracts.queue import Retention
from hostler.contracts.timeouts import Timeouts
from hostler.testing.bench import Bench, Server
from hostler.testing.eventually import eventually
from hostler.valkeyio.instants import instant, micros
from hostler.valkeyio.keys import prefix
from hostler.valkeyio.library import Library, Value


async def in_state(bench: Bench, job: str, state: str) -> None:
    async def there() -> bool:
        return await bench.state(job) == state

    await bench.until(there)


async def test_a_delayed_job_is_claimed_when_its_time_has_come_without_any_upkeep(bench: Bench) -> None:
    job = await bench.one(delay=0.3)
    assert await bench.state(job) == "scheduled"
    assert await bench.claim() == ()

    async def claimed() -> bool:
        return bool(await bench.claim())

    await eventually(claimed)
    record = await bench.record(job)
    assert record.started >= record.ready_at >= record.created + 300_000


async def test_a_job_for_a_moment_in_the_past_is_ready_at_once(bench: Bench) -> None:
    job = await bench.one(run_at=datetime(2026, 1, 1, tzinfo=UTC))
    assert await bench.state(job) == "ready"


async def test_a_held_job_wakes_by_itself_when_told_so(bench: Bench) -> None:
    job = await bench.one()
    await bench.settle(await bench.take(), Hold(reason="quota", until=0.2))
    assert (await bench.record(job)).waiting_for == "quota"
    await in_state(bench, job, "ready")
    assert (await bench.record(job)).waiting_for is False


async def test_a_job_expires_when_nobody_started_it_in_time(bench: Bench) -> None:
    job = await bench.one(timeouts=Timeouts(queue=0.2))
    started = await bench.one(timeouts=Timeouts(queue=0.2), priority=100)
    lease = await bench.take()
    assert lease.job_id == started
    await in_state(bench, job, "expired")
    assert await bench.state(started) == "running"
    await bench.settle(lease, Again(failure=None))
    assert await bench.state(started) == "ready"


async def test_an_expired_job_is_never_claimed_even_before_upkeep(bench: Bench) -> None:
    job = await bench.one(timeouts=Timeouts(queue=0.0))
    assert await bench.claim() == ()
    assert await bench.state(job) == "expired"
    assert await bench.command("EXISTS", prefix(bench.queue) + "use") == 0


async def test_a_deadline_cuts_a_running_job(bench: Bench) -> None:
    probe = await bench.record(await bench.one())
    await bench.settle(await bench.take())
    job = await bench.one(deadline=instant(probe.created) + timedelta(seconds=1))
    lease = await bench.take()
    await in_state(bench, job, "expired")
    renewal = await bench.broker.renew("w1", [LeaseRef(job_id=job, fence=lease.fence)])
    assert len(renewal.lost) == 1
    assert not (await bench.settle(lease)).accepted
    assert micros(lease.deadline) == probe.created + 1_000_000


async def test_lanes_that_nobody_serves_are_marked_and_taken_back_at_once(bench: Bench) -> None:
    await bench.one(needs=Needs(models=("rare",)))

    async def marked() -> bool:
        return await bench.command("HLEN", prefix(bench.queue) + "un") == 1

    await bench.until(marked, within=5)
    assert await bench.claim(offers=[Offer(kinds=("work.do",))]) == ()
    assert await marked()
    assert len(await bench.claim(offers=[Offer(kinds=("work.do",), models=("rare",))])) == 1
    assert not await marked()
    names = [event.type for event in await bench.events()]
    assert (names.count("unworkable"), names.count("workable")) == (1, 1)


async def test_what_has_ended_leaves_by_age_and_count(bench: Bench) -> None:
    await bench.configure(retention=Retention(terminal_count=2, terminal=3600))
    ids = await bench.submit(5)
    for lease in await bench.claim(5):
        await bench.settle(lease, Succeed())

    async def kept() -> bool:
        return (await bench.meta())["n_succeeded"] == 2

    await bench.until(kept)
    number = ids[0].rpartition(".")[2]
    assert not [key for key in await bench.keys() if key.startswith(prefix(bench.queue)) and key.endswith(number)]
    await bench.configure(retention=Retention(terminal=0))

    async def none() -> bool:
        return (await bench.meta())["n_succeeded"] == 0

    await bench.until(none)
    meta = await bench.meta()
    assert (meta["t_purged"], meta["bytes"]) == (5, 0)


async def test_counters_are_what_a_recount_finds(bench: Bench) -> None:
    await bench.submit(20, tenant="a")
    await bench.submit(20, tenant="b", delay=60)
    leases = await bench.claim(10)
    for lease in leases[:4]:
        await bench.settle(lease)
    await bench.settle(leases[4], Again(failure=None))
    await bench.settle(leases[5], Hold(reason="x"))
    states = [await bench.state(bench.id(n)) for n in range(1, 41)]
    meta = await bench.meta()
    for state in ("ready", "scheduled", "running", "waiting", "succeeded"):
        assert meta[f"n_{state}"] == states.count(state), state
    assert meta["bytes"] == 36
    assert await bench.command("HGETALL", prefix(bench.queue) + "td") == {b"a": b"16", b"b": b"20"}


class Retiring(Library):
    """Lets upkeep remove what has ended between a recount and its comparison, once."""

    def __init__(self, bench: Bench) -> None:
        super().__init__(bench.engine)
        self._bench: Bench | None = bench

    async def call(self, verb: str, queue: str, **named: Value) -> Any:
        bench, self._bench = self._bench, self._bench if verb != "audit_counts" else None
        if verb == "audit_counts" and bench is not None:
            await bench.configure(retention=Retention(terminal_count=0))

            async def none() -> bool:
                await bench.tick()
                return (await bench.meta())["n_succeeded"] == 0

            await bench.until(none)
        return await super().call(verb, queue, **named)


async def test_a_recount_beside_which_jobs_are_removed_for_their_age_finds_nothing_wrong(bench: Bench) -> None:
    await bench.submit(5)
    for lease in await bench.claim(5):
        await bench.settle(lease)
    assert await Audit(bench.engine, Retiring(bench)).run(bench.queue, repair=False) == ()
    assert (await bench.meta())["t_purged"] == 5


async def test_offsets_have_no_gaps(bench: Bench) -> None:
    await bench.submit(150)
    for lease in await bench.claim(64):
        await bench.settle(lease)
    await bench.tick()
    offsets = [event.offset for event in await bench.events()]
    assert offsets == list(range(1, len(offsets) + 1))
    assert (await bench.meta())["off"] == len(offsets)


async def test_after_a_kill_of_the_engine_every_lease_gets_grace_and_nothing_is_charged() -> None:
    server = await asyncio.to_thread(Server)
    await asyncio.to_thread(server.start)
    try:
        await server.up()
        bench = Bench(server, "q")
        await bench.library.ensure()
        await bench.configure(lease=1.0)
        await bench.submit(2)
        await bench.tick()
        kept, lost = await bench.claim(2)
        epoch = (await bench.meta())["epoch"]
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.start)
        await server.up()

        async def graced() -> bool:
            await bench.tick()
            return (await bench.meta())["epoch"] > epoch

        await eventually(graced)
        ends: float = await bench.command("ZSCORE", prefix("q") + "leases", kept.job_id.rpartition(".")[2])
        assert ends >= (await bench.record(kept.job_id)).started + 1_000_000
        assert (await bench.settle(kept)).accepted
        await in_state(bench, lost.job_id, "ready")
        assert (await bench.record(lost.job_id)).crashes == 0
        assert (await bench.meta())["t_reaped"] == 1
        await bench.aclose()
    finally:
        await asyncio.to_thread(server.kill)
