"""Services that answer nonsense, too much, for ever, elsewhere or as somebody else: a class each, and nobody hangs."""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from hostler.connectors.catalogue import build
from hostler.contracts.failure import Failure, FailureClass
from hostler.contracts.service import EndpointState, Failed, RemoteRef, RemoteState
from hostler.contracts.timeouts import Timeouts
from hostler.kernel.errors import ServiceUnavailableError
from hostler.ports.connector import Connector
from hostler.testing.connectors import Work, call_of, failure_of, submitted
from hostler.testing.eventually import eventually
from hostler.testing.sims.http import SimulationHTTPService
from hostler.testing.sims.knobs import SimKnobs

LIMITS = Timeouts(connect=3.0, first_byte=3.0, idle=3.0, run=6.0)
"""Of every attempt here; a hang is what lasts longer."""
SHORT = Timeouts(connect=3.0, first_byte=1.0, idle=1.0, run=2.0)
HANG = 15.0
MEGABYTE = 1_048_576
HUGE = 2_147_483_648
OPTIONS: dict[str, Any] = {
    "kinds": [
        {"name": "any.answer", "submit": {"path": "/do"}},
        {"name": "any.work", "submit": {"path": "/work"}, "id": "/id"},
        {"name": "any.stream", "submit": {"path": "/stream"}, "stream": "sse", "last": "[DONE]"},
    ],
    "reading": {"state": "/state", "states": {"on": "running", "done": "succeeded"}},
    "work": {"status": {"path": "/work/{id}"}, "events": {"path": "/work/{id}/events"}, "poll": 0.1},
    "capabilities": {"path": "/models", "models": "/*"},
    "answer_limit": MEGABYTE,
}
CHAT = {"messages": [{"role": "user", "content": "Where is the lighthouse?"}]}


@dataclass(frozen=True)
class Driven:
    """A connector, the work that is asked of it, and the bytes that it may take of one answer."""

    name: str
    work: Work
    options: dict[str, Any]
    most: int

    def to(self, url: str) -> Connector:
        return build(self.name, url=url, options=self.options)


DRIVEN = {
    "openai-http": Driven(
        "openai-http", Work(kind="chat.complete", payload=CHAT), {"answer_limit": MEGABYTE}, MEGABYTE
    ),
    "simulation-http": Driven(
        "simulation-http", Work(kind="image.generate", payload={"prompt": "x"}), {"poll": 0.1}, 16 * MEGABYTE
    ),
    "http-json": Driven("http-json", Work(kind="any.answer", payload={}), OPTIONS, MEGABYTE),
    "http-json, followed": Driven("http-json", Work(kind="any.work", payload={}), OPTIONS, 16 * MEGABYTE),
    "http-json, streamed": Driven("http-json", Work(kind="any.stream", payload={}), OPTIONS, MEGABYTE),
}
each = pytest.mark.parametrize("driven", DRIVEN.values(), ids=DRIVEN.keys())


@dataclass
class Villain:
    """Gives every request the same answer, and counts what it could get rid of."""

    head: str
    parts: Callable[[], AsyncGenerator[bytes]]
    url: str = ""
    asked: list[str] = field(default_factory=list[str])
    written: int = 0
    open: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            self.asked.append(head.partition("\r\n")[0])
            writer.write(f"HTTP/1.1 {self.head}\r\nConnection: close\r\n\r\n".encode())
            async for part in self.parts():
                writer.write(part)
                await writer.drain()
                self.written += len(part)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self.open -= 1
            writer.close()


