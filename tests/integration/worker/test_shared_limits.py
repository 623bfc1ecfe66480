"""Workers that keep to one limit together."""

import itertools
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack
from datetime import datetime
from types import AsyncGeneratorType
from typing import Any, cast

import msgspec
import pytest

from hostler.connectors.catalogue import build
from hostler.connectors.config import ConnectorConfig
from hostler.connectors.services.simulation.simulation_http import SimulationHttpConnector
from hostler.contracts.limit import Grant, Wait, Want
from hostler.contracts.queue import QueueSpec, RetryPolicy
from hostler.contracts.service import Failed, Finished, RemoteRef, RemoteState, ServiceCall, Step
from hostler.dispatch.account import Account
from hostler.dispatch.limited import Limited
from hostler.registry.limits import EngineLimiter
from hostler.testing.bench import Clients
from hostler.testing.connectors_house import Work, call_of
from hostler.testing.eventually import eventually
from hostler.testing.fabric import Fabric
from hostler.testing.limits import most_in_a_window
from hostler.testing.sims.effects import Effect
from hostler.testing.sims.http import SimulationHTTPService
from hostler.testing.sims.knobs import SimKnobs

PROMPT = {"prompt": "a lighthouse", "width": 64, "height": 64}
QUICK = SimKnobs(duration=0.0, slots=16)


class Noting(EngineLimiter):
    """A limiter that notes when it granted."""

    def __init__(self, engine: Clients, granted: list[datetime]) -> None:
        super().__init__(engine)
        self._granted = granted

    async def take(self, call: str, wants: Sequence[Want], **options: Any) -> Grant | Wait:
        answer = await super().take(call, wants, **options)
        if isinstance(answer, Grant):
            self._granted.append(answer.at)
        return answer


@pytest.mark.row("003:330")
async def test_four_workers_call_one_endpoint_no_more_often_than_its_limit(fabric: Fabric, clients: Clients) -> None:
    granted: list[datetime] = []
    async with SimulationHTTPService(QUICK) as service, AsyncExitStack() as stack:
        for _ in range(4):
            connector = build("simulation-http", url=service.url, options={"poll": 0.1})
            limited = Limited(connector, Noting(clients, granted), Account(connector, ["8/s"]))
            await stack.enter_async_context(fabric.worker(connectors=[limited], slots=4))
        jobs = [await fabric.submit("image.generate", PROMPT) for _ in range(24)]
        ended = [await fabric.ended(job, within=60.0) for job in jobs]
        started = sum(effect.type == "started" for effect in service.effects.effects)
    assert {job.state for job in ended} == {"succeeded"}
    assert started == len(granted) == len(jobs)
    assert most_in_a_window(granted, 1.0) <= 8


class Refusal(msgspec.Struct, frozen=True):
    """When a call was refused, between two moments of the engine's clock, and how long it was told to stay away."""

    asked: float
    answered: float
    after: float


class Holding(Noting):
    """A limiter that notes of each call whether it held a moment in a line, and its refusals."""

    def __init__(
        self, engine: Clients, granted: list[datetime], held: dict[str, bool], refused: dict[str, list[Refusal]]
    ) -> None:
        super().__init__(engine, granted)
        self._held = held
        self._refused = refused

    async def take(self, call: str, wants: Sequence[Want], **options: Any) -> Grant | Wait:
        self._held[call] = options["held"] is not None
        asked = time.time()
        answer = await super().take(call, wants, **options)
        if isinstance(answer, Wait):
            self._refused.setdefault(call, []).append(Refusal(asked, time.time(), answer.after))
        return answer


@pytest.mark.row("003:330")
async def test_a_backlog_of_one_tenant_comes_back_job_by_job_in_the_order_in_which_it_was_refused(
    fabric: Fabric, clients: Clients
) -> None:
    granted: list[datetime] = []
    held: dict[str, bool] = {}
    refusals: dict[str, list[Refusal]] = {}
    async with SimulationHTTPService(QUICK) as service, AsyncExitStack() as stack:
        for _ in range(4):
            connector = build("simulation-http", url=service.url, options={"poll": 0.1})
            limiter = Holding(clients, granted, held, refusals)
            limited = Limited(connector, limiter, Account(connector, ["8/s per tenant"]))
            await stack.enter_async_context(fabric.worker(connectors=[limited], slots=4))
        jobs = [await fabric.submit("image.generate", PROMPT, tenant="loud") for _ in range(24)]
        ended = [await fabric.ended(job, within=60.0) for job in jobs]
    assert most_in_a_window(granted, 1.0) <= 8
    assert all(held[job.id] for job in ended if job.attempts)
    errors = {job.id: job.attempts[0].error for job in ended if job.attempts}
    assert len(errors) > 10
    assert {error is not None and error.details["line"] for error in errors.values()} == {"own"}
    # A short wait is waited for within the attempt; what ended the first attempt is the refusal that was passed on.
    told = {
        job: [one for one in refusals[job] if error is not None and one.after == pytest.approx(error.retry_after)]
        for job, error in errors.items()
    }
    assert all(told.values())
    pairs = itertools.permutations((found[0] for found in told.values()), 2)
    one_after_the_other = [(first, later) for first, later in pairs if first.answered < later.asked]
    assert len(one_after_the_other) > 10
    assert all(first.asked + first.after < later.answered + later.after for first, later in one_after_the_other)


