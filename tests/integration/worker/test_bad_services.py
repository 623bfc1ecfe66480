"""A real worker in front of services that answer nonsense, too much, for ever, elsewhere or as somebody else.

Each time: the job's failure has a class, the endpoint is left alone and shows why, that is an event, and the worker
goes on with the good endpoint beside it.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from tests.integration.connectors.test_bad_services import OPTIONS

from hostler.connectors.catalogue import build
from hostler.contracts.failure import FailureClass
from hostler.contracts.job import Job
from hostler.contracts.needs import Needs
from hostler.contracts.service import BreakerMode, Cooling, Endpoint, EndpointState
from hostler.contracts.timeouts import Timeouts
from hostler.policy.sightings import endpoints_of, why_not
from hostler.registry.discovery import EngineDiscovery
from hostler.registry.endpoints import EngineEndpoints
from hostler.testing.engine_fabric import fabric_on
from hostler.testing.eventually import eventually
from hostler.testing.fabric import Fabric
from hostler.testing.sims.http import SimulationHTTPService
from hostler.testing.sims.knobs import SimKnobs
from hostler.valkeyio.engine import Engine
from hostler.valkeyio.keys import registry_key

QUICK = SimKnobs(duration=0.01, steps=2, slots=4)
HUGE = 2_147_483_648
HASTE = Timeouts(connect=3.0, first_byte=2.0, idle=2.0, run=3.0)


@dataclass
class Hypocrite:
    """Answers who asks how it is and what it has, and every other request with `head` and `parts`."""

    head: str
    parts: tuple[bytes, ...] = ()
    forever: bytes = b""
    url: str = ""
    open: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        try:
            asked = (await reader.readuntil(b"\r\n\r\n")).split()
            asks = asked[0] == b"GET" and not asked[1].startswith(b"/work")
            head = "200 OK\r\nContent-Type: application/json" if asks else self.head
            writer.write(f"HTTP/1.1 {head}\r\nConnection: close\r\n\r\n".encode())
            for part in (b'["big"]',) if asks else self.parts:
                writer.write(part)
            while self.forever and not asks:
                writer.write(self.forever)
                await writer.drain()
                await asyncio.sleep(0)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self.open -= 1
            writer.close()

    @asynccontextmanager
    async def served(self, port: int = 0) -> AsyncGenerator["Hypocrite"]:
        server = await asyncio.start_server(self.serve, "127.0.0.1", port)
        host, taken = server.sockets[0].getsockname()[:2]
        self.url = f"http://{host}:{taken}"
        try:
            yield self
        finally:
            server.close()
            await eventually(lambda: self.open == 0, within=10.0)


@pytest.fixture
async def house(engine: Engine) -> AsyncGenerator[Fabric]:
    async with fabric_on(engine) as found:
        yield found


@pytest.fixture
def shown(house: Fabric, engine: Engine) -> Callable[[], Any]:
    """Return the endpoint `bad` as `hostler services show bad` has it."""

    async def look() -> Endpoint:
        everything = endpoints_of(await house.ports.registry.workers(), await EngineEndpoints(engine).census())
        return next(one for one in everything if one.id == "bad")

    return look


@pytest.fixture
def told(engine: Engine) -> Callable[..., Any]:
    """Tell whether one event of the registry about the endpoint `bad` has all of these words."""

    async def look(*words: str) -> bool:
        stream = await engine.command("XRANGE", registry_key("ev"), "-", "+")
        return any(
            all(word.encode() in value for word in ("bad", *words)) for _, fields in stream for value in fields.values()
        )

    return look


@asynccontextmanager
async def worker(house: Fabric, engine: Engine, bad: Any) -> AsyncGenerator[SimulationHTTPService]:
    """Run a worker of this connector and of a good service beside it."""
    async with SimulationHTTPService(QUICK) as service:
        good = build("simulation-http", url=service.url, endpoint="good", labels={"is": "good"}, options={"poll": 0.05})
        async with house.worker(connectors=[bad, good], discovery=EngineDiscovery(EngineEndpoints(engine)), slots=8):
            yield service


async def classes_of(house: Fabric, jobs: list[str], *, least: int = 1) -> set[FailureClass]:
    """Return the classes of the jobs' first attempts, once so many have one, and cancel what is left of them."""

    async def tried() -> list[Job]:
        found = [job for job in [await house.get(one) for one in jobs] if job.attempts]
        return found if len(found) >= least else []

    found = set[FailureClass]()
    for job in await eventually(tried, within=30.0):
        error = job.attempts[0].error
        assert error is not None
        found.add(error.class_)
    for one in jobs:
        if not (await house.get(one)).state.terminal:
            await house.ports.desk.cancel(one, operation=f"cancel {one}")
    return found


async def says(shown: Callable[[], Any], words: str) -> bool:
    return any(words in reason for reason in why_not(await shown()))


async def goes_on(house: Fabric) -> None:
    assert await house.result(await house.submit("sim.echo", {"value": 1}, needs=Needs(labels={"is": "good"})))


PAGE = b"<!doctype html><html>Sign in to go on</html>"
VILLAINS = {
    "html": (Hypocrite("200 OK\r\nContent-Type: text/html", (PAGE,)), "any.answer", "transient"),
    "two gigabytes": (
        Hypocrite(f"200 OK\r\nContent-Type: application/json\r\nContent-Length: {HUGE}", (b'{"a": "',), b"x" * 65_536),
        "any.answer",
        "transient",
    ),
    "a stream without end": (
        Hypocrite("200 OK\r\nContent-Type: text/event-stream", forever=b": still here\n\n"),
        "any.stream",
        "timeout",
    ),
    "a redirect to the metadata of a cloud": (
        Hypocrite("302 Found\r\nLocation: http://169.254.169.254/latest/meta-data/\r\nContent-Length: 0"),
        "any.answer",
        "transient",
    ),
    "an old dialect": (
        Hypocrite("200 OK\r\nContent-Type: application/json", (b'{"prompt_id": 7}',)),
        "any.work",
        "transient",
    ),
}


