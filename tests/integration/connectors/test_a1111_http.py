"""What the connector of A1111's API makes of a server that is shared, sick, old or interrupted."""

import asyncio
import base64
import hashlib
import json
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import aiohttp
import aiohttp.web
import msgspec
import pytest

from hostler.blobs.opening import open_blobs
from hostler.connectors.catalogue import build
from hostler.contracts.failure import Failure, FailureClass, Stage
from hostler.contracts.job import Progress
from hostler.contracts.service import EndpointState, Failed, Finished, RemoteState
from hostler.contracts.timeouts import Timeouts
from hostler.ports.connector import Connector
from hostler.testing.connectors import Work, call_of, failure_of, steps_of, submitted
from hostler.testing.connectors_house import last_of
from hostler.testing.eventually import eventually
from hostler.testing.sims.a1111 import A1111Service
from hostler.testing.sims.a1111_work import A1111Knobs
from hostler.testing.sims.pictures import picture

PROMPT = {"prompt": "a lighthouse", "width": 64, "height": 64, "steps": 10}
QUICK = Work(kind="a1111.txt2img", payload=PROMPT)
SLOW = Work(kind="a1111.txt2img", payload={**PROMPT, "steps": 10_000})
IMAGE = base64.b64encode(picture(1, "x", width=8, height=8)).decode()


@pytest.fixture
async def service() -> AsyncGenerator[A1111Service]:
    async with A1111Service(A1111Knobs(duration=0.2)) as service:
        yield service
        service.work.state.interrupted = True
        service.work.state.wake.set()


@pytest.fixture
async def http() -> AsyncGenerator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as http:
        yield http


def connector_to(service: A1111Service, *, api_key: str | None = None, **options: Any) -> Connector:
    return build("a1111-http", url=service.url, api_key=api_key, options={"poll": 0.02, **options})


def turn(service: A1111Service, **change: Any) -> None:
    service.knobs = msgspec.structs.replace(service.knobs, **change)


def told(service: A1111Service) -> list[tuple[str, str]]:
    return [(effect.type, effect.job) for effect in service.effects.effects]


def work(**fields: Any) -> Work:
    return Work(kind="a1111.txt2img", payload={**PROMPT, **fields})


async def failed(service: A1111Service, what: Work, **options: Any) -> Failure:
    async with connector_to(service, **options) as connector:
        return await failure_of(connector, call_of(what))


async def runs(service: A1111Service, number: int = 1) -> None:
    await eventually(lambda: sum(effect.type == "started" for effect in service.effects.effects) >= number)


@pytest.mark.row("001:149")
async def test_pictures_come_with_seeds_after_progress_by_steps(service: A1111Service) -> None:
    async with connector_to(service) as connector:
        steps = await steps_of(connector, call_of(work(batch_size=2, n_iter=2, seed=41)))
    *before, end = steps
    assert isinstance(end, Finished)
    result = json.loads(bytes(end.result))
    assert [image["seed"] for image in result["images"]] == [41, 42, 43, 44]
    assert {image["media_type"] for image in result["images"]} == {"image/png"}
    assert result["model"] == "sim-small"
    sampled = [step for step in before if isinstance(step, Progress) and step.stage == "sampling"]
    assert len(sampled) > 2
    assert sampled[-1].message is not None
    assert sampled[-1].message.startswith("step ")
    assert sampled[-1].eta_s is not None
    assert told(service) == [("started", "conformance.1/1"), ("finished", "conformance.1/1")]


@pytest.mark.row("001:149")
async def test_pictures_are_made_of_pictures_and_made_larger(service: A1111Service) -> None:
    async with connector_to(service) as connector:
        of = Work(kind="a1111.img2img", payload={**PROMPT, "init_images": [f"data:image/png;base64,{IMAGE}"]})
        end = (await steps_of(connector, call_of(of)))[-1]
        assert isinstance(end, Finished), end
        larger = Work(kind="a1111.upscale", payload={"image": IMAGE, "upscaling_resize": 4})
        end = (await steps_of(connector, call_of(larger, job="conformance.2")))[-1]
        assert isinstance(end, Finished), end
        assert json.loads(bytes(end.result))["image"]["media_type"] == "image/png"