@pytest.mark.row("003:328")
async def test_a_job_waits_for_its_limit_with_reason_and_time_and_uses_no_attempt(
    fabric: Fabric, clients: Clients
) -> None:
    async with SimulationHTTPService(QUICK) as service:
        connector = build("simulation-http", url=service.url, options={"poll": 0.1})
        limited = Limited(connector, EngineLimiter(clients), Account(connector, ["1/h"]))
        async with fabric.worker(connectors=[limited], slots=1):
            first = await fabric.submit("image.generate", PROMPT)
            assert (await fabric.ended(first)).state == "succeeded"
            second = await fabric.submit("image.generate", PROMPT)

            async def waiting() -> bool:
                return (await fabric.get(second)).state == "scheduled"

            await eventually(waiting, within=10.0)
            job = await fabric.get(second)
            assert job.error is not None
            assert job.error.class_ == "overloaded"
            assert "1/h is used up for 35" in job.error.message
            assert [(each.outcome, each.counted) for each in job.attempts] == [("retry", False)]
            assert job.ready_at is not None
            assert (job.ready_at - job.created_at).total_seconds() > 3_000
        assert sum(effect.type == "started" for effect in service.effects.effects) == 1


class Refusing(EngineLimiter):
    """A limiter that lets nobody through the first few times."""

    def __init__(self, engine: Clients, times: int) -> None:
        super().__init__(engine)
        self._times = times

    async def take(self, call: str, wants: Sequence[Want], **options: Any) -> Grant | Wait:
        if self._times:
            self._times -= 1
            return Wait(limit=wants[0].limit.name, after=0.02)
        return await super().take(call, wants, **options)


@pytest.mark.row("003:328")
async def test_a_job_waits_for_its_limit_however_often_and_neither_budget_nor_breaker_hears_of_it(
    fabric: Fabric, clients: Clients
) -> None:
    async with SimulationHTTPService(QUICK) as service:
        connector = build("simulation-http", url=service.url, options={"poll": 0.1})
        spec = msgspec.structs.replace(connector.kinds()[0], retry=RetryPolicy(attempts=1, overloads=1))
        await fabric.ports.foreman.declare_kind(msgspec.structs.replace(spec, declared_by="configuration"))
        limited = Limited(connector, Refusing(clients, 5), Account(connector, ["100/s"]), patience=0.0)
        async with fabric.worker(connectors=[limited], slots=1):
            job = await fabric.ended(await fabric.submit("image.generate", PROMPT), within=20.0)
            (worker,) = await fabric.ports.registry.workers()
    assert job.state == "succeeded"
    refused = [each for each in job.attempts if each.outcome == "retry"]
    assert not any(each.counted for each in refused)
    assert [each.error is not None and each.error.unsent for each in refused] == [True] * 5
    (endpoint,) = worker.endpoints
    assert (endpoint.traffic.failed, endpoint.traffic.breaker, endpoint.traffic.last_error) == (0, "closed", None)


@pytest.mark.row("003:328")
async def test_one_tenants_limit_leaves_the_endpoint_to_the_others_and_is_named_by_the_job_that_waits(
    fabric: Fabric, clients: Clients
) -> None:
    async with SimulationHTTPService(QUICK) as service:
        connector = build("simulation-http", url=service.url, options={"poll": 0.1})
        limited = Limited(connector, EngineLimiter(clients), Account(connector, ["1/h per tenant"]), patience=0.0)
        async with fabric.worker(connectors=[limited], slots=1):
            first = await fabric.submit("image.generate", PROMPT, tenant="loud")
            assert (await fabric.ended(first)).state == "succeeded"
            second = await fabric.submit("image.generate", PROMPT, tenant="loud")

            async def waiting() -> bool:
                return (await fabric.get(second)).state == "scheduled"

            await eventually(waiting, within=10.0)
            quiet = await fabric.submit("image.generate", PROMPT, tenant="quiet")
            assert (await fabric.ended(quiet)).state == "succeeded"
            error = (await fabric.get(second)).error
            assert error is not None
            assert error.details["limit"] == "simulation|tenant=loud|1/h_per_tenant"
            assert error.details["line"] == "own"


