"""Equal jobs share one run: workers on a real engine, against a real simulated service."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

import hostler
from hostler.blobs.folder import FolderBlobs
from hostler.connectors.catalogue import build
from hostler.contracts.job import INLINE_LIMIT
from hostler.contracts.queue import CacheMode, CachePolicy, KindSpec, QueueSpec, RetryPolicy
from hostler.contracts.result import Flight, Kept, Taken
from hostler.kernel.errors import EngineUnavailableError
from hostler.kernel.units import Seconds
from hostler.policy.caching import LABEL
from hostler.registry.results import EngineResults
from hostler.testing.engine_fabric import fabric_on
from hostler.testing.eventually import eventually
from hostler.testing.fabric import Fabric
from hostler.testing.sims.http import SimulationHTTPService
from hostler.testing.sims.knobs import SimKnobs
from hostler.valkeyio.engine import Engine

QUEUE = "c"
IMAGE = {"prompt": "a lighthouse"}


@pytest.fixture
async def service() -> AsyncIterator[SimulationHTTPService]:
    async with SimulationHTTPService(SimKnobs(duration=0.3, steps=3)) as service:
        yield service


@pytest.fixture
async def fabric(engine: Engine) -> AsyncGenerator[Fabric]:
    async with fabric_on(engine) as fabric:
        await fabric.ports.foreman.declare_queue(QueueSpec(name=QUEUE))
        yield fabric


@pytest.fixture
def results(engine: Engine) -> EngineResults:
    return EngineResults(engine)


async def configured(fabric: Fabric, kind: str, **policy: Any) -> None:
    """Give a kind a cache, by the operator's word."""
    retry = RetryPolicy(attempts=3, base=0.01)
    await fabric.ports.foreman.declare_kind(KindSpec(name=kind, queue=QUEUE, retry=retry, cache=CachePolicy(**policy)))


def begun(service: SimulationHTTPService) -> int:
    return sum(effect.type == "started" for effect in service.effects.after(0))


RUNS: list[str] = []


@hostler.handler("c.count", queue=QUEUE)
async def count(call: hostler.Call[Any]) -> Any:
    RUNS.append(call.job_id)
    if call.payload == "large":
        return "x" * INLINE_LIMIT
    if call.payload == "fails once" and len(RUNS) == 1:
        raise ConnectionError("no")
    return len(RUNS)


@pytest.fixture(autouse=True)
def no_runs() -> None:
    RUNS.clear()


@pytest.mark.row("002:235")
async def test_twenty_equal_jobs_at_once_on_two_workers_are_one_execution(
    fabric: Fabric, service: SimulationHTTPService, results: EngineResults
) -> None:
    await configured(fabric, "image.generate")
    jobs = [await fabric.submit("image.generate", IMAGE) for _ in range(20)]
    async with AsyncExitStack() as stack:
        for name in ("w1", "w2"):
            served = build("simulation-http", url=service.url, endpoint=name)
            await stack.enter_async_context(fabric.worker(connectors=[served], results=results, id=name, slots=10))
        got = await asyncio.gather(*(fabric.result(job, within=20) for job in jobs))
        late = await fabric.submit("image.generate", dict(reversed(IMAGE.items())))
        got.append(await fabric.result(late))
    assert begun(service) == 1
    assert all(result == got[0] for result in got)
    ended = [await fabric.get(job) for job in jobs]
    assert not any(attempt.counted for job in ended for attempt in job.attempts)
    (stats,) = (await results.view()).kinds
    assert (stats.misses, stats.hits, stats.kept) == (1, 20, 1)
    assert await results.clear("image.generate:") == 1


async def test_jobs_that_are_not_equal_and_kinds_without_a_cache_all_run(
    fabric: Fabric, results: EngineResults
) -> None:
    async with fabric.worker(count, results=results):
        for _ in range(2):
            await fabric.result(await fabric.submit("c.count", 1))
        assert len(RUNS) == 2
    await configured(fabric, "c.count")
    async with fabric.worker(count, results=results):
        for payload in (1, 2, 1, 2):
            await fabric.result(await fabric.submit("c.count", payload))
    assert len(RUNS) == 4


