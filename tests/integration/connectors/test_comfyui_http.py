"""What the connector of ComfyUI makes of a server's moods: cuts, lies, strangers, files, refusals."""

import asyncio
import hashlib
import json
import struct
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from hostler.blobs.opening import open_blobs
from hostler.connectors.catalogue import build
from hostler.contracts.failure import FailureClass, Stage
from hostler.contracts.job import Progress
from hostler.contracts.service import Failed, Finished, RemoteRef, RemoteState, ServiceCall, Step
from hostler.contracts.timeouts import Timeouts
from hostler.ports.blobs import Blobs
from hostler.ports.connector import Connector
from hostler.testing.connectors import Work, call_of, failure_of, steps_of, submitted
from hostler.testing.eventually import eventually
from hostler.testing.sims.comfyui import ComfyuiService
from hostler.testing.sims.comfyui_knobs import ComfyuiKnobs, Dialect
from hostler.testing.sims.comfyui_workflows import invert, text_to_image

DIALECTS: tuple[Dialect, ...] = ("new", "old")
PICTURE = b"\x89PNG\r\n\x1a\n and some light"


@pytest.fixture
async def service() -> AsyncGenerator[ComfyuiService]:
    async with ComfyuiService(ComfyuiKnobs(duration=0.02)) as service:
        yield service


@pytest.fixture
async def blobs(tmp_path: Path) -> AsyncGenerator[Blobs]:
    async with open_blobs(None, tmp_path) as blobs:
        yield blobs


def connector_to(service: ComfyuiService, *, blobs: Blobs | None = None, **options: Any) -> Connector:
    return build("comfyui-http", url=service.url, options={"poll": 0.05, **options}, blobs=blobs)


def work_of(workflow: Any, **more: Any) -> Work:
    return Work(kind="comfyui.workflow", payload={"workflow": workflow, **more})


def turned(service: ComfyuiService, **change: Any) -> None:
    service.knobs = msgspec.structs.replace(service.knobs, **change)


def effects_of(service: ComfyuiService) -> list[str]:
    return [effect.type for effect in service.effects.effects]


def result_of(step: Step) -> dict[str, Any]:
    assert isinstance(step, Finished), step
    return json.loads(bytes(step.result))


async def ends_of(connector: Connector, call: ServiceCall, ref: RemoteRef) -> list[Step]:
    return [step async for step in connector.observe(call, ref)]


async def stored(blobs: Blobs, body: bytes) -> dict[str, Any]:
    async def parts() -> AsyncIterator[bytes]:
        yield body

    name = hashlib.sha256(body).hexdigest()
    await blobs.put(name, parts(), limit=len(body))
    return {"$blob": {"sha256": name, "size": len(body), "media_type": "image/png"}}


async def strangers_prompt(service: ComfyuiService, *, steps: int = 5_000) -> str:
    """Queue a prompt as somebody else would."""
    body = {"prompt": text_to_image("a ship", steps=steps), "client_id": "stranger"}
    async with aiohttp.ClientSession() as http, http.post(f"{service.url}/prompt", json=body) as answer:
        return (await answer.json())["prompt_id"]


@pytest.mark.row("001:207")
@pytest.mark.parametrize("dialect", DIALECTS)
async def test_wherever_the_socket_is_cut_the_job_ends_right_and_runs_once(
    service: ComfyuiService, dialect: Dialect
) -> None:
    turned(service, dialect=dialect, duration=0.01)
    cuts = 0
    async with connector_to(service) as connector:
        while True:
            turned(service, cut_at=cuts)
            await strangers_prompt(service)  # ours waits behind it, until the socket hears
            call = call_of(work_of(text_to_image(seed=cuts, steps=2)), job=f"cut.{cuts}")
            ref = await submitted(connector, call)
            watching = asyncio.create_task(ends_of(connector, call, ref))
            await eventually(lambda: service.sockets.clients != ())
            service.work.interrupt()
            result = result_of((await asyncio.wait_for(watching, 10))[-1])
            assert [made["node"] for made in result["artifacts"]] == ["9"]
            assert [effect.type for effect in service.effects.effects if effect.job == ref.id] == [
                "started",
                "finished",
            ]
            await eventually(lambda: service.sockets.clients == ())
            run = service.work.latest
            assert run is not None
            if not run.dropped:
                break
            cuts += 1
    assert run.sent == cuts
    assert cuts >= 10


@pytest.mark.row("001:207")
@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_result_from_the_cache_completes_although_no_message_was_seen(
    service: ComfyuiService, dialect: Dialect
) -> None:
    turned(service, dialect=dialect)
    async with connector_to(service) as connector:
        first = result_of((await steps_of(connector, call_of(work_of(text_to_image()), job="cache.1")))[-1])
        turned(service, missed_rate=1.0)
        again = result_of((await steps_of(connector, call_of(work_of(text_to_image()), job="cache.2")))[-1])
    assert first["cached"] == []
    assert sorted(again["cached"]) == ["3", "4", "5", "6", "7", "8", "9"]
    assert again["artifacts"] == first["artifacts"]


