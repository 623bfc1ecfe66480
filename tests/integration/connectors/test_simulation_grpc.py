"""The simulated service over real gRPC, and what its connector makes of its moods."""

import asyncio
import importlib
import json
import sys
from collections import Counter
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import msgspec
import pytest

from hostler.connectors.catalogue import build
from hostler.connectors.services.simulation import descriptor
from hostler.contracts.failure import FailureClass
from hostler.contracts.job import Progress
from hostler.contracts.service import EndpointState, Failed, Finished, RemoteRef, RemoteState
from hostler.contracts.timeouts import Timeouts
from hostler.kernel.allowance import allowed
from hostler.ports.connector import Connector
from hostler.testing.connectors import Work, call_of, steps_of, submitted
from hostler.testing.eventually import eventually
from hostler.testing.sims.effects import read_effects
from hostler.testing.sims.grpc import SimulationGRPCService, serve_sim_grpc
from hostler.testing.sims.http import SimulationHTTPService
from hostler.testing.sims.knobs import FAILURE_CODES, SimKnobs

QUICK = Work(kind="image.generate", payload={"prompt": "a lighthouse", "duration": 0.05, "steps": 5})
SLOW = Work(kind="image.generate", payload={"prompt": "a lighthouse", "duration": 30.0, "steps": 300})
LIMITS = Timeouts(connect=5.0, load=10.0, first_byte=10.0, idle=10.0, run=30.0)


def connector_to(url: str, **options: Any) -> Connector:
    return build("simulation-grpc", url=url, options={"poll": 0.1, **options})


def told(service: SimulationGRPCService) -> list[tuple[str, str | None]]:
    return [(effect.type, effect.detail) for effect in service.effects.effects]


@pytest.fixture
async def service() -> AsyncGenerator[SimulationGRPCService]:
    async with SimulationGRPCService(SimKnobs(duration=0.05, steps=5)) as service:
        yield service


@pytest.mark.row("001:200")
async def test_a_job_streams_its_progress_step_by_step(service: SimulationGRPCService) -> None:
    async with connector_to(service.url, poll=60.0) as connector:  # no status query helps the stream
        *before, end = await steps_of(connector, call_of(QUICK))
    said = [step.message for step in before if isinstance(step, Progress)]
    assert said == [f"step {number} of 5" for number in range(6)]
    assert isinstance(end, Finished)
    result = json.loads(bytes(end.result))
    assert result["prompt"] == "a lighthouse"
    assert result["preview_png"].startswith("iVBORw0KGgo")
    assert told(service) == [("started", None), ("finished", None)]


@pytest.mark.row("001:200")
async def test_the_deadline_of_a_job_reaches_the_service_and_ends_the_work_there(
    service: SimulationGRPCService,
) -> None:
    async with connector_to(service.url) as connector:
        with allowed(lambda: 0.3):
            await submitted(connector, call_of(SLOW))  # nobody follows it, and nobody cancels
        await submitted(connector, call_of(SLOW, job="conformance.2", timeouts=Timeouts(connect=5.0, run=0.3)))
        await eventually(lambda: told(service).count(("cancelled", "deadline")) == 1)
        assert service.work.runs["conformance.2"].state == "running"
        assert service.work.runs["conformance.1"].state == "cancelled"
        await eventually(lambda: service.work.busy == 1)


@pytest.mark.row("001:200", "001:290")
async def test_cancel_and_an_observer_that_leaves_reach_the_service(service: SimulationGRPCService) -> None:
    async with connector_to(service.url) as connector:
        call = call_of(SLOW)
        ref = await submitted(connector, call)
        watching = asyncio.create_task(last_of(connector, ref))
        await eventually(lambda: service.watchers == 1)
        watching.cancel()
        await eventually(lambda: service.watchers == 0)
        assert await connector.cancel(ref)
        assert await connector.cancel(ref)
    assert told(service) == [("started", None), ("cancelled", None)]


async def last_of(connector: Connector, ref: RemoteRef) -> Failed:
    steps = [step async for step in connector.observe(call_of(SLOW), ref)]
    assert isinstance(steps[-1], Failed)
    return steps[-1]


