"""Why a job waits though endpoints have what it needs: real workers and services, asked through the gateway."""

import asyncio
import json
import sys
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest

from hostler.connectors.catalogue import build
from hostler.contracts.needs import Needs
from hostler.contracts.service import Enrolment
from hostler.ports.connector import Connector
from hostler.registry.discovery import EngineDiscovery, Followed, Where
from hostler.registry.endpoints import EngineEndpoints
from hostler.testing.connectors import Work, call_of, submitted
from hostler.testing.eventually import eventually
from hostler.testing.fabric import Fabric, Ports
from hostler.testing.sims.http import SimulationHTTPService
from hostler.testing.sims.knobs import SimKnobs
from hostler.valkeyio.engine import Engine

from .conftest import House

CONNECTOR = "simulation-http"
QUICK = SimKnobs(duration=0.01, steps=2, slots=4)
FULL = SimKnobs(duration=60.0, slots=1, retry_after=120.0)
GOLD = {"tier": "gold"}
LONG = Work(kind="sim.echo", payload={"value": 1, "duration": 60.0})


def lamp(name: str, service: SimulationHTTPService, **labels: str) -> Connector:
    return build(CONNECTOR, url=service.url, endpoint=name, labels={"is": name, **labels}, options={"poll": 0.05})


def built(where: Where) -> Connector:
    return build(where.connector, url=where.url, endpoint=where.id, labels=dict(where.labels), slots=where.slots)


@pytest.fixture
def fabric(house: House) -> Fabric:
    ports = Ports(broker=house.broker, desk=house.desk, foreman=house.foreman, registry=house.registry)
    return Fabric(ports)


@pytest.fixture
def discovery(engine: Engine) -> EngineDiscovery:
    """Marks of operators, and endpoints that are announced."""
    kinds = build(CONNECTOR, url="http://127.0.0.1:1").kinds()
    entry = Followed(name="sim", connector=CONNECTOR, build=built, kinds=kinds, announced=True)
    return EngineDiscovery(EngineEndpoints(engine), (entry,))


@asynccontextmanager
async def services(**knobs: SimKnobs) -> AsyncGenerator[dict[str, SimulationHTTPService]]:
    async with AsyncExitStack() as stack:
        yield {name: await stack.enter_async_context(SimulationHTTPService(one)) for name, one in knobs.items()}


async def why(house: House, job: str) -> Any:
    return (await house.ask("GET", f"/v1/jobs/{job}/explain")).json


async def once_kept_out(house: House, job: str, counts: Mapping[str, int]) -> Any:
    """Return the explanation once this is what keeps endpoints from the job."""

    found: Any = None

    async def look() -> bool:
        nonlocal found
        found = await why(house, job)
        return found["kept_out"] == counts

    try:
        await eventually(look, within=40.0)
    except AssertionError:
        pytest.fail(f"expected {counts}, last was {json.dumps(found, indent=1)}")
    return found


def candidate(found: Any, name: str) -> Any:
    return next(one for one in found["candidates"] if one["endpoint"] == name)


async def told(house: House, job: str) -> str:
    """Return what the command prints."""
    command = (sys.executable, "-m", "hostler", "jobs", "explain", job, "--url", house.url)
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    out, _ = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 0
    return out.decode()


async def test_a_waiting_job_says_of_every_fitting_endpoint_what_keeps_it_out_and_counts_the_reasons(
    house: House, fabric: Fabric, discovery: EngineDiscovery
) -> None:
    broken = SimKnobs(duration=0.01, steps=2, slots=8, failures={"internal_error": 1.0})
    async with services(broken=broken, paused=QUICK, cool=FULL, full=FULL, silver=QUICK) as all_:
        async with SimulationHTTPService(QUICK) as down:
            pass
        lamps = [lamp(name, one, tier="silver" if name == "silver" else "gold") for name, one in all_.items()]
        lamps.append(lamp("down", down, **GOLD))
        async with lamp("other", all_["cool"]) as other, fabric.worker(connectors=lamps, discovery=discovery, slots=32):
            await submitted(other, call_of(LONG))  # somebody else's work there: ours is refused with a time
            for name, count in (("broken", 5), ("cool", 1), ("full", 1)):
                for number in range(count):
                    await fabric.submit("sim.echo", {"value": number}, needs=Needs(labels={"is": name}))
            assert (await house.ask("POST", "/v1/services/paused/pause", json={"reason": "a new fan"})).status == 202
            await eventually(lambda: all_shut(house), within=40.0)
            job = await fabric.submit("sim.echo", {"value": 1}, needs=Needs(labels=GOLD))
            counts = {"capability": 1, "health": 1, "pause": 1, "breaker": 1, "cooling": 1, "full": 1}
            found = await once_kept_out(house, job, counts)
            said = await told(house, job)
    assert (found["state"], found["endpoints"]) == ("ready", 6)
    assert found["reasons"][0].startswith("no endpoint can take it now (of 6: 1 capability, 1 health, ")
    kept = {one["endpoint"]: one["hindrances"] for one in found["candidates"]}
    assert {name: [each["what"] for each in all_] for name, all_ in kept.items()} == {
        "broken": ["breaker"],
        "cool": ["cooling"],
        "down": ["health"],
        "full": ["full"],
        "paused": ["pause"],
    }
    assert "a new fan" in kept["paused"][0]["words"]
    assert "last error: transient" in kept["broken"][0]["words"]
    assert "refuse" in kept["down"][0]["words"] or "connect" in kept["down"][0]["words"].lower()
    for name, least in (("broken", 0), ("cool", 60)):
        left = (datetime.fromisoformat(kept[name][0]["until"]) - datetime.now(UTC)).total_seconds()
        assert least - 30 < left < 121
    assert all(0 <= one["age_s"] < 30 for one in found["candidates"])
    for words in ("endpoints 6, kept from it: 1 capability, 1 health", "paused by", "an operator paused it: a new fan"):
        assert words in said