@asynccontextmanager
async def villain(head: str, *parts: bytes, forever: bytes = b"") -> AsyncGenerator[Villain]:
    async def told() -> AsyncGenerator[bytes]:
        for part in parts:
            yield part
        while forever:
            yield forever
            await asyncio.sleep(0)

    one = Villain(head=head, parts=told)
    server = await asyncio.start_server(one.serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()[:2]
    one.url = f"http://{host}:{port}"
    try:
        yield one
    finally:
        server.close()


async def judged(driven: Driven, url: str) -> Failure:
    """Do the work, look at the endpoint in every other way too, and return how the work failed."""
    stranger = RemoteRef(id="7", job_id="conformance.1", fence=1)
    async with asyncio.timeout(HANG), driven.to(url) as connector:
        failure = await failure_of(connector, call_of(driven.work, timeouts=LIMITS))
        assert (await connector.probe()).state not in {EndpointState.READY, EndpointState.DEGRADED}
        with pytest.raises(ServiceUnavailableError):
            await connector.capabilities()
        assert await connector.reconcile(stranger) in {RemoteState.UNKNOWN, RemoteState.LOST}
        assert isinstance(await connector.fetch(stranger), Failed)
        assert not await connector.cancel(stranger)
        await connector.release(stranger)
    return failure


@each
async def test_a_page_of_html_is_no_answer_whatever_is_asked(driven: Driven) -> None:
    page = b"<!doctype html><html>Sign in to go on</html>"
    async with villain("200 OK\r\nContent-Type: text/html; charset=utf-8", page) as server:
        failure = await judged(driven, server.url)
    assert failure.class_ is FailureClass.TRANSIENT


@each
@pytest.mark.parametrize("kind", ["application/json", "text/event-stream"])
async def test_two_gigabytes_are_not_read_past_the_bound(driven: Driven, kind: str) -> None:
    head = f"200 OK\r\nContent-Type: {kind}\r\nContent-Length: {HUGE}"
    async with villain(head, b'{"id": "', forever=b"x" * 65_536) as server:
        async with asyncio.timeout(HANG), driven.to(server.url) as connector:
            failure = await failure_of(connector, call_of(driven.work, timeouts=LIMITS))
        await eventually(lambda: server.open == 0)
    assert failure.class_ is FailureClass.TRANSIENT
    assert server.written <= len(server.asked) * (driven.most + 8 * MEGABYTE), "beyond the bound there are only buffers"


@each
async def test_a_stream_that_never_ends_does_end(driven: Driven) -> None:
    """Comments say that somebody is there, and nothing else."""
    async with villain("200 OK\r\nContent-Type: text/event-stream", forever=b": still here\n\n") as server:
        async with asyncio.timeout(HANG), driven.to(server.url) as connector:
            failure = await failure_of(connector, call_of(driven.work, timeouts=SHORT))
        await eventually(lambda: server.open == 0)
    assert failure.class_ in {FailureClass.TRANSIENT, FailureClass.TIMEOUT}


@each
@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See Other", "307 Temporary Redirect"])
async def test_a_redirect_is_never_followed(driven: Driven, status: str) -> None:
    """Least of all to where a cloud keeps its credentials; the second server stands in for it, and is never asked."""
    async with villain("200 OK\r\nContent-Type: application/json", b'{"AccessKeyId": "x"}') as metadata:
        for place in (metadata.url + "/latest/meta-data/", "http://169.254.169.254/latest/meta-data/"):
            async with villain(f"{status}\r\nLocation: {place}\r\nContent-Length: 0") as server:
                failure = await judged(driven, server.url)
                assert failure.class_ is FailureClass.TRANSIENT
    assert metadata.asked == []


@pytest.mark.parametrize("driven", [DRIVEN["simulation-http"]], ids=["simulation-http"])
async def test_another_service_behind_the_same_port_is_seen_by_the_probe_and_ends_no_job_well(driven: Driven) -> None:
    slow = Work(kind="image.generate", payload={"prompt": "x", "duration": 30.0, "steps": 300})
    first = SimulationHTTPService(SimKnobs())
    async with asyncio.timeout(30):
        async with first:
            port = int(first.url.rpartition(":")[2])
            connector = await driven.to(first.url).__aenter__()
            ref = await submitted(connector, call_of(slow))
            assert (await connector.probe()).state is EndpointState.READY
        other = Villain(head="200 OK\r\nContent-Type: application/json", parts=_other)
        server = await asyncio.start_server(other.serve, "127.0.0.1", port)
        try:
            assert (await connector.probe()).state is EndpointState.UNHEALTHY
            with pytest.raises(ServiceUnavailableError):
                await connector.capabilities()
            assert await connector.reconcile(ref) is RemoteState.UNKNOWN
            assert isinstance(await connector.fetch(ref), Failed)
            steps = [step async for step in connector.observe(call_of(slow, timeouts=LIMITS), ref)]
            assert isinstance(steps[-1], Failed)
        finally:
            server.close()
            await connector.__aexit__(None, None, None)


async def _other() -> AsyncGenerator[bytes]:
    yield json.dumps({"status": "ok", "object": "list", "data": []}).encode()


async def test_another_instance_behind_the_same_port_knows_nothing_of_the_job(lighthouse: Any) -> None:
    """The same service, started anew: the work is lost, and not taken for another's."""
    options: dict[str, Any] = {**OPTIONS, "work": {**OPTIONS["work"], "status": {"path": "/tickets/{id}"}}}
    async with asyncio.timeout(HANG), build("http-json", url=lighthouse.url, options=options) as connector:
        ref = RemoteRef(id="t-99", job_id="q.1", fence=1)
        assert await connector.reconcile(ref) is RemoteState.LOST
        call = call_of(Work(kind="any.work", payload={}), timeouts=LIMITS)
        end = [step async for step in connector.observe(call, ref)][-1]
    assert isinstance(end, Failed)
    assert end.failure.class_ is FailureClass.LOST


async def test_a_service_that_lies_about_its_models_is_a_mismatch_and_not_asked_again_for_it() -> None:
    """It lists the model, and does not know it when asked."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        path = (await reader.readuntil(b"\r\n\r\n")).split()[1]
        status, body = "200 OK", {"object": "list", "data": [{"id": "big", "object": "model"}]}
        if not path.endswith(b"/models"):
            status = "404 Not Found"
            body = {"error": {"message": "The model `big` does not exist", "code": "model_not_found"}}
        text = json.dumps(body).encode()
        head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(text)}\r\n"
        writer.write(f"{head}Connection: close\r\n\r\n".encode() + text)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()[:2]
    try:
        async with asyncio.timeout(HANG), build("openai-http", url=f"http://{host}:{port}") as connector:
            assert (await connector.capabilities()).models == ("big",)
            work = Work(kind="chat.complete", payload={**CHAT, "model": "big"})
            failure = await failure_of(connector, call_of(work, timeouts=LIMITS))
    finally:
        server.close()
    assert failure.class_ is FailureClass.CAPABILITY_MISMATCH
    assert "does not exist" in failure.message
