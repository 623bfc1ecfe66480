"""A worker drives a simulated service over real HTTP: submit, follow, reconcile, cancel, and an endpoint that fails."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Self

import pytest
from aiohttp import web

from hostler.connectors.catalogue import build
from hostler.connectors.config import ConnectorConfig
from hostler.connectors.services.simulation.simulation_http import SimulationHttpConnector
from hostler.contracts.queue import QueueSpec
from hostler.contracts.service import EndpointState, Failed, Probe, RemoteRef, ServiceCall, ServiceCapabilities
from hostler.contracts.timeouts import Timeouts
from hostler.kernel.errors import InternalError, InvalidError
from hostler.kernel.settings import WorkerSettings
from hostler.ports.broker import Broker
from hostler.ports.registry import Registry
from hostler.testing.eventually import eventually
from hostler.testing.fabric import Fabric
from hostler.testing.sims.http import SimulationHTTPService
from hostler.testing.sims.knobs import SimKnobs
from hostler.testing.wire import Wire
from hostler.worker.handlers import HandlerSet
from hostler.worker.system import SystemClock, SystemDice
from hostler.worker.worker import Worker

IMAGE = {"prompt": "a lighthouse"}


@pytest.fixture
async def service() -> AsyncIterator[SimulationHTTPService]:
    async with SimulationHTTPService(SimKnobs(duration=0.2, steps=4)) as service:
        yield service


def connector(service: SimulationHTTPService) -> Any:
    return build("simulation-http", url=service.url)


def begun(service: SimulationHTTPService, job: str) -> int:
    return sum(1 for effect in service.effects.after(0) if effect.job == job and effect.type == "started")


@pytest.mark.row("000:15")
async def test_a_job_runs_over_http_through_worker_transport_and_connector_and_gives_the_services_result(
    fabric: Fabric, service: SimulationHTTPService
) -> None:
    async with fabric.worker(connectors=[connector(service)]):
        job = await fabric.submit("image.generate", IMAGE)
        result = await fabric.result(job)
        assert isinstance(result, dict)
        assert begun(service, job) == 1
        found = await fabric.get(job)
        assert found.service == "simulation"
        fractions = [event.data["fraction"] for event in await fabric.events(job) if "fraction" in event.data]
        assert fractions == sorted(fractions)
        assert fractions


@pytest.mark.row("001:77")
async def test_the_next_worker_picks_up_work_that_the_service_already_does_and_nothing_runs_twice(
    fabric: Fabric, service: SimulationHTTPService
) -> None:
    service.knobs = SimKnobs(duration=3.0, steps=30)
    async with fabric.worker(connectors=[connector(service)]) as first:
        job = await fabric.submit("image.generate", IMAGE)
        await eventually(lambda: begun(service, job) == 1)
        await eventually(lambda: _remote(fabric, job))
        first.drain(at_once=True)
        await eventually(lambda: first.state == "stopped")
    assert (await fabric.get(job)).state == "ready"
    async with fabric.worker(connectors=[connector(service)]):
        await fabric.result(job)
    assert begun(service, job) == 1


async def _remote(fabric: Fabric, job: str) -> bool:
    return any(event.type == "progress" for event in await fabric.events(job))


async def test_a_worker_that_lost_its_lease_leaves_the_work_to_the_one_that_has_it(
    fabric: Fabric, service: SimulationHTTPService
) -> None:
    await fabric.ports.foreman.declare_queue(QueueSpec(name="image", lease=0.4))
    service.knobs = SimKnobs(duration=4.0, steps=40)
    wire = Wire()
    async with fabric.worker(connectors=[connector(service)], broker=wire.to(fabric.ports.broker), id="first") as first:
        job = await fabric.submit("image.generate", IMAGE)
        await eventually(lambda: _remote(fabric, job))
        wire.cut = True
        async with fabric.worker(connectors=[connector(service)], id="second"):
            await eventually(lambda: _held_by(fabric, job, "second"), within=15)
            wire.cut = False
            await eventually(lambda: first.jobs == ())
            await fabric.result(job, within=20)
    assert begun(service, job) == 1
    assert [event.type for event in await fabric.events(job)].count("finish") == 1


async def _held_by(fabric: Fabric, job: str, worker: str) -> bool:
    found = await fabric.get(job)
    return found.state == "running" and found.worker == worker


async def test_a_cancel_reaches_the_service(fabric: Fabric, service: SimulationHTTPService) -> None:
    service.knobs = SimKnobs(duration=60.0)
    async with fabric.worker(connectors=[connector(service)]):
        job = await fabric.submit("image.generate", IMAGE)
        await eventually(lambda: begun(service, job) == 1)
        await fabric.ports.desk.cancel(job, operation="c")
        assert (await fabric.ended(job)).state == "cancelled"
        await eventually(lambda: any(effect.type == "cancelled" for effect in service.effects.after(0)))


class LateAnswer(SimulationHttpConnector):
    """The service takes the work at once, its answer is on the way until the test lets it come."""

    def __init__(self, url: str) -> None:
        super().__init__(ConnectorConfig(url=url, endpoint=url))
        self.come = asyncio.Event()

    async def submit(self, call: ServiceCall) -> RemoteRef | Failed:
        answer = await super().submit(call)
        await self.come.wait()
        return answer


async def test_a_cancel_while_the_work_is_being_handed_over_stops_it_at_the_service_too(
    fabric: Fabric, service: SimulationHTTPService
) -> None:
    service.knobs = SimKnobs(duration=60.0)
    late = LateAnswer(service.url)
    async with fabric.worker(connectors=[late]):
        job = await fabric.submit("image.generate", IMAGE)
        await eventually(lambda: begun(service, job) == 1)
        await fabric.ports.desk.cancel(job, operation="c")
        asyncio.get_running_loop().call_later(0.5, late.come.set)
        assert (await fabric.ended(job)).state == "cancelled"
        await eventually(lambda: any(effect.type == "cancelled" for effect in service.effects.after(0)))


async def test_work_that_hangs_ends_at_the_idle_timeout_and_is_cancelled_at_the_service(
    fabric: Fabric, service: SimulationHTTPService
) -> None:
    service.knobs = SimKnobs(duration=0.4, hang_rate=1.0)
    async with fabric.worker(connectors=[connector(service)], broker=fabric.ports.broker) as worker:
        job = await fabric.submit("image.generate", IMAGE, timeouts=Timeouts(idle=0.5))
        await eventually(lambda: _failed_once(fabric, job), within=15)
        failed = (await fabric.get(job)).attempts[0]
        assert failed.error is not None
        assert failed.error.label == "timeout:idle"
        await eventually(lambda: any(effect.type == "cancelled" for effect in service.effects.after(0)))
        await fabric.ports.desk.cancel(job, operation="c")
        await eventually(lambda: worker.jobs == (), within=15)


async def _failed_once(fabric: Fabric, job: str) -> bool:
    return len((await fabric.get(job)).attempts) > 0


@pytest.mark.row("000:62")
async def test_nothing_is_claimed_for_an_endpoint_that_is_down_while_others_are_served(
    fabric: Fabric, service: SimulationHTTPService
) -> None:
    async with SimulationHTTPService(SimKnobs(duration=0.1, steps=2)) as other:
        down = build("simulation-http", url=other.url)
    async with fabric.worker(connectors=[down, connector(service)]) as worker:
        (record,) = await fabric.ports.registry.workers()
        assert [offer.healthy for offer in record.offers] == [False, True]
        jobs = [await fabric.submit("image.generate", IMAGE) for _ in range(5)]
        for job in jobs:
            await fabric.result(job)
            assert begun(service, job) == 1
        service.knobs = SimKnobs(duration=0.1, health_failure_rate=1.0)
        await eventually(lambda: _healthy(fabric, 0))
        waiting = await fabric.submit("image.generate", IMAGE)
        service.knobs = SimKnobs(duration=0.1)
        await fabric.result(waiting)
        assert worker.state in {"ready", "busy"}


async def _healthy(fabric: Fabric, count: int) -> bool:
    (record,) = await fabric.ports.registry.workers()
    return sum(offer.healthy for offer in record.offers) == count


async def test_a_worker_whose_only_endpoint_is_down_is_ready_and_its_job_waits_visibly(fabric: Fabric) -> None:
    async with SimulationHTTPService() as gone:
        down = build("simulation-http", url=gone.url)
    async with fabric.worker(connectors=[down]) as worker:
        assert worker.state == "ready"
        job = await fabric.submit("image.generate", IMAGE)
        explanation = await fabric.ports.desk.explain(job)
        assert [need.key for need in explanation.needs] == ["healthy"]


@pytest.mark.row("002:189")
async def test_an_endpoint_never_gets_more_than_its_slots(fabric: Fabric) -> None:
    async with (
        SimulationHTTPService(SimKnobs(duration=0.1, steps=2, slots=2)) as small,
        fabric.worker(connectors=[connector(small)], slots=8),
    ):
        jobs = [await fabric.submit("image.generate", IMAGE) for _ in range(8)]
        for job in jobs:
            found = await fabric.ended(job)
            assert found.state == "succeeded"
            assert found.attempts == ()


class Opened(SimulationHttpConnector):
    """Says when it was opened and closed; `broken` does not open, `confused` raises where no connector may."""

    def __init__(self, log: list[str], name: str, *, fault: str = "") -> None:
        super().__init__(ConnectorConfig(url="http://127.0.0.1:9", endpoint=name))
        self._log = log
        self._fault = fault

    async def __aenter__(self) -> Self:
        if self._fault == "broken":
            raise InternalError("it does not open")
        self._log.append(f"open {self.endpoint}")
        return await super().__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._log.append(f"close {self.endpoint}")
        await super().__aexit__(kind, value, trace)

    async def probe(self) -> Probe:
        if self._fault == "slow":
            await asyncio.Event().wait()
        return Probe(state=EndpointState.READY)

    async def capabilities(self) -> ServiceCapabilities:
        if self._fault == "confused":
            raise ValueError("a defect of the connector")
        return await super().capabilities()


@pytest.mark.row("001:275")
async def test_a_connector_that_does_not_open_closes_those_before_it_and_the_worker_says_why(fabric: Fabric) -> None:
    log = list[str]()
    with pytest.raises(InternalError, match="does not open"):
        async with fabric.worker(connectors=[Opened(log, "a"), Opened(log, "b", fault="broken")], id="w"):
            pass
    assert log == ["open a", "close a"]
    (record,) = await fabric.ports.registry.workers(include_gone=True)
    assert record.state == "failed"


@pytest.mark.row("001:275")
async def test_connectors_are_closed_when_the_start_is_given_up_half_way(fabric: Fabric) -> None:
    log, ports = list[str](), fabric.ports
    worker = Worker(
        ports.broker,
        ports.foreman,
        ports.registry,
        [Opened(log, "a", fault="slow")],
        HandlerSet.of(),
        WorkerSettings(),
        clock=SystemClock(),
        dice=SystemDice(),
        heartbeat_link=lambda: _link(fabric),
    )
    task = asyncio.create_task(worker.run())
    await eventually(lambda: log == ["open a"])
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()
    assert log == ["open a", "close a"]


@asynccontextmanager
async def _link(fabric: Fabric) -> AsyncGenerator[tuple[Broker, Registry]]:
    yield fabric.ports.broker, fabric.ports.registry


@pytest.mark.row("001:275")
async def test_connectors_are_closed_on_drain_and_when_the_claim_loop_breaks(fabric: Fabric) -> None:
    log = list[str]()
    async with fabric.worker(connectors=[Opened(log, "a")]) as worker:
        worker.drain()
        await eventually(lambda: worker.state == "stopped")
    assert log == ["open a", "close a"]
    with pytest.raises(InvalidError):
        await _break_the_claim_loop(fabric, Opened(log, "b"))
    assert log == ["open a", "close a", "open b", "close b"]
    records = await fabric.ports.registry.workers(include_gone=True)
    assert [record.state.value for record in records] == ["stopped", "stopped"]


async def _break_the_claim_loop(fabric: Fabric, connector: Opened) -> None:
    wire = Wire()
    async with fabric.worker(connectors=[connector], broker=wire.to(fabric.ports.broker)) as worker:
        wire.refuse = lambda verb, _: verb == "wait_for_work"
        await eventually(lambda: worker.state == "stopped")


async def test_a_connector_that_raises_where_it_may_not_is_unhealthy_and_stops_no_other(
    fabric: Fabric, service: SimulationHTTPService
) -> None:
    async with fabric.worker(connectors=[Opened([], "a", fault="confused"), connector(service)]):
        assert await fabric.result(await fabric.submit("image.generate", IMAGE))
        (record,) = await fabric.ports.registry.workers()
        assert [offer.healthy for offer in record.offers] == [False, True]


class EndlessChat:
    """A server of the OpenAI protocol whose answers never end; counts the requests that it is kept busy with."""

    def __init__(self) -> None:
        self.busy = 0
        self.seen = 0

    async def complete(self, request: web.Request) -> web.StreamResponse:
        self.busy, self.seen = self.busy + 1, self.seen + 1
        try:
            answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
            await answer.prepare(request)
            await answer.write(b'data: {"id":"x","model":"m","choices":[{"index":0,"delta":{"content":"a"}}]}\n\n')
            await asyncio.Event().wait()
            return answer
        finally:
            self.busy -= 1

    @asynccontextmanager
    async def served(self) -> AsyncGenerator[str]:
        async def models(_: web.Request) -> web.Response:
            return web.json_response({"object": "list", "data": [{"id": "m"}]})

        app = web.Application()
        app.add_routes([web.get("/v1/models", models), web.post("/v1/chat/completions", self.complete)])
        runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        try:
            yield f"http://127.0.0.1:{runner.addresses[0][1]}"
        finally:
            await runner.cleanup()


async def test_work_that_nobody_else_can_take_over_is_stopped_when_its_lease_is_lost(fabric: Fabric) -> None:
    chat, wire = EndlessChat(), Wire()
    async with (
        chat.served() as url,
        fabric.worker(
            connectors=[build("openai-http", url=url)], broker=wire.to(fabric.ports.broker), id="w"
        ) as worker,
    ):
        await fabric.ports.foreman.declare_queue(QueueSpec(name="chat", lease=0.4, cancel_grace=0.1))
        await fabric.submit("chat.complete", {"messages": [{"role": "user", "content": "hello"}]})
        await eventually(lambda: chat.busy == 1)
        worker.pause()  # so that it does not take the job again
        wire.cut = True
        await eventually(lambda: _nobody_has_it(fabric), within=10)
        wire.cut = False
        await eventually(lambda: worker.jobs == ())
        await eventually(lambda: chat.busy == 0)
        assert chat.seen == 1


async def _nobody_has_it(fabric: Fabric) -> bool:
    return (await fabric.ports.foreman.stats("chat")).running == 0