async def test_without_a_socket_the_history_is_enough(service: ComfyuiService) -> None:
    turned(service, socket=False)
    async with connector_to(service) as connector:
        result = result_of((await steps_of(connector, call_of(work_of(text_to_image()))))[-1])
    assert len(result["artifacts"]) == 1


@pytest.mark.row("001:207")
async def test_progress_comes_over_the_socket_step_by_step(service: ComfyuiService) -> None:
    async with connector_to(service, poll=30.0) as connector:
        *before, end = await steps_of(connector, call_of(work_of(text_to_image(steps=5))))
    assert isinstance(end, Finished)
    said = [step.message for step in before if isinstance(step, Progress)]
    assert "KSampler 3, step 4 of 5" in said
    assert any(isinstance(step, Progress) and 0.5 < (step.fraction or 0) < 1 for step in before)


async def test_a_load_is_held_to_its_own_limit_and_not_to_that_of_silence(service: ComfyuiService) -> None:
    turned(service, load=0.8)
    patient = Timeouts(connect=5.0, load=10.0, first_byte=5.0, idle=0.5, run=20.0)
    hasty = Timeouts(connect=5.0, load=0.2, first_byte=5.0, idle=5.0, run=20.0)
    async with connector_to(service) as connector:
        slow = await failure_of(connector, call_of(work_of(text_to_image()), job="load.1", timeouts=hasty))
        ends = await steps_of(connector, call_of(work_of(text_to_image()), job="load.2", timeouts=patient))
    assert (slow.class_, slow.stage) == (FailureClass.TIMEOUT, Stage.LOAD)
    assert isinstance(ends[-1], Finished)
    assert any(isinstance(step, Progress) and step.stage == "loading" for step in ends)


async def test_a_completion_that_the_socket_invents_is_not_believed(service: ComfyuiService) -> None:
    turned(service, hang_rate=1.0)
    async with connector_to(service) as connector:
        call = call_of(work_of(text_to_image()))
        ref = await submitted(connector, call)
        watching = asyncio.create_task(ends_of(connector, call, ref))
        await eventually(lambda: ref.id in service.sockets.clients)
        await eventually(lambda: service.work.running is not None and service.work.running.sent > 6)
        run = service.work.running
        assert run is not None
        for event, data in (("execution_success", {}), ("executing", {"node": None})):
            await service.sockets.send(run, event, {**data, "prompt_id": ref.id}, ref.id)
        asked = service.requests
        await eventually(lambda: service.requests > asked + 30)  # it goes on looking
        assert await connector.reconcile(ref) is RemoteState.RUNNING
        assert not watching.done()
        service.work.interrupt()
        end = (await asyncio.wait_for(watching, 5))[-1]
    assert isinstance(end, Failed)
    assert end.failure.class_ is FailureClass.CANCELLED


@pytest.mark.row("001:206")
async def test_files_go_in_and_come_out_by_reference(service: ComfyuiService, blobs: Blobs) -> None:
    turned(service, image_bytes=400_000)
    picture = await stored(blobs, PICTURE)
    async with connector_to(service, blobs=blobs) as connector:
        result = result_of((await steps_of(connector, call_of(work_of(invert(picture)))))[-1])
    uploaded = {file: body for file, body in service.work.files.items() if file[0] == "input"}
    assert uploaded == {("input", "hostler", f"{picture['$blob']['sha256']}.png"): PICTURE}
    (made,) = result["artifacts"]
    assert (made["node"], made["output"], made["media_type"]) == ("3", "images", "image/png")
    assert made["size"] >= 400_000
    assert "data" not in made
    kept = b"".join([part async for part in blobs.get(made["blob"]["sha256"])])
    assert kept == service.work.files["output", "", made["name"]]
    assert result["texts"] == {"4": ["['1', 0]"]}


async def test_without_a_blob_store_files_come_inline(service: ComfyuiService) -> None:
    async with connector_to(service) as connector:
        result = result_of((await steps_of(connector, call_of(work_of(text_to_image()))))[-1])
    assert result["artifacts"][0]["data"].startswith("iVBORw0KGgo")


async def test_a_file_that_is_not_there_is_invalid_input(service: ComfyuiService, blobs: Blobs) -> None:
    gone = {"$blob": {"sha256": "0" * 64, "size": 3, "media_type": "image/png"}}
    async with connector_to(service, blobs=blobs) as connector:
        missing = await failure_of(connector, call_of(work_of(invert(gone))))
        wrong = await failure_of(connector, call_of(work_of(invert({"$blob": "x"})), job="wrong.1"))
    assert missing.class_ is FailureClass.INVALID_INPUT
    assert "0" * 64 in missing.message
    assert wrong.class_ is FailureClass.INVALID_INPUT


