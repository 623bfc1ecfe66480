"""What a verb costs, in engine calls: counts and how they grow, never wall time."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import pytest

from hostler.broker.engine_submit import prepare, submit_jobs
from hostler.contracts.job import JobRequest
from hostler.contracts.lease import LeaseRef, Settlement, Succeed
from hostler.contracts.needs import Needs
from hostler.contracts.offer import Offer
from hostler.policy.affinity import LABEL
from hostler.testing.bench import KIND, Bench, Server
from hostler.valkeyio.library_text import Build

ALL = Offer(kinds=("work.do",), models=tuple(f"m{n}" for n in range(400)))


@pytest.fixture(scope="module")
def probed() -> Any:
    server = Server()
    server.start()
    yield server
    server.kill()


@pytest.fixture
async def bench(probed: Server, request: pytest.FixtureRequest) -> AsyncGenerator[Bench]:
    await probed.up()
    name = "c" + str(abs(hash(request.node.name)) % 10**9)
    found = Bench(probed, name, Build(probe=True))
    await found.library.ensure()
    yield found
    await found.aclose()


async def cost(bench: Bench, act: Callable[[], Awaitable[Any]]) -> int:
    await bench.command("FCALL_RO", "hostler1_probe", 0, 0)
    await act()
    return int(await bench.command("FCALL_RO", "hostler1_probe", 0, 0))


async def fill(bench: Bench, n: int, *, lanes: int = 1, tenants: int = 1) -> None:
    jobs = [
        prepare(
            JobRequest(kind="work.do", tenant=f"t{i % tenants}", needs=Needs(models=(f"m{i // tenants % lanes}",))),
            KIND,
        )
        for i in range(n)
    ]
    for first in range(0, n, 100):
        await submit_jobs(bench.library, bench.queue, jobs[first : first + 100], bench.operation())


async def claim_cost(bench: Bench, limit: int) -> int:
    return await cost(bench, lambda: bench.claim(limit, offers=[ALL]))


async def test_one_job_costs_few_calls(bench: Bench) -> None:
    await fill(bench, 200)
    held = list(await bench.claim(40, offers=[ALL]))
    one = [prepare(JobRequest(kind="work.do", tenant="t0", needs=Needs(models=("m0",))), KIND)]

    def endings(n: int) -> list[Settlement]:
        return [
            Settlement(job_id=lease.job_id, fence=lease.fence, ending=Succeed())
            for lease in (held.pop() for _ in range(n))
        ]

    refs = [LeaseRef(job_id=lease.job_id, fence=lease.fence) for lease in held]
    costs = {
        "submit": await cost(bench, lambda: submit_jobs(bench.library, bench.queue, one, bench.operation())),
        "submit 100": await cost(bench, lambda: submit_jobs(bench.library, bench.queue, one * 100, bench.operation())),
        "claim": await claim_cost(bench, 1),
        "claim 16": await claim_cost(bench, 16),
        "renew 40": await cost(bench, lambda: bench.broker.renew("w1", refs)),
        "settle": await cost(bench, lambda: bench.broker.settle("w1", endings(1))),
        "settle 16": await cost(bench, lambda: bench.broker.settle("w1", endings(16))),
    }
    most = {
        "submit": 15,
        "submit 100": 15,
        "claim": 24,
        "claim 16": 30,
        "renew 40": 10,
        "settle": 12,
        "settle 16": 12,
    }
    assert {name: (calls, most[name]) for name, calls in costs.items() if calls > most[name]} == {}


async def test_a_claim_costs_the_same_whatever_waits_behind(bench: Bench) -> None:
    await fill(bench, 100, tenants=5)
    await bench.claim(1, offers=[ALL])
    few = [await claim_cost(bench, limit) for limit in (1, 16)]
    await fill(bench, 4000, tenants=5)
    await claim_cost(bench, 1)
    many = [await claim_cost(bench, limit) for limit in (1, 16)]
    assert all(after <= before * 1.3 for before, after in zip(few, many, strict=True)), (few, many)


@pytest.mark.parametrize("lanes", [20, 400])
async def test_a_claim_does_not_grow_with_the_number_of_lanes(bench: Bench, lanes: int) -> None:
    await fill(bench, 2 * lanes, lanes=lanes)
    await bench.claim(1, offers=[ALL])
    assert await claim_cost(bench, 1) <= 26
    assert await claim_cost(bench, 16) <= 26 + 4 * 16


async def test_a_claim_does_not_grow_with_the_number_of_tenants(bench: Bench) -> None:
    await fill(bench, 2000, tenants=1000)
    await bench.claim(1, offers=[ALL])
    assert await claim_cost(bench, 1) <= 30
    assert await claim_cost(bench, 16) <= 30 + 7 * 16


async def test_each_further_tenant_of_one_claim_costs_four_calls(bench: Bench) -> None:
    await fill(bench, 2000, lanes=4, tenants=20)
    await bench.claim(1, offers=[ALL])
    one, many = [await claim_cost(bench, limit) for limit in (1, 16)]
    assert one <= 24
    assert many - one <= 4 * 15 + 5, (one, many)


async def test_tenants_without_work_for_this_worker_cost_nothing_twice(bench: Bench) -> None:
    other = [prepare(JobRequest(kind="else.where", tenant=f"u{n}"), KIND) for n in range(1000)]
    for first in range(0, 1000, 100):
        await submit_jobs(bench.library, bench.queue, other[first : first + 100], bench.operation())
    await fill(bench, 50, tenants=5)
    await bench.claim(1, offers=[ALL])
    assert await claim_cost(bench, 1) <= 30


async def test_an_empty_claim_is_cheap_and_an_idle_queue_ticks_cheaply(bench: Bench) -> None:
    await bench.one()
    await bench.settle(await bench.take())
    await bench.claim(1, offers=[ALL])
    assert await claim_cost(bench, 1) <= 12
    await bench.tick()
    assert await cost(bench, bench.tick) <= 30


@pytest.mark.row("000:28")
async def test_a_hundred_idle_workers_cost_no_more_beside_ten_thousand_large_jobs_than_beside_none(
    bench: Bench,
) -> None:
    idle = Offer(kinds=("else.where",))

    async def round_of_claims() -> None:
        for n in range(100):
            assert await bench.claim(8, offers=[idle], worker=f"idle{n}") == ()

    async def sent() -> int:
        return int((await bench.command("INFO", "stats"))["total_net_output_bytes"])

    await bench.submit(payload="x")
    await round_of_claims()
    beside_none = min([await cost(bench, round_of_claims) for _ in range(3)])  # a slow round renews what it knows
    await bench.submit(9_999, payload="x" * 30_000)
    await round_of_claims()
    before = await sent()
    beside_many = min([await cost(bench, round_of_claims) for _ in range(3)])
    assert beside_many == beside_none
    assert await sent() - before < 100_000
    assert len(await bench.claim(8, offers=[ALL])) == 8


async def test_a_job_of_a_session_costs_a_claim_three_calls_more(bench: Bench) -> None:
    here = Offer(kinds=("work.do",), endpoint="e")
    costs: list[int] = []
    for sessions in ([""] * 16, [f"s{n}" for n in range(16)], ["s0"] * 16):
        requests = [JobRequest(kind="work.do", labels={LABEL: one} if one else {}) for one in sessions]
        jobs = [prepare(one, KIND) for one in requests]
        await submit_jobs(bench.library, bench.queue, jobs, bench.operation())
        await bench.claim(1, offers=[here])
        costs.append(await cost(bench, lambda: bench.claim(15, offers=[here])))
    plain, many, one = costs
    assert plain <= many <= plain + 3 * 15
    assert one <= plain + 2 * 15 + 1
