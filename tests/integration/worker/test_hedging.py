"""A read that one endpoint takes too long for is asked of another one too, recorded once, and stopped where it lost."""

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager

import msgspec
import pytest
from aiohttp import web

from hostler.connectors.config import ConnectorConfig
from hostler.connectors.services.simulation.simulation_http import SimulationHttpConnector
from hostler.contracts.queue import KindSpec
from hostler.contracts.service import Failed, Probe, RemoteRef, ServiceCall, ServiceCapabilities, Source
from hostler.dispatch.gauge import Gauge
from hostler.dispatch.repeats import Repeats
from hostler.ports.discovery import Placed
from hostler.testing.clock import FakeClock, SeededDice
from hostler.testing.connectors_house import Work, call_of, submitted
from hostler.testing.eventually import eventually
from hostler.testing.fabric import Fabric
from hostler.testing.sims.http import Handler, SimulationHTTPService
from hostler.testing.sims.knobs import SimKnobs
from hostler.worker.station import Station

QUICK = SimKnobs(duration=0.01, steps=1, slots=16)
HANGS = SimKnobs(duration=0.01, steps=1, slots=16, hang_rate=1.0)
IMAGE = {"prompt": "a lighthouse"}


class Trap:
    """Lets the next work hang, at whichever endpoint it arrives first."""

    def __init__(self) -> None:
        self.armed = False
        self.calls: list[ServiceCall] = []
        """What was asked of either endpoint."""


class Noting(SimulationHttpConnector):
    """A connector that notes the calls that it got."""

    def __init__(self, config: ConnectorConfig, calls: list[ServiceCall]) -> None:
        super().__init__(config)
        self._calls = calls

    async def submit(self, call: ServiceCall) -> RemoteRef | Failed:
        self._calls.append(call)
        return await super().submit(call)


class Trapped(SimulationHTTPService):
    """A quick service; work that arrives while the trap is armed hangs, and disarms it."""

    def __init__(self, trap: Trap) -> None:
        super().__init__(QUICK)
        self._trap = trap

    def _app(self) -> web.Application:
        app = super()._app()
        app.middlewares.append(self._spring)
        return app

    @web.middleware
    async def _spring(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if not self._trap.armed or (request.method, request.path) != ("POST", "/jobs"):
            return await handler(request)
        self._trap.armed = False
        self.knobs = HANGS
        try:
            return await handler(request)
        finally:
            self.knobs = QUICK

    def happened(self, job: str) -> list[str]:
        return [effect.type for effect in self.effects.after(0) if effect.job == job]


@asynccontextmanager
async def two(fabric: Fabric, trap: Trap, *, read: bool = True) -> AsyncGenerator[tuple[Trapped, Trapped]]:
    """Run a worker of two endpoints, of which it is known how long pictures and echoes take."""
    await fabric.ports.foreman.declare_kind(KindSpec(name="sim.echo", queue="sim", service="simulation", read=read))
    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(Trapped(trap))
        other = await stack.enter_async_context(Trapped(trap))
        connectors = [
            Noting(ConnectorConfig(url=service.url, endpoint=service.url.rpartition(":")[2]), trap.calls)
            for service in (one, other)
        ]
        await stack.enter_async_context(fabric.worker(connectors=connectors, slots=32))
        for kind, payload in (("sim.echo", {"value": 1}), ("image.generate", IMAGE)):
            while any(_done(service, kind) < 10 for service in (one, other)):
                for job in [await fabric.submit(kind, payload) for _ in range(8)]:
                    await fabric.result(job)
        yield one, other


def _done(service: Trapped, kind: str) -> int:
    queue = kind.partition(".")[0]
    return sum(effect.type == "finished" and effect.job.startswith(queue) for effect in service.effects.after(0))


async def test_a_read_that_hangs_is_answered_by_another_endpoint_recorded_once_and_stopped_where_it_lost(
    fabric: Fabric,
) -> None:
    trap = Trap()
    async with two(fabric, trap) as services:
        trap.armed = True
        job = await fabric.submit("sim.echo", {"value": {"n": 7}})
        assert await fabric.result(job) == {"n": 7}
        await eventually(lambda: any("cancelled" in service.happened(job) for service in services))
        assert sorted(service.happened(job) for service in services) == [
            ["started", "cancelled"],
            ["started", "finished"],
        ]
        assert [call.beside for call in trap.calls if call.job_id == job] == [False, True]
        found = await fabric.get(job)
        assert (found.attempt, found.attempts) == (1, ())
        assert [event.type for event in await fabric.events(job)].count("finish") == 1


@pytest.mark.parametrize("kind", ["image.generate", "sim.echo"])
async def test_what_is_no_read_or_not_by_an_operators_word_is_never_asked_twice_however_long_it_takes(
    fabric: Fabric, kind: str
) -> None:
    trap = Trap()
    payload = IMAGE if kind == "image.generate" else {"value": 1}
    async with two(fabric, trap, read=kind != "sim.echo") as services:
        trap.armed = True
        job = await fabric.submit(kind, payload)
        await eventually(lambda: any(service.happened(job) for service in services))
        for _ in range(20):  # together they take longer than any of them
            await fabric.result(await fabric.submit(kind, payload))
        assert (await fabric.get(job)).state == "running"
        assert sorted(service.happened(job) for service in services) == [[], ["started"]]


class Reticent(SimulationHttpConnector):
    """A connector of a service that says neither how busy it is nor, unless it is configured, how many slots it has."""

    def __init__(self, config: ConnectorConfig) -> None:
        super().__init__(config)
        self._told = config.slots

    async def probe(self) -> Probe:
        return msgspec.structs.replace(await super().probe(), busy=None, slots=self._told)

    async def capabilities(self) -> ServiceCapabilities:
        found = await super().capabilities()
        return found if self._told else msgspec.structs.replace(found, pools={})


@pytest.mark.parametrize(
    ("connector", "slots", "running", "ours", "room"),
    [
        (SimulationHttpConnector, 2, 1, 0, True),
        (SimulationHttpConnector, 2, 2, 0, False),
        (SimulationHttpConnector, 2, 0, 2, False),
        (Reticent, 2, 0, 1, True),
        (Reticent, 2, 0, 2, False),
        (Reticent, None, 2, 0, True),
    ],
)
async def test_a_second_call_goes_only_where_a_slot_is_idle_as_far_as_the_service_or_our_own_calls_tell(
    connector: type[SimulationHttpConnector], slots: int | None, running: int, ours: int, *, room: bool
) -> None:
    clock = FakeClock()
    async with SimulationHTTPService(SimKnobs(duration=60.0, slots=2)) as service:
        config = ConnectorConfig(url=service.url, endpoint="e1", slots=slots)
        async with connector(config) as asked, SimulationHttpConnector(config) as others:
            for n in range(running):
                await submitted(others, call_of(Work(kind="sim.echo", payload={"value": n}), job=f"j{n}"))
            station = Station(
                Placed(connector=asked, url=service.url, source=Source.STATIC),
                {},
                clock,
                Gauge(clock=clock, dice=SeededDice(), first=64),
                Repeats("simulation", clock=clock, dice=SeededDice()),
            )
            await station.look()
            for _ in range(ours):
                station.gauge.begin("sim.echo")
            assert station.offer.healthy
            assert station.roomy(frozenset()) is room