@pytest.mark.parametrize(("villain", "kind", "expected"), VILLAINS.values(), ids=VILLAINS.keys())
async def test_an_endpoint_that_answers_like_that_is_left_alone_and_the_worker_goes_on(  # noqa: PLR0917 - three fixtures and a case
    house: Fabric,
    engine: Engine,
    shown: Callable[[], Any],
    told: Callable[..., Any],
    villain: Hypocrite,
    kind: str,
    expected: str,
) -> None:
    async with villain.served() as server:
        bad = build("http-json", url=server.url, endpoint="bad", options=OPTIONS)
        async with worker(house, engine, bad):
            jobs = [await house.submit(kind, {"n": number}, timeouts=HASTE) for number in range(6)]
            await eventually(lambda: told("breaker closed", "breaker open", expected), within=30.0)
            await eventually(lambda: says(shown, "breaker"), within=10.0)
            assert (await shown()).traffic.breaker is not BreakerMode.CLOSED
            assert {one.value for one in await classes_of(house, jobs, least=5)} == {expected}
            await goes_on(house)
            await eventually(lambda: server.open == 0, within=10.0)


async def test_an_endpoint_that_lies_about_its_models_is_cooled_and_the_worker_goes_on(
    house: Fabric, engine: Engine, shown: Callable[[], Any], told: Callable[..., Any]
) -> None:
    refusal = {"error": {"message": "The model `big` does not exist", "code": "model_not_found"}}
    liar = Hypocrite("404 Not Found\r\nContent-Type: application/json", (json.dumps(refusal).encode(),))
    chat = {"model": "big", "messages": [{"role": "user", "content": "Where is the lighthouse?"}]}
    async with liar_of_models(liar) as url, worker(house, engine, build("openai-http", url=url, endpoint="bad")):
        jobs = [
            await house.submit("chat.complete", chat, needs=Needs(models=("big",)), labels={"n": str(number)})
            for number in range(5)
        ]
        await eventually(lambda: told("in use", "cooled", "mismatch", "does not exist"), within=20.0)
        assert await classes_of(house, jobs, least=3) == {FailureClass.CAPABILITY_MISMATCH}
        await goes_on(house)


@asynccontextmanager
async def liar_of_models(liar: Hypocrite) -> AsyncGenerator[str]:
    """Serve one that lists a model in the words of the OpenAI protocol and does not know it when asked."""
    listed = json.dumps({"object": "list", "data": [{"id": "big", "object": "model"}]}).encode()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asks = (await reader.readuntil(b"\r\n\r\n")).split()[1].endswith(b"/models")
        head, body = ("200 OK\r\nContent-Type: application/json", listed) if asks else (liar.head, liar.parts[0])
        writer.write(f"HTTP/1.1 {head}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield "http://{}:{}".format(*server.sockets[0].getsockname()[:2])
    finally:
        server.close()


async def test_another_service_behind_the_port_is_unhealthy_at_once_and_its_job_is_not_lost_track_of(
    house: Fabric, engine: Engine, shown: Callable[[], Any], told: Callable[..., Any]
) -> None:
    first = SimulationHTTPService(SimKnobs(duration=60.0, steps=600))
    async with first:
        port = int(first.url.rpartition(":")[2])
        bad = build("simulation-http", url=first.url, endpoint="bad", labels={"is": "bad"}, options={"poll": 0.1})
        stack = AsyncExitStack()
        await stack.enter_async_context(worker(house, engine, bad))
        job = await house.submit("image.generate", {"prompt": "x"}, needs=Needs(labels={"is": "bad"}), timeouts=HASTE)
        await eventually(lambda: any(effect.type == "started" for effect in first.effects.after(0)), within=20.0)
    async with Hypocrite("200 OK\r\nContent-Type: application/json", (b'{"status": "ok"}',)).served(port), stack:
        await eventually(lambda: told("ready", "unhealthy"), within=20.0)
        await eventually(lambda: says(shown, "finds it unhealthy"), within=10.0)
        assert (await shown()).state is EndpointState.UNHEALTHY
        assert await classes_of(house, [job]) <= {FailureClass.TRANSIENT, FailureClass.LOST, FailureClass.TIMEOUT}
        await goes_on(house)


async def test_an_endpoint_that_asks_to_be_left_alone_is_cooled_for_that_time(
    house: Fabric, engine: Engine, shown: Callable[[], Any], told: Callable[..., Any]
) -> None:
    busy = Hypocrite("429 Too Many Requests\r\nRetry-After: 120\r\nContent-Length: 0")
    async with busy.served() as server:
        bad = build("http-json", url=server.url, endpoint="bad", options=OPTIONS)
        async with worker(house, engine, bad):
            job = await house.submit("any.answer", {})
            await eventually(lambda: told("in use", "cooled", "for 120.0 s, asked"), within=20.0)
            await eventually(lambda: says(shown, "leaves it alone for"), within=10.0)
            assert (await shown()).traffic.cooled_by is Cooling.ASKED
            assert await classes_of(house, [job]) == {FailureClass.OVERLOADED}
            await goes_on(house)
