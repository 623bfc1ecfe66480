"""The simulated service over real HTTP, and what its connector makes of its moods."""

import asyncio
import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from hostler.connectors.catalogue import build
from hostler.contracts.failure import FailureClass
from hostler.contracts.service import EndpointState, Failed, Finished, RemoteRef, RemoteState
from hostler.ports.connector import Connector
from hostler.testing.connectors import Work, call_of, steps_of, submitted
from hostler.testing.eventually import eventually
from hostler.testing.sims.effects import Effect, EffectLog, read_effects
from hostler.testing.sims.http import SimulationHTTPService, serve_sim_http
from hostler.testing.sims.knobs import FAILURE_CODES, SimKnobs

QUICK = Work(kind="image.generate", payload={"prompt": "a lighthouse", "duration": 0.05, "steps": 5})
SLOW = Work(kind="image.generate", payload={"prompt": "a lighthouse", "duration": 30.0, "steps": 300})


def connector_to(url: str, **options: Any) -> Connector:
    return build("simulation-http", url=url, options={"poll": 0.1, **options})


def told(service: SimulationHTTPService) -> list[tuple[str, int, int]]:
    return [(effect.type, effect.fence, effect.run) for effect in service.effects.effects]


@pytest.fixture
async def service() -> AsyncGenerator[SimulationHTTPService]:
    async with SimulationHTTPService(SimKnobs(duration=0.05, steps=5)) as service:
        yield service


@pytest.mark.row("000:15")
async def test_a_result_is_what_the_service_made_and_its_log_shows_it(service: SimulationHTTPService) -> None:
    async with connector_to(service.url) as connector:
        end = (await steps_of(connector, call_of(QUICK)))[-1]
    assert isinstance(end, Finished)
    result = json.loads(bytes(end.result))
    assert result["prompt"] == "a lighthouse"
    assert result["preview_png"].startswith("iVBORw0KGgo")
    assert told(service) == [("started", 1, 1), ("finished", 1, 1)]


async def test_an_echo_comes_back_as_it_is(service: SimulationHTTPService) -> None:
    value: dict[str, Any] = {"text": "ü€😀", "big": 2**60, "list": [1, None, {"a": []}]}
    async with connector_to(service.url) as connector:
        end = (await steps_of(connector, call_of(Work(kind="sim.echo", payload={"value": value}))))[-1]
    assert isinstance(end, Finished)
    assert json.loads(bytes(end.result)) == value


async def test_a_lower_fence_is_refused_and_recorded(service: SimulationHTTPService) -> None:
    async with connector_to(service.url) as connector:
        await submitted(connector, call_of(SLOW, fence=5))
        late = await connector.submit(call_of(SLOW, fence=4))
        assert isinstance(late, Failed)
        assert late.failure.class_ is FailureClass.LOST
        stale = RemoteRef(id="conformance.1", job_id="conformance.1", fence=4)
        assert not await connector.cancel(stale)
        await connector.release(stale)
        assert await connector.reconcile(stale) is RemoteState.RUNNING
    assert told(service)[0] == ("started", 5, 1)
    assert {effect[:2] for effect in told(service)[1:]} == {("refused", 4)}


async def test_a_higher_fence_takes_over_what_runs_or_went_well(service: SimulationHTTPService) -> None:
    async with connector_to(service.url) as connector:
        await submitted(connector, call_of(QUICK, fence=1))
        ref = await submitted(connector, call_of(QUICK, fence=2))
        steps = [step async for step in connector.observe(call_of(QUICK, fence=2), ref)]
        assert isinstance(steps[-1], Finished)
        again = await submitted(connector, call_of(QUICK, fence=3))
        assert await connector.reconcile(again) is RemoteState.SUCCEEDED
    assert [effect for effect in told(service) if effect[0] == "started"] == [("started", 1, 1)]
    assert [effect[1] for effect in told(service) if effect[0] == "adopted"] == [2, 3]


