"""What the connector of Cog makes of models that stream, fail, refuse, are busy, or never became ready."""

import asyncio
import json
import shutil
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any, cast

import aiohttp
import aiohttp.web
import pytest

from hostler.connectors.catalogue import build
from hostler.contracts.failure import FailureClass
from hostler.contracts.job import Progress
from hostler.contracts.service import EndpointState, Failed, Finished, Step
from hostler.kernel.errors import ServiceUnavailableError
from hostler.testing.cog import CogServer, health
from hostler.testing.connectors import Work, call_of, failure_of, steps_of, submitted
from hostler.testing.connectors_house import last_of
from hostler.testing.eventually import eventually

C = FailureClass


def predict(**inputs: object) -> Work:
    return Work(kind="cog.predict", payload={"input": {"prompt": "light", **inputs}})


LONG = predict(steps=10_000, pause=0.02)


@pytest.fixture
async def http() -> AsyncGenerator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as http:
        yield http


@pytest.fixture
async def cog(streaming_cog: CogServer, http: aiohttp.ClientSession) -> CogServer:
    """A real server whose model streams, idle now and with no run counted."""
    await idle(http, streaming_cog)
    (streaming_cog.folder / "runs").write_text("")
    return streaming_cog


async def idle(http: aiohttp.ClientSession, server: CogServer) -> None:
    async def ready() -> bool:
        return await health(http, server.url) == "READY"

    await eventually(ready, within=10)


def runs(server: CogServer) -> int:
    return len((server.folder / "runs").read_text())


async def begin(http: aiohttp.ClientSession, server: CogServer, name: str) -> None:
    """Let somebody else predict for long."""
    headers = {"Prefer": "respond-async"}
    body = {"input": LONG.payload["input"]}
    async with http.put(f"{server.url}/predictions/{name}", json=body, headers=headers) as answer:
        assert answer.status == 202
    await eventually(lambda: runs(server) == 1)


async def end(http: aiohttp.ClientSession, server: CogServer, name: str) -> None:
    """Cancel until it is gone: a cancel between two steps is not heard."""

    async def gone() -> bool:
        async with http.post(f"{server.url}/predictions/{name}/cancel") as answer:
            return answer.status == 404

    await eventually(gone)
    await idle(http, server)


async def test_text_is_progress_and_its_pieces_are_the_output(cog: CogServer) -> None:
    async with build("cog-http", url=cog.url) as connector:
        *before, last = await steps_of(connector, call_of(predict(steps=12)))
    assert isinstance(last, Finished), last
    result = json.loads(bytes(last.result))
    said = "".join(step.text or "" for step in before if isinstance(step, Progress))
    assert said
    assert "".join(result["output"]).startswith(said)
    assert "step 12 of 12" in result["logs"]
    assert result["metrics"]["predict_time"] > 0


async def test_a_model_that_does_not_stream_is_asked_again_without(silent_cog: CogServer) -> None:
    async with build("cog-http", url=silent_cog.url) as connector:
        for job in ("conformance.1", "conformance.2"):

            async def ended(job: str = job) -> list[Step]:
                steps = await steps_of(connector, call_of(predict(), job=job))
                assert isinstance(steps[-1], Finished), steps[-1]  # its one slot is free a moment after an answer
                return steps

            *before, _ = await eventually(ended, within=30.0)
            assert [step.stage for step in before if isinstance(step, Progress)] == ["waiting"]


@pytest.mark.parametrize(
    ("words", "class_"),
    [
        ("no luck today", C.TRANSIENT),
        ("CUDA out of memory. Tried to allocate 2 GiB", C.OUT_OF_MEMORY),
        ("NSFW content detected. Try another prompt.", C.REFUSED),
    ],
)
async def test_a_failure_with_status_200_is_no_success(cog: CogServer, words: str, class_: FailureClass) -> None:
    async with build("cog-http", url=cog.url) as connector:
        found = await failure_of(connector, call_of(predict(fail=words)))
    assert found.class_ is class_
    assert words in found.message


@pytest.mark.parametrize("inputs", [{"prompt": 7}, {"steps": 0}, {"seed": 1}])
async def test_what_the_model_does_not_take_is_refused_and_runs_nothing(cog: CogServer, inputs: dict[str, Any]) -> None:
    async with build("cog-http", url=cog.url) as connector:
        found = await failure_of(connector, call_of(predict(**inputs)))
    assert found.class_ is C.INVALID_INPUT
    assert next(iter(inputs)) in found.message
    assert runs(cog) == 0


async def test_a_prediction_that_somebody_else_cancels_is_no_cancel_of_ours(
    cog: CogServer, http: aiohttp.ClientSession
) -> None:
    async with build("cog-http", url=cog.url) as connector:
        ref = await submitted(connector, call_of(LONG))
        await eventually(lambda: runs(cog) == 1)
        await end(http, cog, "conformance.1-1")
        last = await last_of(connector, call_of(LONG), ref)
    assert isinstance(last, Failed)
    assert last.failure.class_ is C.TRANSIENT
    assert last.failure.details["cancelled"] is True


