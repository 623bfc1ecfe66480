"""Jobs of one session and three real services, on a real engine: together while that is fair, else elsewhere."""

from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack
from typing import Any

import pytest

from hostler.connectors.catalogue import build
from hostler.contracts.needs import Needs
from hostler.contracts.queue import KindSpec
from hostler.contracts.service import Enrolment
from hostler.kernel.errors import MissingExtraError
from hostler.policy.affinity import LABEL
from hostler.ports.connector import Connector
from hostler.registry.discovery import EngineDiscovery, Followed, Where
from hostler.registry.endpoints import EngineEndpoints
from hostler.testing.engine_fabric import fabric_on
from hostler.testing.eventually import eventually
from hostler.testing.fabric import Fabric
from hostler.testing.llama import LlamaServer, require_extra
from hostler.testing.sims.http import SimulationHTTPService
from hostler.testing.sims.knobs import SimKnobs
from hostler.valkeyio.engine import Engine

CONNECTOR = "simulation-http"
NAMES = ("east", "north", "west")
SLOTS = 4
SHORT, LONG = {"value": 1}, {"value": 1, "duration": 60.0}
MINE = {"labels": {LABEL: "mine"}}


class Site:
    """Three services, a worker that follows them, and where each job ran."""

    def __init__(self, fabric: Fabric, registry: EngineEndpoints, services: dict[str, SimulationHTTPService]) -> None:
        self.fabric = fabric
        self.registry = registry
        self.services = services

    async def submit(self, payload: dict[str, Any], **more: Any) -> str:
        return await self.fabric.submit("sim.echo", payload, **more)

    async def run(self, payload: dict[str, Any] = SHORT, **more: Any) -> str:
        """Let one job run to its end, and return where it did."""
        job = await self.submit(payload, **more)
        await self.fabric.result(job, within=20.0)
        return self.place(job)

    async def begin(self, payload: dict[str, Any], **more: Any) -> str:
        """Let one job begin that goes on, and return where it does."""
        job = await self.submit(payload, **more)
        await eventually(lambda: self.begun(job), within=20.0)
        return self.place(job)

    async def load(self, at: str, count: int) -> list[str]:
        """Let so many jobs of no session run at this service."""
        jobs = [await self.submit(LONG, needs=Needs(labels={"at": at})) for _ in range(count)]
        for job in jobs:
            await eventually(lambda job=job: self.begun(job), within=20.0)
        assert {self.place(job) for job in jobs} <= {at}
        return jobs

    def begun(self, job: str) -> bool:
        return any(job in self.runs(name) for name in NAMES)

    def runs(self, name: str) -> Counter[str]:
        effects = self.services[name].effects.effects
        return Counter(effect.job for effect in effects if effect.type == "started")

    def place(self, job: str) -> str:
        (name,) = [name for name in NAMES if job in self.runs(name)]
        return name


@pytest.fixture
async def fabric(engine: Engine) -> AsyncGenerator[Fabric]:
    async with fabric_on(engine) as found:
        yield found


@pytest.fixture
async def site(engine: Engine, fabric: Fabric) -> AsyncGenerator[Site]:
    registry = EngineEndpoints(engine)
    async with AsyncExitStack() as stack:
        knobs = SimKnobs(duration=0.01, steps=2, slots=SLOTS)
        services = {name: await stack.enter_async_context(SimulationHTTPService(knobs)) for name in NAMES}
        for name, service in services.items():
            row = Enrolment(id=name, connector=CONNECTOR, url=service.url, labels={"at": name})
            await registry.enroll(row, ttl=60.0)
        await stack.enter_async_context(fabric.worker(discovery=following(registry), slots=16))
        await eventually(lambda: healthy(fabric, NAMES), within=20.0)
        yield Site(fabric, registry, services)


def following(registry: EngineEndpoints) -> EngineDiscovery:
    kinds = build(CONNECTOR, url="http://127.0.0.1:1").kinds()
    followed = Followed(name="sim", connector=CONNECTOR, build=built, kinds=kinds, announced=True)
    return EngineDiscovery(registry, (followed,))