async def test_after_a_failure_a_higher_fence_runs_anew(service: SimulationHTTPService) -> None:
    service.knobs = SimKnobs(duration=0.02, failures={"internal_error": 1.0})
    async with connector_to(service.url) as connector:
        assert isinstance((await steps_of(connector, call_of(QUICK, fence=1)))[-1], Failed)
        service.knobs = SimKnobs(duration=0.02)
        assert isinstance((await steps_of(connector, call_of(QUICK, fence=2)))[-1], Finished)
    assert told(service) == [("started", 1, 1), ("failed", 1, 1), ("started", 2, 2), ("finished", 2, 2)]


@pytest.mark.row("000:33")
@pytest.mark.parametrize("code", FAILURE_CODES)
async def test_every_failure_of_the_service_has_its_class(service: SimulationHTTPService, code: str) -> None:
    service.knobs = SimKnobs(duration=0.02, failures={code: 1.0})
    classes = {
        "internal_error": "transient",
        "unknown_model": "capability_mismatch",
        "quota_exceeded": "quota",
        "unauthorized": "auth",
        "content_refused": "refused",
    }
    async with connector_to(service.url) as connector:
        end = (await steps_of(connector, call_of(QUICK)))[-1]
    assert isinstance(end, Failed)
    assert end.failure.class_.value == classes.get(code, code)
    assert end.failure.details["code"] == code


async def test_a_model_that_is_not_there_is_a_mismatch(service: SimulationHTTPService) -> None:
    work = Work(kind="image.generate", payload={"prompt": "x", "model": "huge"})
    async with connector_to(service.url) as connector:
        end = await connector.submit(call_of(work))
        assert "huge" not in (await connector.capabilities()).models
    assert isinstance(end, Failed)
    assert end.failure.class_ is FailureClass.CAPABILITY_MISMATCH


async def test_no_slot_is_overload_with_retry_after_and_a_backlog_waits(service: SimulationHTTPService) -> None:
    service.knobs = SimKnobs(slots=1, retry_after=1.5)
    async with connector_to(service.url) as connector:
        await submitted(connector, call_of(SLOW, job="a.1"))
        refused = await connector.submit(call_of(SLOW, job="a.2"))
        assert isinstance(refused, Failed)
        assert (refused.failure.class_, refused.failure.retry_after) == (FailureClass.OVERLOADED, 1.5)
        service.knobs = SimKnobs(slots=1, backlog=1)
        waiting = await submitted(connector, call_of(QUICK, job="a.2", fence=2))
        assert await connector.reconcile(waiting) is RemoteState.PENDING
        assert (await connector.probe()).busy == 1
        assert await connector.cancel(RemoteRef(id="a.1", job_id="a.1", fence=1))
        steps = [step async for step in connector.observe(call_of(QUICK, job="a.2", fence=2), waiting)]
    assert isinstance(steps[-1], Finished)


@pytest.mark.row("000:97", "001:78")
async def test_a_thousand_jobs_with_sick_health_and_missed_completions_all_end_as_the_log_says() -> None:
    knobs = SimKnobs(
        duration=0.02, steps=2, slots=64, missed_rate=0.04, drop_rate=0.04, health_failure_rate=0.04, seed=4
    )
    free = asyncio.Semaphore(64)
    async with SimulationHTTPService(knobs) as service, connector_to(service.url) as connector:

        async def one(number: int) -> bool:
            async with free:
                work = Work(kind="sim.echo", payload={"value": number})
                end = (await steps_of(connector, call_of(work, job=f"image.{number}")))[-1]
                assert isinstance(end, Finished), end
                return json.loads(bytes(end.result)) == number

        jobs = asyncio.gather(*(one(number) for number in range(1000)))
        states: Counter[EndpointState] = Counter()
        while not jobs.done():
            states[(await connector.probe()).state] += 1
            await asyncio.wait({jobs}, timeout=0.01)
        assert all(await jobs)
        effects = Counter(effect.type for effect in service.effects.effects)
    assert effects == {"started": 1000, "finished": 1000}
    assert states[EndpointState.UNHEALTHY] > 0


