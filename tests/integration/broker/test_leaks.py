"""After a mixed run and the end of every retention nothing is left of any job, tenant, lane or worker."""

from collections.abc import AsyncGenerator, Generator

import pytest
from msgspec import Raw

from hostler.broker.desk import EngineDesk
from hostler.broker.desk_audit import Audit
from hostler.contracts.failure import Failure, FailureClass
from hostler.contracts.job import Progress
from hostler.contracts.lease import Again, Die, Hold, Succeed, Update
from hostler.contracts.needs import Needs
from hostler.contracts.preview import preview_of
from hostler.contracts.timeouts import Timeouts
from hostler.testing.bench import OFFER, Bench, Server
from hostler.valkeyio.keys import owner_of, prefix
from hostler.valkeyio.library_text import Build

DAY = 86_400
NO = Failure(class_=FailureClass.TRANSIENT, message="no")
ENDINGS = (
    Succeed(result=Raw(b"1")),
    Die(failure=NO),
    Again(failure=NO),
    Again(failure=NO, delay=9.0),
    Hold(reason="x"),
)


@pytest.fixture(scope="module")
def clocked() -> Generator[Server]:
    server = Server()
    server.start()
    yield server
    server.kill()


@pytest.fixture
async def bench(clocked: Server, request: pytest.FixtureRequest) -> AsyncGenerator[Bench]:
    await clocked.up()
    found = Bench(clocked, f"l{abs(hash(request.node.name))}", Build(clock="key"))
    await found.library.ensure()
    yield found
    await found.aclose()


async def at(bench: Bench, seconds: float) -> None:
    await bench.command("SET", prefix(bench.queue) + "clock", 10**15 + int(seconds * 1_000_000))


async def mixed(bench: Bench, desk: EngineDesk) -> None:
    """Bring some jobs of every sort into every state."""
    for n in range(30):
        key, needs = f"k{n % 3}" if n % 2 else None, Needs(models=(f"m{n % 4}",))
        await bench.submit(2, tenant=f"t{n}", concurrency_key=key, needs=needs)
        await bench.one(tenant=f"t{n}", idempotency_key=f"i{n}", delay=float(n))
    await bench.submit(5, timeouts=Timeouts(queue=3.0), tenant="late")
    offer = OFFER.__class__(kinds=OFFER.kinds, models=("m0", "m1", "m2"))
    for n in range(8):
        for m, lease in enumerate(await bench.claim(5, worker=f"w{n}", offers=[offer])):
            update = Update(
                job_id=lease.job_id,
                fence=lease.fence,
                progress=Progress(fraction=0.5),
                checkpoint=Raw(b"{}"),
                preview=preview_of(b"\xff\xd8\xff"),
            )
            await bench.broker.progress(f"w{n}", [update])
            if n % 4:
                await bench.settle(lease, ENDINGS[m], worker=f"w{n}")
            elif m % 2:
                await desk.cancel(lease.job_id, operation=f"c{n}-{m}")


@pytest.mark.row("002:197")
async def test_nothing_is_left_of_what_was_purged_or_grew_too_old(bench: Bench) -> None:
    desk = EngineDesk(bench.engine, library=bench.library)
    await at(bench, 0)
    await mixed(bench, desk)
    for seconds in range(1, 100, 4):  # a longer step would be a stall, and give every lease its grace
        await at(bench, seconds)
        await bench.tick()
    assert await Audit(bench.engine, bench.library).run(bench.queue, repair=False) == ()
    jobs = [f"{bench.queue}.{key.rpartition(':')[2]}" for key in await bench.keys() if ":j:" in key]
    for job in jobs:
        if await bench.state(job) in {"ready", "scheduled", "waiting"}:
            await desk.cancel(job, operation="end")
    for seconds in (101, 32 * DAY, 32 * DAY + 100, 33 * DAY):
        await at(bench, seconds)
        await bench.tick()
    left = {key: owner_of(key) for key in await bench.keys()}
    assert [key for key, row in left.items() if row is None] == []
    lasting = {key for key, row in left.items() if row and row.lifetime not in {"queue", "registry", "test", "timed"}}
    assert lasting == set()
    endless = [key for key, row in left.items() if row and row.lifetime == "timed"]
    assert [key for key in endless if await bench.command("PTTL", key) <= 0] == []
    assert {name: value for name, value in (await bench.meta()).items() if name[:2] == "n_" and value} == {}
    assert (await bench.meta())["bytes"] == 0


@pytest.mark.row("003:345")
async def test_a_job_without_its_envelope_ends_dead_and_those_behind_it_go_on(bench: Bench) -> None:
    await at(bench, 0)
    broken, sound = await bench.submit(2)
    await bench.command("DEL", f"{prefix(bench.queue)}p:{broken.rpartition('.')[2]}")
    leases = [*await bench.claim(), *await bench.claim()]
    assert [lease.job_id for lease in leases] == [sound]
    assert await bench.state(broken) == "dead"


async def test_tenants_that_come_once_are_not_remembered_for_ever(bench: Bench) -> None:
    await at(bench, 0)
    words = [word for n in range(10_500) for word in (f"once{n}", "10080")]
    await bench.command("HSET", prefix(bench.queue) + "pass", *words)
    for seconds in range(1, 41):
        await at(bench, seconds)
        await bench.one(tenant=f"t{seconds}")
        await bench.take()
        await bench.tick()
    assert await bench.command("HLEN", prefix(bench.queue) + "pass") <= 10_000