@pytest.mark.row("002:189")
async def test_two_workers_of_two_queues_never_have_more_in_flight_at_an_endpoint_than_its_slots(
    fabric: Fabric, clients: Clients
) -> None:
    roomy = SimKnobs(duration=0.15, slots=16)
    async with SimulationHTTPService(roomy) as service, AsyncExitStack() as stack:
        for _ in range(2):
            connector = build("simulation-http", url=service.url, slots=2, options={"poll": 0.05})
            if not await fabric.ports.registry.workers():
                spec = next(kind for kind in connector.kinds() if kind.name == "sim.echo")
                moved = msgspec.structs.replace(spec, queue="echoes", declared_by="configuration")
                await fabric.ports.foreman.declare_queue(QueueSpec(name="echoes"))
                await fabric.ports.foreman.declare_kind(moved)
            await stack.enter_async_context(
                fabric.worker(connectors=[connector], slots=8, limiter=EngineLimiter(clients))
            )
        jobs = [
            await fabric.submit(*work)
            for _ in range(10)
            for work in (("image.generate", PROMPT), ("sim.echo", {"value": 1}))
        ]
        ended = [await fabric.ended(job, within=60.0) for job in jobs]
        effects = list(service.effects.effects)
    assert {job.state for job in ended} == {"succeeded"}
    assert {job.queue for job in ended} == {"image", "echoes"}
    assert not any(attempt.counted for job in ended for attempt in job.attempts if attempt.outcome == "retry")
    assert most_at_once(effects) == 2


@pytest.mark.row("003:330")
async def test_four_workers_keep_to_calls_in_flight_of_a_service_together(fabric: Fabric, clients: Clients) -> None:
    roomy = SimKnobs(duration=0.1, slots=16)
    async with SimulationHTTPService(roomy) as service, AsyncExitStack() as stack:
        for _ in range(4):
            connector = build("simulation-http", url=service.url, options={"poll": 0.05})
            account = Account(connector, ["in_flight 3 per service"])
            limited = Limited(connector, EngineLimiter(clients), account)
            await stack.enter_async_context(fabric.worker(connectors=[limited], slots=4))
        jobs = [await fabric.submit("image.generate", PROMPT) for _ in range(24)]
        ended = [await fabric.ended(job, within=60.0) for job in jobs]
        effects = list(service.effects.effects)
    assert {job.state for job in ended} == {"succeeded"}
    assert most_at_once(effects) == 3
    assert await EngineLimiter(clients).list() == ()  # every place was given back


async def test_work_that_takes_longer_than_its_lease_keeps_its_place(fabric: Fabric, clients: Clients) -> None:
    slow = SimKnobs(duration=1.2, slots=16)
    async with SimulationHTTPService(slow) as service, AsyncExitStack() as stack:
        for _ in range(2):
            connector = build("simulation-http", url=service.url, options={"poll": 0.05})
            account = Account(connector, ["in_flight 1 per model"])
            limited = Limited(connector, EngineLimiter(clients), account, lease=0.4)
            await stack.enter_async_context(fabric.worker(connectors=[limited], slots=2))
        jobs = [await fabric.submit("image.generate", PROMPT) for _ in range(3)]
        ended = [await fabric.ended(job, within=60.0) for job in jobs]
        effects = list(service.effects.effects)
    assert {job.state for job in ended} == {"succeeded"}
    assert most_at_once(effects) == 1


async def test_who_goes_on_with_anothers_work_takes_its_place_over_and_gives_it_back_at_the_end(
    clients: Clients,
) -> None:
    async with SimulationHTTPService(SimKnobs(duration=1.0, slots=16)) as service:

        def limited() -> Limited:
            connector = build("simulation-http", url=service.url, options={"poll": 0.05})
            return Limited(connector, EngineLimiter(clients), Account(connector, ["in_flight 1"]))

        work = Work(kind="image.generate", payload=PROMPT)
        async with limited() as first, limited() as second, limited() as third:
            begun = await first.submit(call_of(work))
            assert isinstance(begun, RemoteRef)
            await first.__aexit__(None, None, None)  # as if it had died: nothing is given back, nothing renewed
            ref = msgspec.structs.replace(begun, fence=2)
            assert await second.reconcile(ref) in {RemoteState.PENDING, RemoteState.RUNNING}
            steps = [step async for step in second.observe(call_of(work, job=begun.job_id, fence=2), ref)]
            assert isinstance(steps[-1], Finished)
            assert await EngineLimiter(clients).list() == ()
            assert isinstance(await third.submit(call_of(work, job="next")), RemoteRef)