async def test_pictures_go_in_and_come_out_by_reference(service: A1111Service, tmp_path: Path) -> None:
    source = picture(1, "x", width=8, height=8)
    name = hashlib.sha256(source).hexdigest()
    reference = {"$blob": {"sha256": name, "size": len(source), "media_type": "image/png"}}

    async def parts() -> AsyncGenerator[bytes]:
        yield source

    of = Work(kind="a1111.img2img", payload={**PROMPT, "init_images": [reference, IMAGE], "mask": reference})
    async with open_blobs(None, tmp_path) as blobs:
        async with build("a1111-http", url=service.url, blobs=blobs) as connector:
            found = await failure_of(connector, call_of(of))
            assert found.class_ is FailureClass.INVALID_INPUT
            assert name in found.message
            await blobs.put(name, parts(), limit=len(source))
            end = (await steps_of(connector, call_of(of, job="conformance.2")))[-1]
        assert isinstance(end, Finished), end
        (made,) = json.loads(bytes(end.result))["images"]
        assert "data" not in made
        kept = b"".join([part async for part in blobs.get(made["blob"]["sha256"])])
    assert kept.startswith(b"\x89PNG")
    assert len(kept) == made["blob"]["size"]


async def test_a_grid_is_told_from_the_pictures(service: A1111Service) -> None:
    async with connector_to(service) as connector:
        end = (await steps_of(connector, call_of(work(n_iter=2, seed=1, save_images=True))))[-1]
    assert isinstance(end, Finished)
    result = json.loads(bytes(end.result))
    assert [image["seed"] for image in result["images"]] == [1, 2]
    assert result["grid"]["media_type"] == "image/png"


async def test_another_checkpoint_is_loaded_and_stays(service: A1111Service) -> None:
    turn(service, load=0.3)
    async with connector_to(service) as connector:
        steps = await steps_of(connector, call_of(work(model="sim-large")))
    assert isinstance(steps[-1], Finished), steps[-1]
    assert json.loads(bytes(steps[-1].result))["model"] == "sim-large"
    stages = [step.stage for step in steps if isinstance(step, Progress)]
    assert stages[0] == "loading"
    assert stages[-1] == "sampling"
    assert service.work.loaded == "sim-large"


async def test_a_checkpoint_that_takes_too_long_to_load_is_a_timeout_of_that_stage(service: A1111Service) -> None:
    turn(service, load=1.0)
    limits = Timeouts(connect=5.0, first_byte=5.0, load=0.2, idle=5.0, run=20.0)
    async with connector_to(service) as connector:
        found = await failure_of(connector, call_of(work(model="sim-large"), timeouts=limits))
    assert (found.class_, found.stage) == (FailureClass.TIMEOUT, Stage.LOAD)
    assert found.details["stopped"] is True


async def test_a_checkpoint_that_is_not_there_is_looked_for_elsewhere_and_nothing_is_made(
    service: A1111Service,
) -> None:
    found = await failed(service, work(model="sdxl"))
    assert found.class_ is FailureClass.CAPABILITY_MISMATCH
    assert told(service) == []


async def test_a_server_that_uses_another_checkpoint_than_it_was_asked_for_is_not_believed(
    service: A1111Service,
) -> None:
    service.work.model = lambda name: None  # it lists the checkpoint, and has lost its file
    found = await failed(service, work(model="sim-large"))
    assert found.class_ is FailureClass.CAPABILITY_MISMATCH
    assert found.details["made_with"] == "sim-small"


@pytest.mark.row("001:149")
async def test_work_that_waits_behind_that_of_others_is_not_stopped_by_stopping_them(service: A1111Service) -> None:
    state, lock = service.work.state, service.work.lock
    async with lock, connector_to(service, stop=0.3) as connector:
        ref = await submitted(connector, call_of(QUICK))
        await eventually(lambda: service.work.pending)
        state.begin("scripts_txt2img")  # somebody else's turn
        service.work.current, state.job_count = "task(ui)", 1
        assert not await connector.cancel(ref)
        assert not state.interrupted
        state.end()