async def test_a_file_over_the_limit_is_a_failure(service: ComfyuiService, blobs: Blobs) -> None:
    turned(service, image_bytes=200_000)
    async with connector_to(service, blobs=blobs, file_limit=100_000) as connector:
        failure = await failure_of(connector, call_of(work_of(text_to_image())))
    assert failure.class_ is FailureClass.TRANSIENT
    assert "100000 bytes" in failure.message


@pytest.mark.parametrize(
    ("code", "class_"),
    [("out_of_memory", FailureClass.OUT_OF_MEMORY), ("internal_error", FailureClass.TRANSIENT)],
)
async def test_a_node_that_raises_is_a_failure_with_its_class_and_its_node(
    service: ComfyuiService, code: str, class_: FailureClass
) -> None:
    turned(service, failures={code: 1.0})
    async with connector_to(service) as connector:
        failure = await failure_of(connector, call_of(work_of(text_to_image())))
    assert failure.class_ is class_
    assert (failure.details["node"], failure.details["class_type"]) == ("3", "KSampler")


@pytest.mark.row("001:206")
@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_refused_workflow_is_bad_input_with_the_node_named_and_what_lacks_is_a_mismatch(
    service: ComfyuiService, dialect: Dialect
) -> None:
    turned(service, dialect=dialect)
    wrong = text_to_image()
    wrong["5"]["inputs"]["width"] = 1
    unknown = text_to_image()
    unknown["8"]["class_type"] = "NobodyHasThis"
    async with connector_to(service) as connector:
        invalid = await failure_of(connector, call_of(work_of(wrong), job="bad.1"))
        model = await failure_of(connector, call_of(work_of(text_to_image(model="flux.safetensors")), job="bad.2"))
        node = await failure_of(connector, call_of(work_of(unknown), job="bad.3"))
        empty = await failure_of(connector, call_of(work_of({"1": wrong["5"]}), job="bad.4"))
        sampler = text_to_image()
        sampler["3"]["inputs"]["sampler_name"] = "nobody"
        choice = await failure_of(connector, call_of(work_of(sampler), job="bad.5"))
    assert invalid.class_ is FailureClass.INVALID_INPUT
    assert "node 5 (EmptyLatentImage)" in invalid.message
    assert invalid.details["nodes"]["5"]["errors"][0]["type"] == "value_smaller_than_min"
    assert model.class_ is FailureClass.CAPABILITY_MISMATCH
    assert "flux.safetensors" in model.message
    assert node.class_ is FailureClass.CAPABILITY_MISMATCH
    assert "NobodyHasThis" in node.message
    assert empty.class_ is FailureClass.INVALID_INPUT
    assert choice.class_ is FailureClass.INVALID_INPUT
    assert effects_of(service) == []


async def test_a_workflow_of_which_a_part_is_refused_is_no_success_unless_that_was_asked_for(
    service: ComfyuiService,
) -> None:
    workflow = text_to_image(steps=2_000)
    workflow["10"] = {"class_type": "SaveImage", "inputs": {"images": ["8", 0]}}
    async with connector_to(service) as connector:
        failure = await failure_of(connector, call_of(work_of(workflow), job="part.1"))
        await eventually(lambda: service.work.remaining() == 0)
        workflow["3"]["inputs"]["steps"] = 2
        ends = await steps_of(connector, call_of(work_of(workflow, partial=True), job="part.2"))
    assert failure.class_ is FailureClass.INVALID_INPUT
    assert "node 10 (SaveImage)" in failure.message
    assert [made["node"] for made in result_of(ends[-1])["artifacts"]] == ["9"]