async def test_a_place_of_a_worker_that_died_is_free_when_its_lease_has_run_out(clients: Clients) -> None:
    async with SimulationHTTPService(SimKnobs(duration=60.0, slots=16)) as service:
        connector = build("simulation-http", url=service.url, options={"poll": 0.05})
        account = Account(connector, ["in_flight 1"])
        work = Work(kind="image.generate", payload=PROMPT)
        async with Limited(connector, EngineLimiter(clients), account, lease=0.5, patience=0.0) as dying:
            assert isinstance(await dying.submit(call_of(work, job="one")), RemoteRef)
            refused = await dying.submit(call_of(work, job="two"))
            assert isinstance(refused, Failed)
            assert refused.failure.unsent
        other = build("simulation-http", url=service.url, options={"poll": 0.05})
        async with Limited(other, EngineLimiter(clients), Account(other, ["in_flight 1"]), patience=10.0) as living:
            assert isinstance(await living.submit(call_of(work, job="two")), RemoteRef)


async def test_stopped_work_gives_its_place_back_at_once(clients: Clients) -> None:
    async with SimulationHTTPService(SimKnobs(duration=60.0, slots=16)) as service:
        connector = build("simulation-http", url=service.url, options={"poll": 0.05})
        limited = Limited(connector, EngineLimiter(clients), Account(connector, ["in_flight 1"]), patience=0.0)
        work = Work(kind="image.generate", payload=PROMPT)
        async with limited:
            begun = await limited.submit(call_of(work, job="one"))
            assert isinstance(begun, RemoteRef)
            assert await limited.cancel(begun)
            assert isinstance(await limited.submit(call_of(work, job="two")), RemoteRef)


async def test_a_second_call_of_a_job_takes_a_place_of_its_own_and_gives_back_no_other(clients: Clients) -> None:
    work, limiter = Work(kind="sim.echo", payload={"value": 1, "duration": 60.0}), EngineLimiter(clients)
    async with SimulationHTTPService(SimKnobs(duration=60.0)) as one, SimulationHTTPService(QUICK) as other:

        def limited(url: str, most: int) -> Limited:
            connector = build("simulation-http", url=url, options={"poll": 0.05})
            return Limited(connector, limiter, Account(connector, [f"in_flight {most} per service"]), patience=0.0)

        first = call_of(work, job="hedged")
        beside = msgspec.structs.replace(first, beside=True, payload=msgspec.Raw(b'{"value": 1}'))
        async with limited(one.url, 1) as slow, limited(other.url, 1) as quick:
            assert isinstance(await slow.submit(first), RemoteRef)
            refused = await quick.submit(beside)
            assert isinstance(refused, Failed)
            assert refused.failure.unsent
        async with limited(one.url, 2) as slow, limited(other.url, 2) as quick:
            assert isinstance(await slow.submit(first), RemoteRef)
            ref = await quick.submit(beside)
            assert isinstance(ref, RemoteRef)
            assert [one.leases for one in await limiter.list()] == [1, 2]
            assert isinstance([step async for step in quick.observe(beside, ref)][-1], Finished)
            assert [one.leases for one in await limiter.list()] == [1, 1]


def most_at_once(effects: Sequence[Effect]) -> int:
    """Return how many runs went on at the same time at most, by what the service did."""
    now = most = 0
    for effect in effects:
        now += (effect.type == "started") - (effect.type in {"finished", "failed", "cancelled"})
        most = max(most, now)
    return most


class Kept(SimulationHttpConnector):
    """A connector that keeps what it gave to be observed, so that nothing but its observer ends it."""

    def __init__(self, config: ConnectorConfig) -> None:
        super().__init__(config)
        self.observed: list[AsyncGenerator[Step]] = []

    def observe(self, call: ServiceCall, ref: RemoteRef) -> AsyncGenerator[Step]:
        self.observed.append(super().observe(call, ref))
        return self.observed[-1]


@pytest.mark.parametrize("limits", [["1000/s burst 10"], []])
async def test_who_observed_work_has_closed_that_when_the_job_has_ended(
    fabric: Fabric, clients: Clients, limits: list[str]
) -> None:
    async with SimulationHTTPService(QUICK) as service:
        connector = Kept(ConnectorConfig(url=service.url, endpoint="kept"))
        serving = Limited(connector, EngineLimiter(clients), Account(connector, limits)) if limits else connector
        async with fabric.worker(connectors=[serving]):
            for _ in range(3):
                await fabric.result(await fabric.submit("image.generate", PROMPT))
        observed = cast("list[AsyncGeneratorType[Step, None]]", connector.observed)
        assert [each.ag_frame for each in observed] == [None, None, None]