async def test_a_server_that_works_for_others_is_left_to_them(
    service: A1111Service, http: aiohttp.ClientSession
) -> None:
    theirs = asyncio.create_task(http.post(f"{service.url}/sdapi/v1/txt2img", json={"steps": 20, "width": 64}))
    await runs(service)
    found = await failed(service, QUICK)
    assert found.class_ is FailureClass.OVERLOADED
    assert found.retry_after is not None
    assert (await theirs).status == 200
    assert [kind for kind, _ in told(service)] == ["started", "finished"]


@pytest.mark.row("001:149")
async def test_what_an_earlier_attempt_left_running_is_stopped_first(
    service: A1111Service, http: aiohttp.ClientSession
) -> None:
    orphan = {"force_task_id": "conformance.1/1", "steps": 10_000}
    lost = asyncio.create_task(http.post(f"{service.url}/sdapi/v1/txt2img", json=orphan))
    await runs(service)
    async with connector_to(service) as connector:
        end = (await steps_of(connector, call_of(QUICK, fence=3)))[-1]
    assert isinstance(end, Finished), end
    await lost
    assert told(service) == [
        ("started", "conformance.1/1"),
        ("cancelled", "conformance.1/1"),
        ("started", "conformance.1/3"),
        ("finished", "conformance.1/3"),
    ]


async def test_work_that_somebody_else_interrupts_is_no_success(
    service: A1111Service, http: aiohttp.ClientSession
) -> None:
    for poll in (0.02, 30.0):  # seen while it runs, and seen at its end
        async with connector_to(service, poll=poll) as connector:
            before = len(service.effects.effects)
            ref = await submitted(connector, call_of(SLOW))
            await eventually(lambda before=before: len(service.effects.effects) > before)
            await http.post(f"{service.url}/sdapi/v1/interrupt")
            end = await last_of(connector, call_of(SLOW), ref)
        assert isinstance(end, Failed), end
        assert end.failure.class_ is FailureClass.TRANSIENT
        assert end.failure.details["interrupted"] is True


async def test_a_failure_leads_to_no_interrupt_of_what_comes_next(
    service: A1111Service, http: aiohttp.ClientSession
) -> None:
    turn(service, failures={"nans": 1.0})
    async with connector_to(service) as connector:
        ref = await submitted(connector, call_of(QUICK))
        await runs(service)
        theirs = asyncio.create_task(
            http.post(f"{service.url}/sdapi/v1/extra-single-image", json={"image": IMAGE, "upscaling_resize": 2})
        )
        end = await last_of(connector, call_of(QUICK), ref)
        assert isinstance(end, Failed)
        assert end.failure.class_ is FailureClass.TRANSIENT
        assert (await theirs).status == 200
    assert not service.work.state.interrupted


async def test_a_request_that_is_cut_off_leaves_nothing_running(service: A1111Service) -> None:
    turn(service, drop_rate=1.0, duration=1.0)
    found = await failed(service, QUICK)
    assert found.class_ is FailureClass.TRANSIENT
    assert found.details["stopped"] is True
    assert [kind for kind, _ in told(service)] == ["started", "cancelled"]


@pytest.mark.parametrize(
    ("what", "class_"),
    [
        (work(sampler_name="none such"), FailureClass.CAPABILITY_MISMATCH),
        (work(script_name="none such"), FailureClass.CAPABILITY_MISMATCH),
        (work(alwayson_scripts={"controlnet": {"args": []}}), FailureClass.CAPABILITY_MISMATCH),
        (work(prompt="x", width=4), FailureClass.INVALID_INPUT),
        (Work(kind="a1111.img2img", payload=PROMPT), FailureClass.INVALID_INPUT),
        (Work(kind="a1111.img2img", payload={**PROMPT, "init_images": ["bm90"]}), FailureClass.INVALID_INPUT),
        (Work(kind="a1111.upscale", payload={"image": "http://10.0.0.1/x.png"}), FailureClass.INVALID_INPUT),
    ],
)
async def test_each_refusal_has_its_class_and_runs_nothing(
    service: A1111Service, what: Work, class_: FailureClass
) -> None:
    found = await failed(service, what)
    assert found.class_ is class_
    assert told(service) == []


