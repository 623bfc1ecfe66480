"""Clients of A1111's API take the simulator for it: `webuiapi`, written by others for the real one, drives it."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from typing import Any

import aiohttp
import msgspec
import pytest
import webuiapi
from PIL import Image

from hostler.testing.eventually import eventually
from hostler.testing.sims.a1111 import A1111Service
from hostler.testing.sims.a1111_work import A1111Knobs


@pytest.fixture
async def service() -> AsyncGenerator[A1111Service]:
    async with A1111Service(A1111Knobs(duration=0.05)) as service:
        yield service


async def drive(service: A1111Service, what: Callable[[Any], Any], **login: Any) -> Any:
    """Let the client, which blocks, do something in a thread of its own."""

    def driven() -> Any:
        client: Any = webuiapi.WebUIApi(baseurl=f"{service.url}/sdapi/v1", **login)
        with contextlib.closing(client.session):
            return what(client)

    return await asyncio.to_thread(driven)


@pytest.mark.row("001:149")
async def test_the_client_gets_the_pictures_that_it_asked_for_with_their_seeds(service: A1111Service) -> None:
    made = await drive(
        service,
        lambda client: client.txt2img(prompt="a lighthouse", width=96, height=64, n_iter=2, seed=7, steps=4),
    )
    assert [image.size for image in made.images] == [(96, 64), (96, 64)]
    assert made.info["all_seeds"] == [7, 8]
    assert made.parameters["prompt"] == "a lighthouse"
    assert made.images[0].tobytes() != made.images[1].tobytes()


@pytest.mark.row("001:149")
async def test_the_client_makes_pictures_of_pictures_and_larger_ones(service: A1111Service) -> None:
    source: Any = Image.new("RGB", (32, 32), "red")
    made = await drive(
        service, lambda client: client.img2img(images=[source], mask_image=source, prompt="sea", width=64, height=64)
    )
    assert made.image.size == (64, 64)
    larger = await drive(service, lambda client: client.extra_single_image(source, upscaler_1="Lanczos"))
    assert larger.image.size > source.size
    many = await drive(service, lambda client: client.extra_batch_images([source, source]))
    assert len(many.images) == 2


@pytest.mark.row("001:149")
async def test_the_client_sees_how_far_it_is_and_stops_it(service: A1111Service) -> None:
    service.knobs = msgspec.structs.replace(service.knobs, duration=30.0)
    making = asyncio.create_task(
        drive(service, lambda client: client.txt2img(prompt="slow", width=64, height=64, steps=60))
    )

    async def moved() -> bool:
        seen = await drive(service, lambda client: client.get_progress())
        return 0.01 < seen["progress"] < 1 and seen["state"]["job"] == "scripts_txt2img" and seen["eta_relative"] > 0

    await eventually(moved, within=10)
    assert await drive(service, lambda client: client.interrupt()) == {}
    partial = await asyncio.wait_for(making, 10)
    assert partial.image.size == (64, 64), "what was cut short is given as a success"
    await drive(service, lambda client: client.util_wait_for_ready(check_interval=0.01))


@pytest.mark.row("001:149")
async def test_the_client_finds_what_there_is_and_changes_the_checkpoint(service: A1111Service) -> None:
    def look(client: Any) -> dict[str, Any]:
        client.util_set_model("sim-large")
        return {
            "models": [row["model_name"] for row in client.get_sd_models()],
            "now": client.util_get_current_model(),
            "samplers": client.util_get_sampler_names(),
            "schedulers": client.util_get_scheduler_names(),
            "upscalers": [row["name"] for row in client.get_upscalers()],
            "gpu": client.get_memory()["cuda"]["system"]["total"],
            "scripts": client.get_scripts()["txt2img"],
            "flags": client.get_cmd_flags()["api"],
        }

    found = await drive(service, look)
    assert found["models"] == ["sim-small", "sim-large"]
    assert found["now"].startswith("sim-large.safetensors [")
    assert "Euler a" in found["samplers"]
    assert "karras" in found["schedulers"]
    assert "Lanczos" in found["upscalers"]
    assert found["gpu"] == 24 * 2**30
    assert (found["scripts"][0], found["flags"]) == ("prompt matrix", True)


async def test_the_client_is_told_why_not(service: A1111Service) -> None:
    service.knobs = msgspec.structs.replace(service.knobs, failures={"out_of_memory": 1.0})
    with pytest.raises(RuntimeError) as memory:
        await drive(service, lambda client: client.txt2img(prompt="x", steps=2))
    assert memory.value.args[0] == 500
    assert "OutOfMemoryError" in memory.value.args[1]
    with pytest.raises(RuntimeError) as sampler:
        await drive(service, lambda client: client.txt2img(prompt="x", sampler_name="none such"))
    assert sampler.value.args[0] == 404


async def test_the_client_logs_in_where_the_server_asks_for_it() -> None:
    async with A1111Service(A1111Knobs(duration=0.01, auth="ada:secret")) as service:
        with pytest.raises(RuntimeError) as refused:
            await drive(service, lambda client: client.txt2img(prompt="x", steps=1))
        assert refused.value.args[0] == 401
        made = await drive(
            service, lambda client: client.txt2img(prompt="x", steps=1), username="ada", password="secret"
        )
        assert made.image.size == (512, 512)


async def test_a_task_has_a_name_only_where_the_web_ui_runs(service: A1111Service) -> None:
    asked = {"id_task": "mine", "id_live_preview": -1}
    async with aiohttp.ClientSession() as http:
        await http.post(f"{service.url}/sdapi/v1/txt2img", json={"force_task_id": "mine", "steps": 2})
        answer = await (await http.post(f"{service.url}/internal/progress", json=asked)).json()
        assert (answer["active"], answer["completed"]) == (False, True)
        async with A1111Service(A1111Knobs(webui=False)) as bare:
            assert (await http.post(f"{bare.url}/internal/progress", json=asked)).status == 404


async def test_a_task_that_failed_is_still_called_active(service: A1111Service) -> None:
    service.knobs = msgspec.structs.replace(service.knobs, failures={"runtime": 1.0})
    async with aiohttp.ClientSession() as http:
        await http.post(f"{service.url}/sdapi/v1/txt2img", json={"force_task_id": "mine", "steps": 2})
        answer = await (await http.post(f"{service.url}/internal/progress", json={"id_task": "mine"})).json()
    assert (answer["active"], answer["completed"]) == (True, False)
