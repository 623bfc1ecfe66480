"""Workers that follow the registry of endpoints, on a real engine with real simulated services."""

from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from hostler.connectors.catalogue import build
from hostler.contracts.needs import Needs
from hostler.contracts.service import BreakerMode, Enrolment
from hostler.contracts.worker import WorkerState
from hostler.ports.connector import Connector
from hostler.registry.discovery import EngineDiscovery, Followed, Where
from hostler.registry.endpoints import EngineEndpoints
from hostler.testing.engine_fabric import fabric_on
from hostler.testing.eventually import eventually
from hostler.testing.fabric import Fabric
from hostler.testing.sims.http import SimulationHTTPService
from hostler.testing.sims.knobs import SimKnobs
from hostler.valkeyio.engine import Engine
from hostler.valkeyio.keys import registry_key

CONNECTOR = "simulation-http"
QUICK = SimKnobs(duration=0.01, steps=2, slots=4)


def built(where: Where) -> Connector:
    return build(where.connector, url=where.url, endpoint=where.id, labels=dict(where.labels), slots=where.slots)


def following(registry: EngineEndpoints) -> EngineDiscovery:
    kinds = build(CONNECTOR, url="http://127.0.0.1:1").kinds()
    return EngineDiscovery(
        registry, (Followed(name="sim", connector=CONNECTOR, build=built, kinds=kinds, announced=True),)
    )


def place(name: str, service: SimulationHTTPService, **facts: Any) -> Enrolment:
    return Enrolment(id=name, connector=CONNECTOR, url=service.url, **facts)


def runs(service: SimulationHTTPService) -> Counter[str]:
    """Return how often each job was begun there."""
    return Counter(effect.job for effect in service.effects.effects if effect.type == "started")


@pytest.fixture
async def fabric(engine: Engine) -> AsyncGenerator[Fabric]:
    async with fabric_on(engine) as found:
        yield found


@pytest.fixture
def registry(engine: Engine) -> EngineEndpoints:
    return EngineEndpoints(engine)


@asynccontextmanager
async def services(*knobs: SimKnobs) -> AsyncGenerator[list[SimulationHTTPService]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(SimulationHTTPService(one)) for one in knobs]


async def echo(fabric: Fabric, count: int, **more: Any) -> list[str]:
    return [await fabric.submit("sim.echo", {"value": number}, **more) for number in range(count)]


async def all_end(fabric: Fabric, jobs: Sequence[str], *, within: float = 60.0) -> None:
    for job in jobs:
        await fabric.result(job, within=within)


@pytest.mark.row("000:46", "002:85", "001:239")
async def test_a_job_waits_until_a_service_registers_and_follows_it_when_it_moves(
    fabric: Fabric, registry: EngineEndpoints
) -> None:
    async with services(QUICK, QUICK) as (first, second), fabric.worker(discovery=following(registry)):
        (waiting,) = await echo(fabric, 1)
        assert (await fabric.get(waiting)).attempt == 0
        await registry.enroll(place("lamp", first), ttl=30.0)
        await fabric.result(waiting, within=15.0)
        assert runs(first) == {waiting: 1}
        await registry.enroll(place("lamp", second), ttl=30.0)
        await eventually(lambda: moved(fabric, second.url), within=15.0)
        (after,) = await echo(fabric, 1)
        await fabric.result(after, within=15.0)
        assert (runs(first), runs(second)) == ({waiting: 1}, {after: 1})
        await registry.leave("lamp")
        await eventually(lambda: moved(fabric, None), within=15.0)
        (late,) = await echo(fabric, 1)
        await eventually(lambda: unworkable(fabric, late), within=15.0)
        assert (await fabric.get(late)).attempt == 0


async def moved(fabric: Fabric, url: str | None) -> bool:
    (worker,) = await fabric.ports.registry.workers()
    urls = [endpoint.url for endpoint in worker.endpoints]
    healthy = all(offer.healthy for offer in worker.offers)
    return urls == ([] if url is None else [url]) and healthy


async def unworkable(fabric: Fabric, job: str) -> bool:
    return (await fabric.ports.desk.explain(job)).unworkable


