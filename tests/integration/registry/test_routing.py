"""Jobs reach the right instance: by what they need, by priority, without a registry, whatever ids look like."""

import random
from collections.abc import AsyncGenerator, Generator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager

import msgspec
import pytest

from hostler.connectors.catalogue import build
from hostler.contracts.job import JobRequest, Submitted
from hostler.contracts.needs import Avoid, Needs
from hostler.contracts.service import Source
from hostler.policy.sightings import endpoints_of
from hostler.ports.discovery import Placed
from hostler.registry.discovery import EngineDiscovery
from hostler.registry.endpoints import EngineEndpoints
from hostler.testing.bench import Clients, Server
from hostler.testing.engine_fabric import fabric_on
from hostler.testing.eventually import eventually
from hostler.testing.fabric import Fabric
from hostler.testing.sims.http import SimulationHTTPService
from hostler.testing.sims.knobs import SimKnobs
from hostler.valkeyio.engine import Engine
from hostler.valkeyio.keys import registry_key
from hostler.valkeyio.library import Library

CONNECTOR = "simulation-http"
QUICK = SimKnobs(duration=0.01, steps=2, slots=4)


@pytest.fixture
async def fabric(engine: Engine) -> AsyncGenerator[Fabric]:
    async with fabric_on(engine) as found:
        yield found


@asynccontextmanager
async def services(*knobs: SimKnobs) -> AsyncGenerator[list[SimulationHTTPService]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(SimulationHTTPService(one)) for one in knobs]


def started(service: SimulationHTTPService) -> list[str]:
    """Return the jobs that were begun there, in order."""
    return [effect.job for effect in service.effects.effects if effect.type == "started"]


@pytest.mark.row("002:187")
async def test_at_a_service_that_is_full_an_urgent_job_starts_before_all_that_wait(fabric: Fabric) -> None:
    async with (
        services(SimKnobs(duration=0.6, steps=2, slots=1)) as (only,),
        fabric.worker(connectors=[build(CONNECTOR, url=only.url, options={"poll": 0.05})], slots=4),
    ):
        first = await fabric.submit("sim.echo", {"value": 0}, priority=10)
        await eventually(lambda: started(only) == [first], within=20.0)
        waiting = [await fabric.submit("sim.echo", {"value": number}, priority=10) for number in range(1, 4)]
        urgent = await fabric.submit("sim.echo", {"value": 9}, priority=90)
        for job in (*waiting, urgent):
            await fabric.result(job, within=30.0)
        assert started(only) == [first, urgent, *waiting]


@pytest.mark.row("001:92")
async def test_a_workers_record_says_machine_gpu_endpoint_and_url_and_ids_mean_nothing(fabric: Fabric) -> None:
    """Both ids lie about GPU and port, and everything goes where the record says."""
    async with services(QUICK) as (only,):
        lamp = build(CONNECTOR, url=only.url, endpoint="simulation-gpu7:8306", labels={"gpu": "1"})
        placed = Placed(connector=lamp, url=only.url)
        async with fabric.worker(connectors=[placed], id="simulation-gpu5-8304"):
            (worker,) = await fabric.ports.registry.workers()
            (offer,), (endpoint,) = worker.offers, worker.endpoints
            assert worker.machine
            assert (offer.labels["gpu"], offer.endpoint) == ("1", "simulation-gpu7:8306")
            assert (endpoint.id, endpoint.url) == ("simulation-gpu7:8306", only.url)
            job = await fabric.submit("sim.echo", {"value": 1}, needs=Needs(labels={"gpu": "1"}))
            await fabric.result(job, within=20.0)
            assert started(only) == [job]


@pytest.fixture
def elsewhere() -> Generator[Server]:
    found = Server()
    found.start("--appendfsync", "no")
    yield found
    found.kill()


