"""An error inside a function at any engine call leaves no job lost or held twice, and work goes on."""

from collections.abc import AsyncGenerator, Generator

import pytest

from hostler.contracts.lease import Settlement, Succeed
from hostler.kernel.errors import InternalError
from hostler.testing.bench import Bench, Server
from hostler.valkeyio.library_text import Build


@pytest.fixture(scope="module")
def probed() -> Generator[Server]:
    server = Server()
    server.start()
    yield server
    server.kill()


async def opened(server: Server, name: str) -> Bench:
    bench = Bench(server, name, Build(probe=True))
    await bench.library.ensure()
    return bench


@pytest.fixture
async def benches(probed: Server) -> AsyncGenerator[list[Bench]]:
    await probed.up()
    found: list[Bench] = []
    for call in range(1, 31):
        found.append(await opened(probed, f"x{len(found)}-{call}"))
    yield found
    for bench in found:
        await bench.command("FLUSHALL")
        await bench.aclose()


async def fail_at(bench: Bench, call: int) -> None:
    await bench.command("FCALL_RO", "hostler1_probe", 0, call)


async def drained(bench: Bench) -> list[str]:
    """Run everything that waits to its end and return the jobs that ended."""
    await fail_at(bench, 0)
    done: list[str] = []
    while leases := await bench.claim(10, worker="w2"):
        for lease in leases:
            assert (await bench.settle(lease, worker="w2")).accepted
            done.append(lease.job_id)
    return done


async def test_a_submit_that_fails_midway_can_be_sent_again(benches: list[Bench]) -> None:
    for call, bench in enumerate(benches, 1):
        await fail_at(bench, call)
        try:
            await bench.one()
        except InternalError:
            await fail_at(bench, 0)
            await bench.one()
        done = await drained(bench)
        assert len(done) == len(set(done)) >= 1
        assert {(await bench.state(job)) for job in done} == {"succeeded"}


@pytest.mark.row("001:158")
async def test_a_claim_that_fails_midway_loses_no_job_and_never_gives_one_twice(benches: list[Bench]) -> None:
    for call, bench in enumerate(benches, 1):
        await bench.configure(lease=0.05)
        ids = set(await bench.submit(4))
        await fail_at(bench, call)
        held: set[str] = set()
        try:
            held = {lease.job_id for lease in await bench.claim(2)}
        except InternalError:
            held = set()
        await fail_at(bench, 0)
        running = {job for job in ids if await bench.state(job) == "running"}
        assert held <= running
        done = set(await drained(bench))
        assert done.isdisjoint(held)
        assert done | running == ids


async def test_a_settlement_that_fails_midway_is_recorded_once(benches: list[Bench]) -> None:
    for call, bench in enumerate(benches, 1):
        await bench.one()
        lease = await bench.take()
        ending = Settlement(job_id=lease.job_id, fence=lease.fence, ending=Succeed())
        await fail_at(bench, call)
        try:
            await bench.broker.settle("w1", [ending])
        except InternalError:
            await fail_at(bench, 0)
            (settled,) = await bench.broker.settle("w1", [ending])
            assert (settled.accepted, settled.state) == (True, "succeeded")
        await fail_at(bench, 0)
        assert await drained(bench) == []
        finishes = [event for event in await bench.events() if event.type == "finish"]
        assert len(finishes) <= 1