async def test_a_lower_fence_is_refused_and_recorded_and_a_higher_one_takes_over(
    service: SimulationGRPCService,
) -> None:
    async with connector_to(service.url) as connector:
        await submitted(connector, call_of(SLOW, fence=5))
        late = await connector.submit(call_of(SLOW, fence=4))
        assert isinstance(late, Failed)
        assert (late.failure.class_, late.failure.details["code"]) == (FailureClass.LOST, "stale_fence")
        stale = RemoteRef(id="conformance.1", job_id="conformance.1", fence=4)
        assert not await connector.cancel(stale)
        assert await connector.reconcile(stale) is RemoteState.RUNNING
        assert await connector.reconcile(RemoteRef(id="conformance.1", job_id="conformance.1", fence=6))
    types = [kind for kind, _ in told(service)]
    assert types == ["started", "refused", "refused", "adopted"]


@pytest.mark.row("000:33")
@pytest.mark.parametrize("code", FAILURE_CODES)
async def test_every_failure_of_the_service_has_its_class(service: SimulationGRPCService, code: str) -> None:
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
    assert (end.failure.class_.value, end.failure.details["code"]) == (classes.get(code, code), code)


async def test_no_slot_is_overload_with_a_time_to_come_back_and_a_backlog_waits(
    service: SimulationGRPCService,
) -> None:
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


async def test_three_hundred_jobs_with_missed_ends_and_cut_streams_all_end_as_the_log_says() -> None:
    knobs = SimKnobs(duration=0.02, steps=2, slots=64, missed_rate=0.05, drop_rate=0.05, burst_rate=0.01, seed=4)
    free = asyncio.Semaphore(64)
    async with SimulationGRPCService(knobs) as service, connector_to(service.url) as connector:

        async def one(number: int) -> str:
            work = Work(kind="sim.echo", payload={"value": {"number": number, "text": "ü€😀", "big": 2**60}})
            async with free:
                end = (await steps_of(connector, call_of(work, job=f"image.{number}")))[-1]
            if isinstance(end, Failed):
                assert end.failure.class_ in {FailureClass.TRANSIENT, FailureClass.OVERLOADED}
                return "refused"
            assert isinstance(end, Finished)
            assert json.loads(bytes(end.result)) == work.payload["value"]
            return "finished"

        ends = Counter(await asyncio.gather(*(one(number) for number in range(300))))
        await eventually(lambda: service.watchers == 0)
        effects = Counter(kind for kind, _ in told(service))
    assert effects == {"started": ends["finished"], "finished": ends["finished"]}
    assert ends["finished"] > 200


async def test_one_seed_gives_the_story_that_it_gives_over_http() -> None:
    knobs = SimKnobs(duration=0.0, steps=2, slots=100, failures={"internal_error": 0.3, "out_of_memory": 0.2}, seed=1)

    async def story(kind: Any, name: str) -> list[str]:
        async with kind(knobs) as service, build(name, url=service.url) as connector:
            for number in range(20):
                await submitted(connector, call_of(QUICK, job=f"image.{number}"))
            await eventually(lambda: service.work.busy == 0)
            ended = [effect for effect in service.effects.effects if effect.type in {"finished", "failed"}]
            return sorted(f"{effect.job} {effect.type} {effect.detail}" for effect in ended)

    over_grpc = await story(SimulationGRPCService, "simulation-grpc")
    assert over_grpc == await story(SimulationHTTPService, "simulation-http")


async def test_work_in_a_service_that_dies_fails_in_time_and_is_lost_to_its_successor() -> None:
    service = SimulationGRPCService(SimKnobs())
    async with service:
        port = int(service.url.rpartition(":")[2])
        connector = await connector_to(service.url).__aenter__()
        ref = await submitted(connector, call_of(SLOW))
        watching = asyncio.create_task(last_of(connector, ref))
        await eventually(lambda: service.work.busy == 1)
    failure = await asyncio.wait_for(watching, 15)
    assert failure.failure.class_ is FailureClass.TRANSIENT
    assert await connector.reconcile(ref) is RemoteState.UNKNOWN
    async with SimulationGRPCService(SimKnobs(), port=port):

        async def lost() -> bool:
            return await connector.reconcile(ref) is RemoteState.LOST

        await eventually(lost)
        assert (await last_of(connector, ref)).failure.class_ is FailureClass.LOST
    await connector.__aexit__(None, None, None)


async def test_a_service_that_loads_says_so_and_takes_no_work() -> None:
    async with SimulationGRPCService(SimKnobs(loading=3600.0)) as service, connector_to(service.url) as connector:
        assert (await connector.probe()).state is EndpointState.LOADING
        answer = await connector.submit(call_of(QUICK))
    assert isinstance(answer, Failed)
    assert answer.failure.class_ is FailureClass.OVERLOADED


