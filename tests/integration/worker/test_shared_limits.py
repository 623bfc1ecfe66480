"""Workers that keep to one limit together."""

from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import AsyncExitStack
from datetime import datetime

import pytest

from hostler.connectors.catalogue import build
from hostler.contracts.limit import Grant, Wait, Want
from hostler.dispatch.limited import Limited
from hostler.kernel.errors import InvalidError
from hostler.registry.limits import EngineLimiter
from hostler.testing.bench import Clients, Server
from hostler.testing.eventually import eventually
from hostler.testing.fabric import Fabric
from hostler.testing.limits import most_in_a_window
from hostler.testing.sims.http import SimulationHTTPService
from hostler.testing.sims.knobs import SimKnobs
from hostler.valkeyio.library import Library

PROMPT = {"prompt": "a lighthouse", "width": 64, "height": 64}
QUICK = SimKnobs(duration=0.0, slots=16)


class Noting(EngineLimiter):
    """A limiter that notes when it granted."""

    def __init__(self, engine: Clients, granted: list[datetime]) -> None:
        super().__init__(engine)
        self._granted = granted

    async def take(self, call: str, wants: Sequence[Want], *, lease: float = 60.0) -> Grant | Wait:
        answer = await super().take(call, wants, lease=lease)
        if isinstance(answer, Grant):
            self._granted.append(answer.at)
        return answer


@pytest.fixture
def server() -> Generator[Server]:
    found = Server()
    found.start("--appendfsync", "no")
    yield found
    found.kill()


@pytest.fixture
async def clients(server: Server) -> AsyncGenerator[Clients]:
    await server.up()
    found = Clients(server.socket)
    await Library(found).ensure()
    yield found
    await found.aclose()


@pytest.mark.row("003:330")
async def test_four_workers_call_one_endpoint_no_more_often_than_its_limit(fabric: Fabric, clients: Clients) -> None:
    granted: list[datetime] = []
    async with SimulationHTTPService(QUICK) as service, AsyncExitStack() as stack:
        for _ in range(4):
            connector = build("simulation-http", url=service.url, options={"poll": 0.1})
            limited = Limited(connector, Noting(clients, granted), ["8/s"])
            await stack.enter_async_context(fabric.worker(connectors=[limited], slots=4))
        jobs = [await fabric.submit("image.generate", PROMPT) for _ in range(24)]
        ended = [await fabric.ended(job, within=60.0) for job in jobs]
        started = sum(effect.type == "started" for effect in service.effects.effects)
    assert {job.state for job in ended} == {"succeeded"}
    assert started == len(granted) == len(jobs)
    assert most_in_a_window(granted, 1.0) <= 8


@pytest.mark.row("003:328")
async def test_a_job_waits_for_its_limit_with_reason_and_time_and_uses_no_attempt(
    fabric: Fabric, clients: Clients
) -> None:
    async with SimulationHTTPService(QUICK) as service:
        connector = build("simulation-http", url=service.url, options={"poll": 0.1})
        limited = Limited(connector, EngineLimiter(clients), ["1/h"])
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


@pytest.mark.parametrize("text", ["in_flight 4", "100 tokens/min", "often"])
async def test_what_is_no_limit_of_calls_in_a_time_is_refused_before_any_call(clients: Clients, text: str) -> None:
    connector = build("simulation-http", url="http://127.0.0.1:9")
    with pytest.raises(InvalidError, match="like"):
        Limited(connector, EngineLimiter(clients), [text])