@pytest.mark.row("001:39", "001:383")
async def test_three_bound_workers_run_their_own_services_jobs_and_nobody_elses(fabric: Fabric) -> None:
    async with services(QUICK, QUICK, QUICK) as all_, AsyncExitStack() as stack:
        for number, service in enumerate(all_):
            connector = build(CONNECTOR, url=service.url, labels={"gpu": str(number)})
            labels = {"gpu": str(number)}
            await stack.enter_async_context(fabric.worker(connectors=(connector,), id=f"gpu{number}", labels=labels))
        wanted: dict[str, int] = {}
        for number in range(300):
            needs = Needs(labels={"gpu": str(number % 3)})
            wanted[await fabric.submit("sim.echo", {"value": number}, needs=needs)] = number % 3
        await all_end(fabric, list(wanted))
        for number, service in enumerate(all_):
            assert runs(service) == Counter({job: 1 for job, gpu in wanted.items() if gpu == number})


@pytest.mark.row("002:188", "002:189")
async def test_jobs_spread_over_what_is_there_within_its_slots_and_move_when_one_dies(
    fabric: Fabric, registry: EngineEndpoints
) -> None:
    slow = SimKnobs(duration=0.2, steps=2, slots=2)
    async with services(slow, slow, slow) as all_:
        for number, service in enumerate(all_):
            await registry.enroll(place(f"lamp{number}", service), ttl=60.0)
        async with fabric.worker(discovery=following(registry), slots=16):
            jobs = await echo(fabric, 30)
            await all_end(fabric, jobs)
            shares = [sum(runs(service).values()) for service in all_]
            assert sum(shares) == 30
            assert min(shares) >= 6
            assert await tried_again(fabric, jobs) == []
            await registry.leave("lamp0")
            await eventually(lambda: serves(fabric, 2), within=15.0)
            await all_end(fabric, await echo(fabric, 10))
            assert sum(runs(all_[0]).values()) == shares[0]


async def serves(fabric: Fabric, number: int) -> bool:
    (worker,) = await fabric.ports.registry.workers()
    return len(worker.endpoints) == number


async def tried_again(fabric: Fabric, jobs: Sequence[str]) -> list[str]:
    """Return the jobs that were refused or failed anywhere: a service without a backlog refuses what is too much."""
    return [job for job in jobs if "retry" in {event.type for event in await fabric.events(job)}]


@pytest.mark.row("002:53", "001:285", "001:217")
async def test_an_endpoint_that_breaks_is_left_alone_and_the_others_do_the_work(
    fabric: Fabric, registry: EngineEndpoints
) -> None:
    broken = SimKnobs(duration=0.01, steps=2, slots=4, failures={"internal_error": 1.0})
    async with services(broken, QUICK, QUICK) as all_:
        for number, service in enumerate(all_):
            await registry.enroll(place(f"lamp{number}", service), ttl=60.0)
        async with fabric.worker(discovery=following(registry), slots=8):
            jobs = await echo(fabric, 60)
            await all_end(fabric, jobs)
            assert await breaker(fabric, "lamp0") is not BreakerMode.CLOSED
            assert await breaker(fabric, "lamp1") is BreakerMode.CLOSED
            assert sum(runs(all_[0]).values()) <= 12
            all_[0].knobs = QUICK
            await registry.mark("lamp0", "reset", reason="mended")
            before = sum(runs(all_[0]).values())

            async def used() -> bool:
                await all_end(fabric, await echo(fabric, 6))
                return sum(runs(all_[0]).values()) > before

            await eventually(used, within=30.0)


async def test_breakers_never_keep_more_than_half_of_a_service_out(fabric: Fabric, registry: EngineEndpoints) -> None:
    """All three fail, so the fault is likelier elsewhere: calls go there all the same."""
    broken = SimKnobs(duration=0.01, steps=2, slots=8, failures={"internal_error": 1.0})
    async with services(broken, broken, broken) as all_:
        for number, service in enumerate(all_):
            await registry.enroll(place(f"lamp{number}", service), ttl=60.0)
        async with fabric.worker(discovery=following(registry), slots=24):
            failing = await echo(fabric, 20)
            await eventually(lambda: all_open(fabric, least=2.5), within=30.0)
            for one in failing:
                await fabric.ports.desk.cancel(one, operation=f"cancel {one}")
            for service in all_:
                service.knobs = QUICK
            (job,) = await echo(fabric, 1)
            await fabric.result(job, within=15.0)
            assert await all_open(fabric), "it did not wait until a breaker let calls try an endpoint out"