async def test_a_busy_service_is_overloaded_and_the_work_of_others_goes_on(
    cog: CogServer, http: aiohttp.ClientSession
) -> None:
    await begin(http, cog, "theirs")
    async with build("cog-http", url=cog.url) as connector:
        assert (await failure_of(connector, call_of(predict(), fence=2))).class_ is C.OVERLOADED
        probe = await connector.probe()
        assert (probe.state, probe.busy) == (EndpointState.READY, 1)
    assert await health(http, cog.url) == "BUSY"
    await end(http, cog, "theirs")


async def test_what_an_earlier_attempt_left_running_makes_room_for_the_next(
    cog: CogServer, http: aiohttp.ClientSession
) -> None:
    await begin(http, cog, "conformance.1-1")
    async with build("cog-http", url=cog.url) as connector:
        last = (await steps_of(connector, call_of(predict(), fence=3)))[-1]
    assert isinstance(last, Finished), last
    assert runs(cog) == 2


async def test_what_the_model_takes_is_known(cog: CogServer) -> None:
    async with build("cog-http", url=cog.url, slots=2, options={"model": "lighthouse"}) as connector:
        found = await connector.capabilities()
        assert (await connector.probe()).version == found.versions["cog"]
    assert found.models == ("lighthouse",)
    assert found.labels["input/prompt"] == "yes"
    assert found.pools["slots"].total == 2


async def test_a_model_that_is_set_up_takes_no_work_until_it_is_ready(
    start_cog: Callable[..., CogServer], http: aiohttp.ClientSession
) -> None:
    server = start_cog(ready=False)
    late = server.folder / "late"
    late.touch()
    with_server = await asyncio.to_thread(server.__enter__)
    try:
        async with build("cog-http", url=with_server.url) as connector:
            assert (await connector.probe()).state is EndpointState.LOADING
            with pytest.raises(ServiceUnavailableError):
                await connector.capabilities()
            assert (await failure_of(connector, call_of(predict()))).class_ is C.OVERLOADED
            late.unlink()
            await idle(http, server)
            assert isinstance((await steps_of(connector, call_of(predict(), job="conformance.2")))[-1], Finished)
    finally:
        await asyncio.to_thread(server.__exit__, None, None, None)


async def test_a_model_whose_setup_failed_says_why(start_cog: Callable[..., CogServer]) -> None:
    server = start_cog()
    (server.folder / "broken").touch()
    await asyncio.to_thread(server.__enter__)
    try:
        async with build("cog-http", url=server.url) as connector:
            probe = await connector.probe()
            assert probe.state is EndpointState.UNHEALTHY
            assert "SETUP_FAILED" in probe.message
            assert "the weights are not there" in probe.message
    finally:
        await asyncio.to_thread(server.__exit__, None, None, None)
        await asyncio.to_thread(shutil.rmtree, server.folder)


@pytest.mark.parametrize(
    "body",
    [
        b'event: start\ndata: {"id":"conformance.1-1","status":"processing"}\n\n',
        b'event: completed\ndata: {"id":"somebody-elses","status":"succeeded","output":"x"}\n\n',
        b'event: completed\ndata: {"id":"conformance.1-1","status":"processing"}\n\n',
        b"event: completed\ndata: {}\n\n",
        b"event: output\ndata: nonsense\n\n",
    ],
)
async def test_events_that_do_not_say_how_it_ended_are_no_success(body: bytes) -> None:
    async def page(request: aiohttp.web.Request) -> aiohttp.web.Response:
        if request.method == "PUT":
            return aiohttp.web.Response(body=body, content_type="text/event-stream")
        return aiohttp.web.Response(status=404)

    async with playing(page) as url, build("cog-http", url=url) as connector:
        assert (await failure_of(connector, call_of(predict()))).class_ is C.TRANSIENT


@pytest.mark.parametrize("deaf", [False, True])
async def test_a_prediction_is_cancelled_by_its_name_until_it_is_gone(*, deaf: bool) -> None:
    told: list[str] = []

    async def page(request: aiohttp.web.Request) -> aiohttp.web.StreamResponse:
        if request.method == "PUT":
            response = aiohttp.web.StreamResponse(headers={"Content-Type": "text/event-stream"})
            await response.prepare(request)
            await response.write(b'event: log\ndata: {"data": "on my way"}\n\n')
            await asyncio.Event().wait()
        if request.path.endswith("/cancel"):
            told.append(request.path)
            return aiohttp.web.json_response({}, status=200 if deaf or len(told) < 3 else 404)
        return aiohttp.web.Response(status=404)

    async with playing(page) as url, build("cog-http", url=url, options={"stop": 0.3}) as connector:
        ref = await submitted(connector, call_of(LONG))
        async with aclosing(cast("Any", connector.observe(call_of(LONG), ref))) as steps:
            await anext(steps)
        assert await connector.cancel(ref) is not deaf
    assert set(told) == {"/predictions/conformance.1-1/cancel"}
    assert len(told) >= 3


@asynccontextmanager
async def playing(page: Callable[[aiohttp.web.Request], Awaitable[aiohttp.web.StreamResponse]]) -> AsyncGenerator[str]:
    """A server that answers everything by this."""
    app = aiohttp.web.Application()
    app.router.add_route("*", "/{path:.*}", page)
    runner = aiohttp.web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await aiohttp.web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        yield f"http://{host}:{port}"
    finally:
        await runner.cleanup()