@pytest.mark.row("001:400")
async def test_configured_endpoints_serve_on_without_the_registry_of_endpoints(
    fabric: Fabric, engine: Engine, elsewhere: Server
) -> None:
    await elsewhere.up()
    clients = Clients(elsewhere.socket)
    await Library(clients).ensure()
    discovery = EngineDiscovery(EngineEndpoints(clients))
    async with services(QUICK) as (only,), aclosing(clients):
        lamp = build(CONNECTOR, url=only.url, endpoint="lamp")
        placed = Placed(connector=lamp, url=only.url, source=Source.MAPPING)
        async with fabric.worker(connectors=[placed], discovery=discovery):
            await fabric.result(await fabric.submit("sim.echo", {"value": 1}), within=20.0)
            for part in ("endpoints", "epends", "epmarks", "workers", "alive"):
                await engine.command("DEL", registry_key(part))
            await eventually(lambda: _source(fabric, engine), within=20.0)
            await fabric.result(await fabric.submit("sim.echo", {"value": 2}), within=20.0)
            elsewhere.kill()
            for number in range(3):
                await fabric.result(await fabric.submit("sim.echo", {"value": number}), within=20.0)
            assert await _source(fabric, engine) is Source.MAPPING


async def _source(fabric: Fabric, engine: Engine) -> Source | None:
    found = endpoints_of(await fabric.ports.registry.workers(), await EngineEndpoints(engine).census())
    return found[0].source if found else None


@pytest.mark.long
@pytest.mark.timeout(1_800)
@pytest.mark.row("001:383")
async def test_of_ten_thousand_jobs_none_runs_where_it_may_not(fabric: Fabric) -> None:
    """Three bound workers and one of a pool; needs by GPU, by model and by service, and all kinds of avoid."""
    dice = random.Random(383)
    quick = [SimKnobs(duration=0.0, steps=1, slots=8, models=("common", f"m{n}")) for n in range(4)]
    wishes = [(Needs(labels={"gpu": str(n)}), Avoid(), {n}) for n in range(3)]
    wishes += [(Needs(models=(f"m{n}",)), Avoid(), {n}) for n in range(4)]
    wishes += [(Needs(models=("common",)), Avoid(models=(f"m{n}",)), {0, 1, 2, 3} - {n}) for n in range(4)]
    wishes += [(Needs(service="simulation"), Avoid(labels={"gpu": str(n)}), {0, 1, 2, 3} - {n}) for n in range(3)]
    wishes += [(Needs(labels={"gpu": "1"}, models=("m1",)), Avoid(labels={"gpu": "2"}), {1})]
    wishes += [(Needs(), Avoid(), {0, 1, 2, 3})]
    allowed: dict[str, set[int]] = {}
    async with services(*quick) as all_, AsyncExitStack() as stack:
        for number, service in enumerate(all_):
            labels = {"gpu": str(number)} if number < 3 else {"pool": "yes"}
            lamp = build(CONNECTOR, url=service.url, labels=labels, options={"poll": 0.05})
            await stack.enter_async_context(fabric.worker(connectors=[lamp], id=f"w{number}", slots=8))
        for batch in range(100):
            chosen = [dice.choice(wishes) for _ in range(100)]
            payload = msgspec.Raw(b'{"value":1}')
            asked = [JobRequest(kind="sim.echo", payload=payload, needs=one[0], avoid=one[1]) for one in chosen]
            answers = await fabric.ports.desk.submit(asked, operation=f"batch {batch}")
            for answer, (_, _, where) in zip(answers, chosen, strict=True):
                assert isinstance(answer, Submitted)
                allowed[answer.id] = where
        await eventually(lambda: sum(len(started(one)) for one in all_) >= len(allowed), within=1_500.0, every=1.0)
        for job in allowed:
            assert (await fabric.ended(job, within=60.0)).state == "succeeded"
        ran = [(job, number) for number, service in enumerate(all_) for job in started(service)]
    assert len(ran) == len(allowed) == 10_000
    assert [(job, number) for job, number in ran if number not in allowed[job]] == []