def built(where: Where) -> Connector:
    return build(where.connector, url=where.url, endpoint=where.id, labels=dict(where.labels), slots=where.slots)


async def healthy(fabric: Fabric, names: Sequence[str]) -> bool:
    (worker,) = await fabric.ports.registry.workers()
    return sorted(offer.endpoint or "" for offer in worker.offers if offer.healthy) == sorted(names)


@pytest.mark.row("001:217")
async def test_a_session_stays_where_it_ran_although_other_services_have_less_to_do(site: Site) -> None:
    home = await site.run(**MINE)
    for name in NAMES:
        await site.load(name, 2 if name == home else 1)
    assert [await site.run(**MINE) for _ in range(4)] == [home] * 4
    assert home not in [await site.run() for _ in range(4)]


async def test_a_session_moves_when_its_service_is_full_and_stays_where_it_went(site: Site) -> None:
    home = await site.run(**MINE)
    filled = await site.load(home, SLOTS)
    moved = await site.run(**MINE)
    assert moved != home
    for job in filled:
        await site.fabric.ports.desk.cancel(job, operation=f"cancel {job}")
        await site.fabric.ended(job, within=20.0)
    assert [await site.run(**MINE) for _ in range(3)] == [moved] * 3


async def test_a_session_moves_when_its_service_is_gone(site: Site) -> None:
    home = await site.run(**MINE)
    left = [name for name in NAMES if name != home]
    await site.registry.leave(home)
    await eventually(lambda: healthy(site.fabric, left), within=20.0)
    moved = await site.run(**MINE)
    assert moved in left
    assert [await site.run(**MINE) for _ in range(3)] == [moved] * 3


async def test_one_session_of_many_jobs_takes_no_more_of_a_service_than_its_share_and_a_quarter(site: Site) -> None:
    await site.run(**MINE)
    places = Counter([await site.begin(LONG, **MINE) for _ in range(9)])
    assert max(places.values()) == 4  # 1.25 times a third of nine, rounded up
    assert len(places) == 3


async def test_an_operator_says_where_the_payloads_of_a_kind_name_their_session(site: Site) -> None:
    kind = KindSpec(name="sim.echo", queue="image", affinity=("/value/user",))
    await site.fabric.ports.foreman.declare_kind(kind)
    home = await site.run({"value": {"user": "ada", "turn": 1}})
    for name in NAMES:
        await site.load(name, 2 if name == home else 1)
    assert [await site.run({"value": {"turn": turn, "user": "ada"}}) for turn in range(2, 5)] == [home] * 3
    assert await site.run({"value": {"user": "bob"}}) != home


async def test_a_conversation_finds_its_beginning_known_at_a_real_server_that_is_busier(fabric: Fabric) -> None:
    try:
        require_extra()
    except MissingExtraError as error:
        pytest.skip(str(error))
    async with LlamaServer() as busy, LlamaServer() as idle:
        connectors = [build("openai-http", url=one.url, labels={"at": one.url}) for one in (idle, busy)]
        there = Needs(labels={"at": busy.url})
        async with fabric.worker(connectors=connectors, slots=4):
            talk = [{"role": "user", "content": "what does a hostler do, and where does the word come from?"}]
            before = await tokens(fabric, talk, needs=there)
            other = [{"role": "user", "content": "count"}]
            long = await fabric.submit("chat.complete", {"messages": other, "max_tokens": 1900}, needs=there)
            await fabric.running(long)
            for _ in range(3):
                talk += [{"role": "assistant", "content": "well"}, {"role": "user", "content": "go on"}]
                before = await tokens(fabric, talk, known=before - len("\nassistant: "))


async def tokens(fabric: Fabric, talk: list[dict[str, str]], *, known: int = 0, **more: Needs) -> int:
    """Let one turn run whose prompt begins with so many known tokens, and return how many it has."""
    job = await fabric.submit("chat.complete", {"messages": talk, "max_tokens": 4}, **more)
    usage = (await fabric.result(job, within=30.0))["usage"]
    assert usage["prompt_tokens_details"]["cached_tokens"] >= known
    return usage["prompt_tokens"]
