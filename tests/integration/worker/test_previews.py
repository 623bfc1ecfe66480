"""Pictures of running work: from the service's own way to show them to whoever asks for the job's."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import pytest

from hostler.connectors.catalogue import build
from hostler.connectors.config import ConnectorConfig
from hostler.connectors.services.simulation.simulation_http import SimulationHttpConnector
from hostler.contracts.preview import PREVIEW_LIMIT, Preview
from hostler.contracts.service import RemoteRef, ServiceCall, Step
from hostler.kernel.errors import NotFoundError
from hostler.ports.connector import Connector
from hostler.testing.eventually import eventually
from hostler.testing.fabric import Fabric
from hostler.testing.sims import comfyui_nodes, pictures
from hostler.testing.sims.a1111 import A1111Service
from hostler.testing.sims.a1111_work import A1111Knobs
from hostler.testing.sims.comfyui import ComfyuiService
from hostler.testing.sims.comfyui_knobs import ComfyuiKnobs, Dialect
from hostler.testing.sims.comfyui_workflows import text_to_image
from hostler.testing.sims.http import SimulationHTTPService
from hostler.testing.sims.knobs import SimKnobs

STEPS = 4_000


class Showing(SimulationHttpConnector):
    """A connector that shows whatever it is given."""

    pictures: tuple[bytes, ...] = ()

    async def observe(self, call: ServiceCall, ref: RemoteRef) -> AsyncGenerator[Step]:
        for data in self.pictures:
            yield Preview(media_type="image/png", data=data)
        async with aclosing(super().observe(call, ref)) as steps:
            async for step in steps:
                yield step


async def shown(fabric: Fabric, job: str) -> tuple[Preview, ...]:
    try:
        return (await fabric.ports.desk.preview(job),)
    except NotFoundError:
        return ()


async def seen_while_it_runs(fabric: Fabric, connector: Connector, kind: str, payload: object) -> Preview:
    """Return a picture of a job that is cancelled once it was shown; after that there is none."""
    async with fabric.worker(connectors=[connector]):
        job = await fabric.submit(kind, payload)
        (preview,) = await eventually(lambda: shown(fabric, job))
        progress = (await fabric.get(job)).progress
        assert progress is not None
        assert progress.preview is not None
        await fabric.ports.desk.cancel(job, operation="enough")
        assert (await fabric.ended(job)).state == "cancelled"
        assert await shown(fabric, job) == ()
    told = [event.data["preview"] for event in await fabric.events(job) if "preview" in event.data]
    assert told[0] == 1
    assert told == sorted(told)
    return preview


async def ends_without_any(fabric: Fabric, connector: Connector, kind: str, payload: object) -> None:
    async with fabric.worker(connectors=[connector]):
        job = await fabric.submit(kind, payload)
        await fabric.result(job)
    events = await fabric.events(job)
    assert any(event.type == "progress" for event in events)
    assert not any("preview" in event.data for event in events)


@pytest.mark.parametrize("dialect", ["new", "old"])
async def test_a_picture_of_a_running_prompt_is_comfyuis_own_and_gone_after_its_end(
    fabric: Fabric, dialect: Dialect
) -> None:
    graph = text_to_image(steps=STEPS)
    async with ComfyuiService(ComfyuiKnobs(duration=0.02, dialect=dialect)) as service:
        connector = build("comfyui-http", url=service.url, options={"poll": 0.05})
        preview = await seen_while_it_runs(fabric, connector, "comfyui.workflow", {"workflow": graph})
    drawn = comfyui_nodes.picture(comfyui_nodes.signatures(graph, {})["3"])
    assert preview == Preview(media_type="image/png", data=drawn)


async def test_a_picture_of_running_work_is_the_web_uis_own_and_gone_after_its_end(fabric: Fabric) -> None:
    payload = {"prompt": "a lighthouse", "width": 64, "height": 64, "steps": 10_000}
    async with A1111Service(A1111Knobs(duration=30.0)) as service:
        connector = build("a1111-http", url=service.url, options={"poll": 0.02})
        preview = await seen_while_it_runs(fabric, connector, "a1111.txt2img", payload)
    drawn = (pictures.picture(step, "scripts_txt2img", width=64, height=64) for step in range(10_000))
    assert preview.media_type == "image/png"
    assert any(preview.data == one for one in drawn)


@pytest.mark.parametrize(
    ("knobs", "options"),
    [({"preview_bytes": PREVIEW_LIMIT + 1}, {}), ({}, {"previews": False}), ({"previews": False}, {})],
)
async def test_a_picture_that_is_too_large_or_not_wanted_costs_the_job_nothing(
    fabric: Fabric, knobs: dict[str, Any], options: dict[str, Any]
) -> None:
    async with ComfyuiService(ComfyuiKnobs(duration=0.1, **knobs)) as service:
        connector = build("comfyui-http", url=service.url, options={"poll": 0.05, **options})
        await ends_without_any(fabric, connector, "comfyui.workflow", {"workflow": text_to_image(steps=40)})


async def test_the_worker_judges_what_a_connector_shows(fabric: Fabric) -> None:
    async with SimulationHTTPService(SimKnobs()) as service:
        connector = Showing(ConnectorConfig(endpoint="showing", url=service.url))
        connector.pictures = (b"<html>", b"\x89PNG\r\n\x1a\n".ljust(PREVIEW_LIMIT + 1, b"\0"))
        payload = {"prompt": "a lighthouse", "seed": 7, "duration": 0.2, "steps": 4}
        await ends_without_any(fabric, connector, "image.generate", payload)
        connector = Showing(ConnectorConfig(endpoint="showing", url=service.url))
        connector.pictures = (b"\xff\xd8\xff",)
        payload = {**payload, "seed": 8, "duration": 30.0}
        preview = await seen_while_it_runs(fabric, connector, "image.generate", payload)
    assert preview == Preview(media_type="image/jpeg", data=b"\xff\xd8\xff")  # by its bytes, whatever was said


async def test_a_web_ui_that_is_not_asked_for_pictures_draws_none(fabric: Fabric) -> None:
    async with A1111Service(A1111Knobs(duration=0.4)) as service:
        connector = build("a1111-http", url=service.url, options={"poll": 0.02, "previews": False})
        payload = {"prompt": "a lighthouse", "width": 64, "height": 64, "steps": 20}
        await ends_without_any(fabric, connector, "a1111.txt2img", payload)