async def test_bursts_of_server_errors_are_outlasted_and_run_nothing_twice(service: SimulationHTTPService) -> None:
    service.knobs = SimKnobs(duration=0.2, steps=10, burst_rate=0.2, burst_length=4, seed=3, drop_rate=1.0)
    async with connector_to(service.url) as connector:
        ends = Counter[str]()
        for number in range(12):
            answer = await connector.submit(call_of(QUICK, job=f"image.{number}"))
            if isinstance(answer, Failed):
                assert answer.failure.class_ in {FailureClass.TRANSIENT, FailureClass.OVERLOADED}
                ends["refused"] += 1
                continue
            assert isinstance(answer, RemoteRef)
            steps = [step async for step in connector.observe(call_of(QUICK, job=f"image.{number}"), answer)]
            ends[type(steps[-1]).__name__] += 1
    assert ends["Failed"] == 0
    assert ends["Finished"] == sum(effect[0] == "started" for effect in told(service))


async def test_one_seed_gives_one_story() -> None:
    async def story(seed: int) -> list[str]:
        knobs = SimKnobs(duration=0.0, steps=2, slots=100, failures={"internal_error": 0.3, "out_of_memory": 0.2})
        async with SimulationHTTPService(msgspec.structs.replace(knobs, seed=seed)) as service:
            async with connector_to(service.url) as connector:
                for number in range(40):
                    await submitted(connector, call_of(QUICK, job=f"image.{number}"))
                await eventually(lambda: service.work.busy == 0)
            ended = [effect for effect in service.effects.effects if effect.type in {"finished", "failed"}]
            return [f"{effect.job} {effect.type} {effect.detail}" for effect in sorted(ended, key=lambda e: e.job)]

    first = await story(1)
    assert first == await story(1)
    assert first != await story(2)
    assert 8 <= sum("failed" in line for line in first) <= 32


@pytest.mark.row("001:290")
async def test_cancel_stops_the_work_at_once_as_the_log_shows(service: SimulationHTTPService) -> None:
    async with connector_to(service.url) as connector:
        ref = await submitted(connector, call_of(SLOW))
        began = time.monotonic()
        assert await connector.cancel(ref)
        assert await connector.cancel(ref)
        assert time.monotonic() - began < 1.0
    assert told(service) == [("started", 1, 1), ("cancelled", 1, 1)]


@pytest.mark.parametrize(
    "change", [{"slots": 0}, {"failures": {"nonsense": 0.5}}, {"hang_rate": 2}, {"colour": "blue"}, []]
)
async def test_knobs_that_make_no_sense_are_refused_and_change_nothing(
    service: SimulationHTTPService, change: object
) -> None:
    before = service.knobs
    async with aiohttp.ClientSession() as http:
        async with http.put(f"{service.url}/knobs", json=change) as answer:
            assert answer.status == 400
            assert (await answer.json())["error"]["code"] == "invalid_input"
        assert service.knobs == before
        async with http.put(f"{service.url}/knobs", json={"slots": 9}) as answer:
            assert (await answer.json())["slots"] == 9
    assert service.knobs == msgspec.structs.replace(before, slots=9)


async def test_effects_can_be_read_over_http_from_where_one_was(service: SimulationHTTPService) -> None:
    async with connector_to(service.url) as connector, aiohttp.ClientSession() as http:
        await steps_of(connector, call_of(QUICK))
        async with http.get(f"{service.url}/effects", params={"after": 1}) as answer:
            page = await answer.json()
    assert [effect["type"] for effect in page["effects"]] == ["finished"]
    assert page["next"] == 2


async def test_work_in_a_service_that_dies_fails_in_time_and_is_lost_to_its_successor() -> None:
    service = SimulationHTTPService(SimKnobs())
    async with service:
        port = int(service.url.rpartition(":")[2])
        connector = connector_to(service.url)
        await connector.__aenter__()
        ref = await submitted(connector, call_of(SLOW))
        watching = asyncio.create_task(anext_failure(connector, ref))
        await eventually(lambda: service.work.busy == 1)
    failure = await asyncio.wait_for(watching, 15)
    assert failure.failure.class_ is FailureClass.TRANSIENT
    assert await connector.reconcile(ref) is RemoteState.UNKNOWN
    async with SimulationHTTPService(SimKnobs(), port=port):
        assert await connector.reconcile(ref) is RemoteState.LOST
        assert (await anext_failure(connector, ref)).failure.class_ is FailureClass.LOST
    await connector.__aexit__(None, None, None)