async def all_open(fabric: Fabric, *, least: float = 0.0) -> bool:
    """Tell whether every breaker is open, for so many seconds to come, and ignored."""
    (worker,) = await fabric.ports.registry.workers()
    seen = [endpoint.traffic for endpoint in worker.endpoints]
    return len(seen) == 3 and all(one.forced and (one.breaker_s or 0.0) > least for one in seen)


async def breaker(fabric: Fabric, name: str) -> BreakerMode:
    (worker,) = await fabric.ports.registry.workers()
    return next(endpoint.traffic.breaker for endpoint in worker.endpoints if endpoint.id == name)


async def test_a_paused_endpoint_gets_nothing_until_it_is_resumed(fabric: Fabric, registry: EngineEndpoints) -> None:
    async with services(QUICK) as (only,), fabric.worker(discovery=following(registry)):
        await registry.enroll(place("lamp", only), ttl=60.0)
        await all_end(fabric, await echo(fabric, 1))
        await registry.mark("lamp", "pause", reason="a new fan")
        await eventually(lambda: shut(fabric), within=15.0)
        (job,) = await echo(fabric, 1)
        await eventually(lambda: unworkable(fabric, job), within=15.0)
        await registry.mark("lamp", "resume")
        await fabric.result(job, within=15.0)


async def shut(fabric: Fabric) -> bool:
    (worker,) = await fabric.ports.registry.workers()
    return not any(offer.healthy for offer in worker.offers)


@pytest.mark.row("001:280")
async def test_what_becomes_of_an_endpoint_is_an_event(
    fabric: Fabric, registry: EngineEndpoints, engine: Engine
) -> None:
    async with services(QUICK) as (only,), fabric.worker(discovery=following(registry)):
        await registry.enroll(place("lamp", only), ttl=60.0)
        await all_end(fabric, await echo(fabric, 1))
        await registry.leave("lamp", reason="it moves house")

        async def told() -> bool:
            stream = await engine.command("XRANGE", registry_key("ev"), "-", "+")
            said = b"".join(value for _, fields in stream for value in fields.values())
            return all(word in said for word in (b"joined", b"ready", b"gone", b"it moves house"))

        await eventually(told, within=15.0)


async def test_an_announcement_that_cannot_work_does_not_keep_workers_from_the_others(
    fabric: Fabric, registry: EngineEndpoints
) -> None:
    async with services(QUICK) as (only,), fabric.worker(discovery=following(registry)) as worker:
        await registry.enroll(Enrolment(id="broken", connector=CONNECTOR, url="http://xn--:1/"), ttl=60.0)
        await registry.enroll(place("lamp", only), ttl=60.0)
        await all_end(fabric, await echo(fabric, 3))
        assert worker.state in {WorkerState.READY, WorkerState.BUSY}
        assert await serves(fabric, 1)


async def test_an_endpoint_that_is_paused_gets_nothing_from_the_moment_it_joins(
    fabric: Fabric, registry: EngineEndpoints
) -> None:
    async with services(QUICK, QUICK) as (paused, open_):
        await registry.mark("lamp0", "pause", reason="a new fan")
        await registry.enroll(place("lamp0", paused), ttl=60.0)
        await registry.enroll(place("lamp1", open_), ttl=60.0)
        async with fabric.worker(discovery=following(registry)):
            await all_end(fabric, await echo(fabric, 12))
            assert (sum(runs(paused).values()), sum(runs(open_).values())) == (0, 12)


async def test_one_address_that_is_configured_twice_stays_served_while_others_are_followed(
    fabric: Fabric, registry: EngineEndpoints
) -> None:
    async with services(QUICK, QUICK) as (twice, other):
        given = [build(CONNECTOR, url=twice.url, labels={"as": name}) for name in ("first", "second")]
        async with fabric.worker(connectors=given, discovery=following(registry)) as worker:
            await registry.enroll(place("lamp", other), ttl=60.0)
            await eventually(lambda: serves(fabric, 3), within=15.0)
            await registry.leave("lamp")
            await eventually(lambda: serves(fabric, 2), within=15.0)
            await all_end(fabric, await echo(fabric, 4))
            assert worker.state in {WorkerState.READY, WorkerState.BUSY}