@pytest.mark.row("001:206")
@pytest.mark.parametrize("dialect", DIALECTS)
async def test_only_what_is_ours_is_stopped(service: ComfyuiService, dialect: Dialect) -> None:
    turned(service, dialect=dialect)
    stranger = await strangers_prompt(service)
    await eventually(lambda: service.work.running is not None)
    async with connector_to(service) as connector:
        call = call_of(work_of(text_to_image(steps=5_000)))
        ref = await submitted(connector, call)
        assert await connector.reconcile(ref) is RemoteState.PENDING
        assert await connector.cancel(ref)
        assert await connector.reconcile(ref) is RemoteState.CANCELLED
        theirs = RemoteRef(id=stranger, job_id="not.1", fence=9)
        assert not await connector.cancel(theirs)
        assert await connector.reconcile(theirs) is RemoteState.RUNNING
    assert service.work.running is not None
    assert service.work.running.prompt_id == stranger
    assert effects_of(service) == ["started"]


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_work_that_waits_too_long_behind_others_is_taken_out_of_the_queue(
    service: ComfyuiService, dialect: Dialect
) -> None:
    turned(service, dialect=dialect)
    await strangers_prompt(service)
    async with connector_to(service) as connector:
        call = call_of(work_of(text_to_image()), timeouts=Timeouts(connect=5.0, first_byte=5.0, idle=0.3, run=20.0))
        failure = await failure_of(connector, call)
    assert failure.class_ is FailureClass.TIMEOUT
    assert failure.details["stopped"] is True
    assert service.work.remaining() == 1


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_server_that_was_restarted_has_lost_the_work(service: ComfyuiService, dialect: Dialect) -> None:
    turned(service, dialect=dialect)
    await strangers_prompt(service)
    async with connector_to(service) as connector:
        call = call_of(work_of(text_to_image()))
        ref = await submitted(connector, call)
        service.forget()
        end = [step async for step in connector.observe(call, ref)][-1]
        assert await connector.reconcile(ref) is RemoteState.LOST
    assert isinstance(end, Failed)
    assert end.failure.class_ is FailureClass.LOST


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_an_answer_to_a_submit_that_is_lost_runs_nothing_twice(service: ComfyuiService, dialect: Dialect) -> None:
    turned(service, dialect=dialect, swallow_rate=1.0)
    async with connector_to(service) as connector:
        ends = await steps_of(connector, call_of(work_of(text_to_image())))
    assert isinstance(ends[-1], Finished)
    assert effects_of(service) == ["started", "finished"]


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_later_attempt_goes_on_with_what_an_earlier_one_queued(
    service: ComfyuiService, dialect: Dialect
) -> None:
    turned(service, dialect=dialect)
    work = work_of(text_to_image(steps=100))
    async with connector_to(service) as first, connector_to(service) as second:
        ref = await submitted(first, call_of(work))
        heir = await submitted(second, call_of(work, fence=2))
        assert heir.id == ref.id
        assert not await first.cancel(ref)
        await first.release(ref)
        ends = [step async for step in second.observe(call_of(work, fence=2), heir)]
    assert isinstance(ends[-1], Finished)
    assert effects_of(service) == ["started", "finished"]


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_submit_that_comes_again_after_the_end_finds_the_end(service: ComfyuiService, dialect: Dialect) -> None:
    turned(service, dialect=dialect)
    call = call_of(work_of(text_to_image()))
    async with connector_to(service) as first, connector_to(service) as second:
        ref = await submitted(first, call)
        assert isinstance((await ends_of(first, call, ref))[-1], Finished)
        again = await submitted(second, call)
    assert again == ref
    assert effects_of(service) == ["started", "finished"]


async def test_jobs_of_one_name_from_two_fabrics_do_not_meet(service: ComfyuiService) -> None:
    async with connector_to(service) as one, connector_to(service) as other:
        first = await submitted(one, call_of(work_of(text_to_image("a lamp"))))
        second = await submitted(other, call_of(work_of(text_to_image("a reef"))))
    assert first.id != second.id


async def test_an_endpoint_says_what_it_has(service: ComfyuiService) -> None:
    async with connector_to(service) as connector:
        found = await connector.capabilities()
        probe = await connector.probe()
    assert found.models == ("sim-large.safetensors", "sim-small.safetensors")
    assert found.models_known
    assert found.labels["gpu"] == "cuda:0 Simulated RTX"
    assert found.labels["nodes.lighthouse-pack"] == "installed"
    assert found.pools["gpu_memory"].total == service.knobs.vram
    assert found.pools["slots"].total == 1
    assert found.versions == {"comfyui": "0.4.0", "pytorch": "2.7.1"}
    assert (probe.slots, probe.busy) == (1, 0)


async def test_previews_reach_whoever_asks_for_them(service: ComfyuiService) -> None:
    """The simulator's socket: with metadata for those who say that they take it, else without."""
    found: dict[str, set[int]] = {"rich": set(), "plain": set()}
    async with aiohttp.ClientSession() as http:
        for client, kinds in found.items():
            async with http.ws_connect(f"{service.url}/ws?clientId={client}") as socket:
                if client == "rich":
                    flags = {"type": "feature_flags", "data": {"supports_preview_metadata": True}}
                    await socket.send_json(flags)
                    assert [(await socket.receive_json())["type"] for _ in range(2)] == ["status", "feature_flags"]
                body = {"prompt": text_to_image(client, steps=2), "client_id": client}
                async with http.post(f"{service.url}/prompt", json=body) as answer:
                    assert answer.status == 200
                async for message in socket:
                    if message.type is aiohttp.WSMsgType.BINARY:
                        kinds.add(struct.unpack(">I", message.data[:4])[0])
                    elif message.json()["data"].get("node", "") is None:
                        break
    assert found == {"rich": {4}, "plain": {1}}
