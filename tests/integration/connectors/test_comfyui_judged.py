"""The simulated ComfyUI is driven by those who drive real ones: `comfy-sdk` through `comfy-api-proxy`."""

from collections.abc import AsyncGenerator

import pytest
from aiohttp import web
from comfy_api_proxy.app import make_app
from comfy_sdk import AsyncComfy
from comfy_sdk.events import OutputReady, Preview, Progress, StatusChange
from comfy_sdk.exceptions import ComfyError

from hostler.testing.eventually import eventually
from hostler.testing.sims.comfyui import ComfyuiService
from hostler.testing.sims.comfyui_knobs import ComfyuiKnobs
from hostler.testing.sims.comfyui_workflows import invert, text_to_image

pytestmark = pytest.mark.row("001:206")


@pytest.fixture
async def service() -> AsyncGenerator[ComfyuiService]:
    async with ComfyuiService(ComfyuiKnobs(duration=0.1)) as service:
        yield service


@pytest.fixture
async def comfy(service: ComfyuiService, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[AsyncComfy]:
    runner = web.AppRunner(make_app(service.url))
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        monkeypatch.setenv("COMFY_BASE_URL", f"http://{host}:{port}")
        async with AsyncComfy() as client:
            yield client
    finally:
        await runner.cleanup()


async def test_a_workflow_runs_and_its_picture_is_fetched(comfy: AsyncComfy, service: ComfyuiService) -> None:
    job = await comfy.submit(comfy.workflows.from_json(text_to_image()))
    await job.result()
    (output,) = job.get_outputs("9")
    assert (await output.to_bytes()).startswith(b"\x89PNG")
    assert [effect.type for effect in service.effects.effects] == ["started", "finished"]


async def test_progress_previews_and_outputs_are_streamed(comfy: AsyncComfy, service: ComfyuiService) -> None:
    job = await comfy.submit(comfy.workflows.from_json(text_to_image(steps=120)))
    seen = [event async for event in job.events()]
    assert any(isinstance(event, Progress) and event.nodes_total for event in seen)
    previews = [event for event in seen if isinstance(event, Preview)]
    assert previews
    named = {event.node_id for event in previews}
    assert "3" in named
    assert named <= {"3", ""}  # "" before the greeting was heard
    assert all(event.data.startswith(b"\x89PNG") for event in previews)
    assert [event.output.name for event in seen if isinstance(event, OutputReady)] == ["hostler_00001_.png"]
    assert isinstance(seen[-1], StatusChange | OutputReady)


async def test_a_running_and_a_waiting_job_are_cancelled_by_id(comfy: AsyncComfy, service: ComfyuiService) -> None:
    running = await comfy.submit(comfy.workflows.from_json(text_to_image(steps=5_000)))
    waiting = await comfy.submit(comfy.workflows.from_json(text_to_image("a reef", steps=5_000)))
    await eventually(lambda: service.work.running is not None and service.work.running.node == "3")
    await waiting.cancel()
    assert service.work.remaining() == 1
    await running.cancel()
    await eventually(lambda: service.work.remaining() == 0)
    await running.refresh()
    assert running.status == "canceled"


async def test_an_error_in_a_node_and_a_refused_workflow_are_told_apart(
    comfy: AsyncComfy, service: ComfyuiService
) -> None:
    service.knobs = ComfyuiKnobs(duration=0.05, failures={"out_of_memory": 1.0})
    job = await comfy.submit(comfy.workflows.from_json(text_to_image()))
    with pytest.raises(ComfyError):
        await job.result()
    assert job.status == "failed"
    assert "Allocation on device" in job.error.message
    with pytest.raises(ComfyError, match=r"(?i)validation"):
        await comfy.submit(comfy.workflows.from_json(text_to_image(model="nobody-has-this.safetensors")))


async def test_an_uploaded_picture_is_what_the_workflow_loads(comfy: AsyncComfy, service: ComfyuiService) -> None:
    asset = comfy.assets.from_bytes(b"\x89PNG\r\n\x1a\n light", filename="lamp.png", content_type="image/png")
    workflow = comfy.workflows.from_json(invert(None))
    workflow.set_input("1", "image", asset)
    job = await comfy.submit(workflow)
    await job.result()
    assert ("input", "", "lamp.png") in service.work.files
    assert len(job.get_outputs("3")) == 1
