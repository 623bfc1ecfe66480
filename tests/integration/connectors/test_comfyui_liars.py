"""Servers and proxies that are not what they should be, before a ComfyUI that is."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from hostler.connectors.catalogue import build
from hostler.contracts.failure import FailureClass
from hostler.contracts.service import EndpointState, Failed, Finished, RemoteRef, RemoteState
from hostler.kernel.errors import ServiceUnavailableError
from hostler.ports.connector import Connector
from hostler.testing.connectors import Work, call_of, failure_of, steps_of
from hostler.testing.sims.comfyui import ComfyuiService
from hostler.testing.sims.comfyui_knobs import ComfyuiKnobs
from hostler.testing.sims.comfyui_workflows import text_to_image

Liar = Callable[[web.Request], Awaitable[web.StreamResponse | None]]
WORK = Work(kind="comfyui.workflow", payload={"workflow": text_to_image(steps=20)})
HTML = "<!doctype html><title>Sign in</title>"


@pytest.fixture
async def service() -> AsyncGenerator[ComfyuiService]:
    async with ComfyuiService(ComfyuiKnobs(duration=0.1)) as service:
        yield service


@asynccontextmanager
async def before(service: ComfyuiService, liar: Liar) -> AsyncGenerator[Connector]:
    """Put a proxy before the server that answers itself where `liar` has something to say."""

    async def handle(request: web.Request) -> web.StreamResponse:
        if (answer := await liar(request)) is not None:
            return answer
        async with http.request(
            request.method, service.url + request.path_qs, data=await request.read(), headers=_plain(request)
        ) as answer:
            return web.Response(status=answer.status, body=await answer.read(), content_type=answer.content_type)

    app = web.Application(client_max_size=2**28)
    app.router.add_route("*", "/{tail:.*}", handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        async with aiohttp.ClientSession() as http:
            options = {"poll": 0.05, "timeout": 10.0}
            async with build("comfyui-http", url=f"http://{host}:{port}", options=options) as connector:
                yield connector
    finally:
        await runner.cleanup()


def _plain(request: web.Request) -> dict[str, str]:
    kept = ("Content-Type", "User-Agent")
    return {name: request.headers[name] for name in kept if name in request.headers}


def at(path: str, answer: Callable[[], web.StreamResponse]) -> Liar:
    async def liar(request: web.Request) -> web.StreamResponse | None:
        return answer() if request.path.startswith(path) else None

    return liar


async def test_nonsense_on_the_socket_changes_nothing(service: ComfyuiService) -> None:
    async def liar(request: web.Request) -> web.StreamResponse | None:
        if request.path != "/ws":
            return None
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        other = {"prompt_id": "somebody-else", "node": None}
        for text in ("", "null", "[]", "{", '{"type": 7}', '{"type": "logs", "data": [1]}', '{"type": "progress"}'):
            await socket.send_str(text)
        for event in ("executing", "execution_success", "execution_error"):
            await socket.send_json({"type": event, "data": other})
            await socket.send_json({"type": event, "data": {"node": None}})
        ours = {"prompt_id": request.query["clientId"], "node": ["?"], "nodes": 5, "value": "x", "max": -1}
        for event in ("executed", "progress", "progress_state", "execution_cached", "mystery"):
            await socket.send_json({"type": event, "data": ours})
        for data in (b"", b"\x00", b"\x00\x00\x00\x04\xff\xff\xff\xff", b"\x00\x00\x00\x01" + b"x" * 1_000_000):
            await socket.send_bytes(data)
        async for _ in socket:
            pass
        return socket

    async with before(service, liar) as connector:
        ends = await steps_of(connector, call_of(WORK))
    assert isinstance(ends[-1], Finished)
    assert [effect.type for effect in service.effects.effects] == ["started", "finished"]


async def test_a_socket_that_never_stops_talking_does_not_keep_the_job(service: ComfyuiService) -> None:
    async def liar(request: web.Request) -> web.StreamResponse | None:
        if request.path != "/ws":
            return None
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        while not socket.closed:
            await socket.send_bytes(b"\x00\x00\x00\x01" + b"x" * 100_000)
        return socket

    async with before(service, liar) as connector:
        ends = await steps_of(connector, call_of(WORK))
    assert isinstance(ends[-1], Finished)


@pytest.mark.parametrize(
    "answer",
    [
        lambda: web.Response(text=HTML, content_type="text/html"),
        lambda: web.json_response([]),
        lambda: web.json_response({"queue_running": [["x"]], "queue_pending": []}),
        lambda: web.json_response({"queue_running": [[0, "id", "graph", {}, []]], "queue_pending": []}),
        lambda: web.Response(status=302, headers={"Location": "http://169.254.169.254/latest/meta-data"}),
        lambda: web.Response(body=b"[" * 70_000_000, content_type="application/json"),
    ],
    ids=["html", "list", "item", "graph", "redirect", "huge"],
)
async def test_what_is_no_queue_is_a_failure_with_a_class(
    service: ComfyuiService, answer: Callable[[], web.StreamResponse]
) -> None:
    async with before(service, at("/queue", answer)) as connector:
        failure = await failure_of(connector, call_of(WORK))
        ref = RemoteRef(id="prompt", job_id=call_of(WORK).job_id, fence=1)
        assert await connector.reconcile(ref) is RemoteState.UNKNOWN
        assert not await connector.cancel(ref)
    assert failure.class_ is FailureClass.TRANSIENT
    assert service.effects.effects == []


async def test_a_server_that_is_none_is_not_ready_and_has_nothing(service: ComfyuiService) -> None:
    page: Callable[[], web.StreamResponse] = lambda: web.Response(text=HTML, content_type="text/html")  # noqa: E731 - typed
    async with before(service, at("/", page)) as connector:
        probe = await connector.probe()
        assert probe.state is EndpointState.UNHEALTHY
        assert "text/html" in probe.message
        with pytest.raises(ServiceUnavailableError):
            await connector.capabilities()


@pytest.mark.parametrize(
    "entry",
    [
        {"prompt": [], "outputs": {}},
        {"prompt": [], "outputs": {}, "status": None},
        {"prompt": [], "outputs": {}, "status": {"status_str": "error", "completed": False, "messages": []}},
        {"prompt": [], "outputs": {}, "status": {"status_str": "paused", "completed": True, "messages": []}},
    ],
    ids=["bare", "null", "unexplained", "unheard-of"],
)
async def test_a_history_that_does_not_say_success_is_none(service: ComfyuiService, entry: dict[str, Any]) -> None:
    async def liar(request: web.Request) -> web.StreamResponse | None:
        if request.path == "/queue":
            return web.json_response({"queue_running": [], "queue_pending": []})
        if request.path.startswith("/history/") and queued:
            return web.json_response({request.path.rpartition("/")[2]: entry})
        if request.path == "/prompt" and request.method == "POST":
            queued.append((await request.json())["prompt_id"])
        return None

    queued: list[str] = []
    async with before(service, liar) as connector:
        end = (await steps_of(connector, call_of(WORK)))[-1]
    assert isinstance(end, Failed)
    assert end.failure.class_ is FailureClass.TRANSIENT


async def test_an_output_that_is_gone_is_lost(service: ComfyuiService) -> None:
    gone: Callable[[], web.StreamResponse] = lambda: web.Response(status=404)  # noqa: E731 - typed
    async with before(service, at("/view", gone)) as connector:
        failure = await failure_of(connector, call_of(WORK))
    assert failure.class_ is FailureClass.LOST
