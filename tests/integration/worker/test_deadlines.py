"""The deadline of a job goes with every call of it, and work that cannot be done by then is not begun."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from hostler.connectors.catalogue import build
from hostler.contracts.job import Job
from hostler.contracts.timeouts import Timeouts
from hostler.policy.deadline import HEADER
from hostler.testing.eventually import eventually
from hostler.testing.fabric import Fabric
from hostler.testing.sims.grpc import SimulationGRPCService
from hostler.testing.sims.http import Handler, SimulationHTTPService
from hostler.testing.sims.knobs import SimKnobs
from hostler.testing.sims.websocket import SimulationWebsocketService

IMAGE = {"prompt": "a lighthouse"}


def within(seconds: float) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=seconds)


class Listening(SimulationHTTPService):
    """Keeps what each request says of the time that is left."""

    def __init__(self, knobs: SimKnobs) -> None:
        super().__init__(knobs)
        self.told: list[tuple[str, str | None]] = []

    def _app(self) -> web.Application:
        app = super()._app()
        app.middlewares.append(self._listen)
        return app

    @web.middleware
    async def _listen(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        self.told.append((f"{request.method} {request.path}", request.headers.get(HEADER)))
        return await handler(request)


@pytest.fixture
async def service() -> AsyncIterator[Listening]:
    async with Listening(SimKnobs(duration=0.3, steps=3, slots=8)) as service:
        yield service


def connector(service: Any, **options: Any) -> Any:
    return build("simulation-http", url=service.url, options=options)


def began(service: Any, job: str) -> int:
    return sum(1 for effect in service.effects.after(0) if effect.job == job and effect.type == "started")


def millis_of(told: list[tuple[str, str | None]], job: str, *, release: bool = False) -> list[int | None]:
    of_job = [(what, text) for what, text in told if "/jobs" in what and (what == "POST /jobs" or job in what)]
    chosen = [text for what, text in of_job if what.startswith("DELETE") == release]
    return [None if text is None else int(text) for text in chosen]


async def test_every_call_of_a_job_tells_what_is_left_of_its_deadline_or_run_limit_whichever_is_less(
    fabric: Fabric, service: Listening
) -> None:
    async with fabric.worker(connectors=[connector(service, poll=0.05)]):
        for deadline, run, most in [(60.0, 30.0, 30_000), (20.0, 300.0, 20_000), (None, 40.0, 40_000)]:
            service.told.clear()
            ends = None if deadline is None else within(deadline)
            job = await fabric.submit("image.generate", IMAGE, deadline=ends, timeouts=Timeouts(run=run))
            await fabric.result(job)
            millis = [number for number in millis_of(service.told, job) if number is not None]
            assert len(millis) == len(millis_of(service.told, job)) >= 3
            assert millis == sorted(millis, reverse=True)
            assert len(set(millis)) > 1
            assert most - 15_000 < millis[-1] < millis[0] < most
            await eventually(lambda job=job: millis_of(service.told, job, release=True) == [None])
    assert {text for what, text in service.told if what in {"GET /health", "GET /capabilities"}} <= {None}


async def test_a_service_that_is_told_ends_the_work_by_itself_and_the_job_ends_as_by_its_limit(
    fabric: Fabric, service: Listening
) -> None:
    service.knobs = SimKnobs(duration=60.0)
    async with fabric.worker(connectors=[connector(service)]):
        job = await fabric.submit("image.generate", IMAGE, timeouts=Timeouts(run=0.6))

        async def tried() -> bool:
            return len((await fabric.get(job)).attempts) > 0

        await eventually(tried)
        failed = (await fabric.get(job)).attempts[0]
        assert failed.error is not None
        assert failed.error.label == "timeout:run"
        assert [effect.type for effect in service.effects.after(0)][:2] == ["started", "cancelled"]
        await fabric.ports.desk.cancel(job, operation="c")


SERVICES: dict[str, Any] = {
    "http": SimulationHTTPService,
    "websocket": SimulationWebsocketService,
    "grpc": SimulationGRPCService,
}


@pytest.mark.parametrize("protocol", list(SERVICES))
async def test_work_that_nobody_follows_any_more_ends_with_the_time_that_the_service_was_told(
    fabric: Fabric, protocol: str
) -> None:
    async with SERVICES[protocol](SimKnobs(duration=60.0)) as service:
        ends = within(1.5)
        async with fabric.worker(connectors=[build(f"simulation-{protocol}", url=service.url)]) as worker:
            job = await fabric.submit("image.generate", IMAGE, deadline=ends)
            await eventually(lambda: began(service, job) == 1)
            worker.drain(at_once=True)
        await eventually(lambda: ("cancelled", "deadline") in [(e.type, e.detail) for e in service.effects.after(0)])
        assert datetime.now(UTC) < ends + timedelta(seconds=5)


async def test_a_command_is_told_how_much_time_its_job_has(fabric: Fabric, tmp_path: Path) -> None:
    program = tmp_path / "tell.py"
    program.write_text(
        "import json, sys\njob = json.loads(sys.stdin.readline())\n"
        'print(json.dumps({"type": "result", "job": job["job"], "result": job.get("seconds_left")}))\n'
    )
    options: Any = {"command": ["python3", str(program)], "kinds": [{"name": "time.tell"}]}
    async with fabric.worker(connectors=[build("process", url="process:///tell", options=options)]):
        short = await fabric.submit("time.tell", deadline=within(50.0))
        assert 30.0 < await fabric.result(short) < 50.0
        long = await fabric.submit("time.tell")
        assert 800.0 < await fabric.result(long) < 900.0


async def _usual(fabric: Fabric, count: int = 8) -> None:
    for job in [await fabric.submit("image.generate", IMAGE) for _ in range(count)]:
        await fabric.result(job)


async def _once_tried(fabric: Fabric, job: str) -> Job:
    async def tried() -> tuple[Job, ...]:
        found = await fabric.get(job)
        return (found,) if found.attempts else ()

    return (await eventually(tried))[0]


async def test_work_that_has_less_time_than_it_usually_takes_is_not_begun_says_the_numbers_and_expires(
    fabric: Fabric, service: Listening
) -> None:
    service.knobs = SimKnobs(duration=1.0, steps=4, slots=8)
    async with fabric.worker(connectors=[connector(service)], slots=8):
        await _usual(fabric)
        enough = await fabric.submit("image.generate", {**IMAGE, "duration": 0.1}, deadline=within(30.0))
        await fabric.result(enough)
        job = await fabric.submit("image.generate", {**IMAGE, "duration": 0.1}, deadline=within(0.8))
        found = await _once_tried(fabric, job)
        assert found.error is not None
        assert found.error.class_ == "timeout:deadline"
        assert "s are left until the deadline, and half of the last calls at" in found.error.message
        assert service.url.removeprefix("http://") in found.error.message
        assert [(each.outcome, each.counted) for each in found.attempts] == [("retry", False)]
        assert (await fabric.ended(job)).state == "expired"
        assert len((await fabric.get(job)).attempts) == 1
        assert began(service, job) == 0
        assert began(service, enough) == 1


async def test_work_that_one_endpoint_is_too_slow_for_is_begun_at_another(fabric: Fabric, service: Listening) -> None:
    service.knobs = SimKnobs(duration=2.5, steps=4, slots=8)
    async with (
        SimulationHTTPService(SimKnobs(duration=0.02, steps=2, slots=1)) as quick,
        fabric.worker(connectors=[connector(service)], slots=8),
    ):
        await _usual(fabric)
        async with fabric.worker(connectors=[connector(quick)], slots=1):
            jobs = [await fabric.submit("image.generate", IMAGE, deadline=within(2.3)) for _ in range(6)]
            ended = [await fabric.ended(job) for job in jobs]
    assert [job.state for job in ended] == ["succeeded"] * 6
    assert sum(began(service, job) for job in jobs) == 0
    refused = [each for job in ended for each in job.attempts]
    assert refused
    assert {(each.endpoint, each.counted) for each in refused} == {(f"simulation-http@{service.url[7:]}", False)}