async def anext_failure(connector: Connector, ref: RemoteRef) -> Failed:
    steps = [step async for step in connector.observe(call_of(SLOW), ref)]
    assert isinstance(steps[-1], Failed)
    return steps[-1]


async def test_the_effect_file_survives_a_kill_and_grows_on(tmp_path: Path) -> None:
    path = tmp_path / "effects.ndjson"
    program = (
        "import asyncio, sys; from pathlib import Path; from hostler.testing.sims.http import serve_sim_http;"
        "asyncio.run(serve_sim_http(effects=Path(sys.argv[1]), ready=lambda url: print(url, flush=True)))"
    )
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, str(path), stdout=asyncio.subprocess.PIPE
    )
    assert child.stdout is not None
    url = (await child.stdout.readline()).decode().strip()
    async with connector_to(url) as connector:
        await steps_of(connector, call_of(QUICK, job="a.1"))
        await submitted(connector, call_of(SLOW, job="a.2"))
        await eventually(lambda: len(read_effects(path)) == 3)
        os.kill(child.pid, signal.SIGKILL)
        await child.communicate()
    with path.open("ab") as file:
        file.write(b'{"number": 4, "cut off by the ki')
    assert [(effect.type, effect.job) for effect in read_effects(path)] == [
        ("started", "a.1"),
        ("finished", "a.1"),
        ("started", "a.2"),
    ]
    async with EffectLog(path) as log:
        await log.append("started", "a.3", 1, 1)
        numbers: Callable[[], list[int]] = lambda: [effect.number for effect in read_effects(path)]  # noqa: E731 - typed
        assert numbers() == [1, 2, 3, 4]


async def test_many_effects_at_once_share_their_syncs_and_none_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "effects.ndjson"
    async with EffectLog(path) as log:
        appends: list[Awaitable[None]] = [log.append("started", f"a.{n}", 1, 1) for n in range(200)]
        await asyncio.gather(*appends)
        kept: tuple[Effect, ...] = read_effects(path)
    assert [effect.number for effect in kept] == list(range(1, 201))


async def test_serving_ends_when_it_is_told_to() -> None:
    stop = asyncio.Event()
    urls: list[str] = []
    serving = asyncio.create_task(serve_sim_http(ready=urls.append, stop=stop))
    await eventually(lambda: urls)
    async with connector_to(urls[0]) as connector:
        assert (await connector.probe()).state is EndpointState.READY
        stop.set()
        await asyncio.wait_for(serving, 5)
        assert (await connector.probe()).state is EndpointState.UNHEALTHY


async def test_a_service_that_loads_says_so_and_takes_no_work() -> None:
    async with SimulationHTTPService(SimKnobs(loading=3600.0)) as service, connector_to(service.url) as connector:
        assert (await connector.probe()).state is EndpointState.LOADING
        answer = await connector.submit(call_of(QUICK))
    assert isinstance(answer, Failed)
    assert answer.failure.class_ is FailureClass.OVERLOADED


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.row("000:47")
async def test_a_thousand_open_use_close_cycles_leak_nothing(service: SimulationHTTPService) -> None:
    instant = Work(kind="sim.echo", payload={"value": 1, "duration": 0.0, "steps": 1})
    tasks = len(asyncio.all_tasks())
    files = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - names are all that is counted
    for number in range(1000):
        async with connector_to(service.url) as connector:
            await steps_of(connector, call_of(instant, job=f"image.{number}"))
    await eventually(lambda: len(asyncio.all_tasks()) <= tasks)
    await eventually(lambda: len(os.listdir("/proc/self/fd")) <= files + 2)  # noqa: PTH208 - as above