@pytest.fixture(scope="module")
def stubs(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What anybody gets who compiles the description with the stock compiler: messages and client."""
    folder = tmp_path_factory.mktemp("stubs")
    protoc: Any = importlib.import_module("grpc_tools.protoc")
    place = Path(descriptor.__file__).parent
    out = [f"--python_out={folder}", f"--grpc_python_out={folder}"]
    assert protoc.main(["protoc", f"-I{place}", *out, "simulation.proto"]) == 0
    sys.path.insert(0, str(folder))
    try:
        return importlib.import_module("simulation_pb2"), importlib.import_module("simulation_pb2_grpc")
    finally:
        sys.path.remove(str(folder))


async def test_a_client_compiled_from_the_description_drives_the_service(
    service: SimulationGRPCService, stubs: Any
) -> None:
    messages, clients = stubs
    async with grpc.aio.insecure_channel(service.url.removeprefix("grpc://")) as channel:
        client = clients.SimulationStub(channel)
        work = messages.Submission(id="a.1", fence=1, kind="sim.echo", input_json=b'{"value": [1]}')
        assert (await client.Submit(work)).run == 1
        events = [event async for event in client.Watch(messages.WatchRequest(id="a.1"))]
        assert events[-1].run.state == messages.RUN_STATE_SUCCEEDED
        rest = [event async for event in client.Watch(messages.WatchRequest(id="a.1", cursor=events[-2].cursor))]
        assert [event.cursor for event in rest] == [events[-1].cursor]
        assert (await client.Result(messages.RunRequest(id="a.1"))).result_json == b"[1]"
        knobs = await client.SetKnobs(messages.Knobs(json=b'{"slots": 9}'))
        assert json.loads(knobs.json)["slots"] == service.knobs.slots == 9
        page = await client.Effects(messages.EffectsRequest(after=1))
        assert [json.loads(line)["type"] for line in page.effects_json] == ["finished"]
        for change in (b'{"slots": 0}', b'{"colour": "blue"}', b"[]", b"\xff"):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await client.SetKnobs(messages.Knobs(json=change))
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await client.Status(messages.RunRequest(id="never"))
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert service.knobs.slots == 9


async def test_the_command_serves_until_it_is_told_to_end_and_its_effects_stay(tmp_path: Path) -> None:
    path = tmp_path / "effects.ndjson"
    command = [str(Path(sys.executable).parent / "hostler"), "sim", "grpc", "--port", "0", "--json"]
    child = await asyncio.create_subprocess_exec(
        *command, "--effects", str(path), "--duration", "0.01", stdout=asyncio.subprocess.PIPE
    )
    assert child.stdout is not None
    try:
        ready = json.loads(await child.stdout.readline())
        assert ready["event"] == "ready"
        async with connector_to(ready["url"]) as connector:
            assert isinstance((await steps_of(connector, call_of(QUICK)))[-1], Finished)
        child.terminate()
        assert json.loads(await child.stdout.readline()) == {"event": "stopped", "effects": 2}
        assert await child.wait() == 0
    finally:
        if child.returncode is None:
            child.kill()
        await child.communicate()
    assert [effect.type for effect in read_effects(path)] == ["started", "finished"]


async def test_serving_ends_when_it_is_told_to_and_a_port_in_use_is_refused() -> None:
    stop = asyncio.Event()
    urls: list[str] = []
    serving = asyncio.create_task(serve_sim_grpc(ready=urls.append, stop=stop))
    await eventually(lambda: urls)
    with pytest.raises(OSError, match="in use"):
        await serve_sim_grpc(port=int(urls[0].rpartition(":")[2]))
    async with connector_to(urls[0]) as connector:
        assert (await connector.probe()).state is EndpointState.READY
        stop.set()
        await asyncio.wait_for(serving, 5)
        assert (await connector.probe()).state is EndpointState.UNHEALTHY


async def test_what_the_service_says_wrongly_is_no_success(service: SimulationGRPCService) -> None:
    async with connector_to(service.url) as connector:
        ref = await submitted(connector, call_of(QUICK))
        await eventually(lambda: service.work.runs[ref.id].state == "succeeded")
        service.work.runs[ref.id].result = msgspec.Raw(b"{not json")
        end = await connector.fetch(ref)
        assert isinstance(end, Failed)
        assert end.failure.class_ is FailureClass.TRANSIENT
        service.work.runs[ref.id].state = "running"
        early = await connector.fetch(ref)
        assert isinstance(early, Failed)