async def test_a_failure_is_not_kept_and_the_next_attempt_runs(fabric: Fabric, results: EngineResults) -> None:
    await configured(fabric, "c.count")
    async with fabric.worker(count, results=results):
        job = await fabric.submit("c.count", "fails once")
        assert await fabric.result(job) == 2
        assert await fabric.result(await fabric.submit("c.count", "fails once")) == 2
    assert len(RUNS) == 2


@pytest.mark.parametrize(
    ("mode", "expected", "kept"), [("bypass", 2, 1), ("refresh", 2, 2), ("first", 1, 1), ("only", 1, 1)]
)
async def test_a_jobs_label_chooses_what_it_has_to_do_with_the_cache(
    fabric: Fabric, results: EngineResults, mode: str, expected: int, kept: int
) -> None:
    await configured(fabric, "c.count")
    async with fabric.worker(count, results=results):
        assert await fabric.result(await fabric.submit("c.count")) == 1
        assert await fabric.result(await fabric.submit("c.count", labels={LABEL: mode})) == expected
        assert await fabric.result(await fabric.submit("c.count")) == kept


async def test_what_is_answered_from_the_cache_only_fails_without_a_result_and_never_runs(
    fabric: Fabric, results: EngineResults
) -> None:
    await configured(fabric, "c.count", mode=CacheMode.ONLY)
    async with fabric.worker(count, results=results):
        job = await fabric.ended(await fabric.submit("c.count"))
        assert (job.state, job.error and job.error.class_) == ("dead", "refused")
        odd = await fabric.ended(await fabric.submit("c.count", labels={LABEL: "sometimes"}))
        assert (odd.state, odd.error and odd.error.class_) == ("dead", "invalid_input")
    assert RUNS == []


async def test_a_large_result_is_kept_by_reference_and_runs_again_when_its_blob_is_gone(
    fabric: Fabric, results: EngineResults, tmp_path: Path
) -> None:
    await configured(fabric, "c.count")
    async with FolderBlobs(tmp_path) as blobs, fabric.worker(count, results=results, blobs=blobs):
        first, second = [await fabric.ended(await fabric.submit("c.count", "large")) for _ in range(2)]
        assert first.result_ref is not None, first.error
        assert second.result_ref == first.result_ref
        assert len(RUNS) == 1
        await blobs.delete(first.result_ref.sha256)
        third = await fabric.ended(await fabric.submit("c.count", "large"))
        assert third.result_ref == first.result_ref
        assert len(RUNS) == 2
    assert (await results.view()).bytes < INLINE_LIMIT


async def test_an_equal_job_runs_once_the_flight_is_given_up_by_a_cancel(
    fabric: Fabric, service: SimulationHTTPService, results: EngineResults
) -> None:
    service.knobs = SimKnobs(duration=30.0, steps=3)
    await configured(fabric, "image.generate")
    served = build("simulation-http", url=service.url)
    async with fabric.worker(connectors=[served], results=results):
        first = await fabric.submit("image.generate", IMAGE)
        await eventually(lambda: begun(service) == 1)
        second = await fabric.submit("image.generate", IMAGE)

        async def waits() -> bool:
            return len((await fabric.get(second)).attempts) > 0

        await eventually(waits)
        service.knobs = SimKnobs(duration=0.1, steps=1)
        await fabric.ports.desk.cancel(first, operation="cancel")
        await fabric.result(second)
    assert begun(service) == 2


class Broken(EngineResults):
    """A cache on a line that is cut."""

    async def begin(self, key: str, *, kind: str, job: str, fence: int, lasts: Seconds) -> Kept | Flight | Taken:
        raise EngineUnavailableError("the line is cut")


async def test_a_cache_that_does_not_answer_costs_runs_and_nothing_else(fabric: Fabric, engine: Engine) -> None:
    await configured(fabric, "c.count")
    async with fabric.worker(count, results=Broken(engine)):
        for _ in range(2):
            await fabric.result(await fabric.submit("c.count"))
    assert len(RUNS) == 2