@pytest.mark.parametrize(
    ("knobs", "class_"),
    [
        ({"failures": {"out_of_memory": 1.0}}, FailureClass.OUT_OF_MEMORY),
        ({"failures": {"nans": 1.0}}, FailureClass.TRANSIENT),
        ({"failures": {"runtime": 1.0}}, FailureClass.TRANSIENT),
        ({"burst_rate": 1.0}, FailureClass.TRANSIENT),
    ],
)
async def test_each_trouble_of_the_server_has_its_class(
    service: A1111Service, knobs: dict[str, Any], class_: FailureClass
) -> None:
    turn(service, **knobs)
    assert (await failed(service, QUICK, stop=0.2)).class_ is class_


async def test_a_wrong_password_is_named_and_never_shown() -> None:
    async with A1111Service(A1111Knobs(duration=0.05, auth="ada:secret-1")) as service:
        for api_key in (None, "ada:secret-2"):
            found = await failed(service, QUICK, api_key=api_key)
            assert found.class_ is FailureClass.AUTH
            assert "secret" not in f"{found!r}"
        async with connector_to(service, api_key="ada:secret-1") as connector:
            assert isinstance((await steps_of(connector, call_of(QUICK)))[-1], Finished)


@pytest.mark.parametrize("exclusive", [False, True])
async def test_without_the_web_ui_only_a_server_of_ones_own_is_interrupted(*, exclusive: bool) -> None:
    async with A1111Service(A1111Knobs(duration=0.2, webui=False)) as service:
        async with connector_to(service, exclusive=exclusive, stop=1.0) as connector:
            assert isinstance((await steps_of(connector, call_of(QUICK)))[-1], Finished)
            ref = await submitted(connector, call_of(SLOW, job="conformance.2"))
            await runs(service, 2)
            assert await connector.cancel(ref) is exclusive
            assert await connector.reconcile(ref) is RemoteState.CANCELLED
            assert service.work.state.interrupted is exclusive
        service.work.state.interrupted = True


async def test_what_the_server_has_is_found(service: A1111Service) -> None:
    async with connector_to(service) as connector:
        found = await connector.capabilities()
        assert found.models == ("sim-small", "sim-large")
        assert found.models_known
        assert found.labels["sampler/Euler a"] == "yes"
        assert found.pools["slots"].total == 1
        assert found.pools["gpu_memory"].total == 24 * 2**30
        probe = await connector.probe()
        assert (probe.state, probe.slots, probe.busy) == (EndpointState.READY, 1, 0)
        assert probe.loaded is not None
        assert "sim-small" in probe.loaded
        turn(service, gpu_lost_rate=1.0)
        lost = await connector.probe()
        assert lost.state is EndpointState.UNHEALTHY
        assert "unspecified launch failure" in lost.message


async def test_a_server_that_is_no_such_server_is_a_failure_with_a_class() -> None:
    async def page(_: aiohttp.web.Request) -> aiohttp.web.Response:
        return aiohttp.web.Response(text="<html>welcome</html>", content_type="text/html")

    app = aiohttp.web.Application()
    app.router.add_route("*", "/{path:.*}", page)
    runner = aiohttp.web.AppRunner(app)
    await runner.setup()
    try:
        await aiohttp.web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        async with build("a1111-http", url=f"http://{host}:{port}") as connector:
            assert (await connector.probe()).state is EndpointState.UNHEALTHY
            assert (await failure_of(connector, call_of(QUICK))).class_ is FailureClass.TRANSIENT
    finally:
        await runner.cleanup()