async def all_shut(house: House) -> bool:
    seen = {one["id"]: one for one in (await house.ask("GET", "/v1/services")).json["items"]}
    sights = {name: one["workers"][0].get("traffic", {}) for name, one in seen.items()}
    return (
        sights["broken"].get("breaker") == "open"
        and sights["cool"].get("cooled_by") == "asked"
        and sights["full"].get("in_flight") == 1
        and not (await house.registry.workers())[0].offers[1].healthy
    )


async def leaves(house: House) -> bool:
    return (await house.ask("GET", "/v1/services/lamp")).json.get("state") == "draining"


async def paused(house: House) -> bool:
    return (await house.registry.workers())[0].state == "paused"


async def test_an_endpoint_that_leaves_and_a_worker_that_is_paused_are_named(
    house: House, fabric: Fabric, discovery: EngineDiscovery, engine: Engine
) -> None:
    registry = EngineEndpoints(engine)
    async with services(lamp=SimKnobs(duration=60.0, slots=4)) as all_, fabric.worker(discovery=discovery) as worker:
        await registry.enroll(Enrolment(id="lamp", connector=CONNECTOR, url=all_["lamp"].url), ttl=60.0)
        running = await fabric.submit("image.generate", {"prompt": "a lighthouse"})
        await fabric.running(running, within=20.0)
        await registry.leave("lamp")
        await eventually(lambda: leaves(house), within=10.0)
        job = await fabric.submit("image.generate", {"prompt": "another"})
        found = await once_kept_out(house, job, {"draining": 1})
        assert "it leaves" in candidate(found, "lamp")["hindrances"][0]["words"]
        await house.desk.cancel(running, operation="c")
        await registry.enroll(Enrolment(id="lamp", connector=CONNECTOR, url=all_["lamp"].url), ttl=60.0)
        await fabric.running(job, within=20.0)
        worker.pause()
        await eventually(lambda: paused(house), within=10.0)
        third = await fabric.submit("image.generate", {"prompt": "a third"})
        found = await once_kept_out(house, third, {"worker": 1})
        assert candidate(found, "lamp")["hindrances"][0]["words"] == "the worker is paused: paused by an operator"


async def test_an_endpoint_that_can_take_the_job_has_nothing_against_it(house: House, fabric: Fabric) -> None:
    async with services(lamp=QUICK) as all_, fabric.worker(connectors=[lamp("lamp", all_["lamp"])]):
        rows = await house.foreman.registry()
        queue = next(row.queue.name for row in rows if any(kind.name == "sim.echo" for kind in row.kinds))
        await house.foreman.pause(queue, operation="p", reason="new disks")
        found = await once_kept_out(house, await fabric.submit("sim.echo", {"value": 1}), {})
    assert (found["endpoints"], candidate(found, "lamp")["hindrances"]) == (1, [])
    assert not any(reason.startswith("no endpoint") for reason in found["reasons"])


async def test_the_isolation_that_nobody_gives_is_counted_as_such(house: House, fabric: Fabric) -> None:
    async with services(lamp=QUICK) as all_, fabric.worker(connectors=[lamp("lamp", all_["lamp"])]):
        job = await fabric.submit("sim.echo", {"value": 1}, needs=Needs(isolation="container"))
        found = await once_kept_out(house, job, {"isolation": 1})
    assert found["candidates"] == []
    assert json.dumps(found["needs"]).count("isolation") == 1
