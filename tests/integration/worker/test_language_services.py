"""Jobs on language services, through a worker: loads are counted as loads, and a 429 costs no attempt."""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import pytest

from hostler.connectors.catalogue import build
from hostler.contracts.job import Attempt
from hostler.contracts.timeouts import Timeouts
from hostler.testing.eventually import eventually
from hostler.testing.fabric import Fabric
from hostler.testing.sims.ollama import OllamaHTTPService
from hostler.testing.sims.ollama_knobs import OllamaKnobs

HELLO = {"model": "sim-chat", "messages": [{"role": "user", "content": "hello"}]}
BUSY = b"HTTP/1.1 429 No\r\nContent-Type: application/json\r\nRetry-After: 0.4\r\nContent-Length: 2\r\n\r\n{}"
CHUNKS = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
    b'data: {"choices": [{"index": 0, "delta": {"content": "a "}}]}\n\n'
    b'data: {"choices": [{"index": 0, "delta": {"content": "light"}, "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n'
)
LIST = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 25\r\n\r\n{"data": [{"id": "any"}]}'

ABSENT = b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n"


@asynccontextmanager
async def full_at_first(refusals: int) -> AsyncGenerator[tuple[str, list[float]]]:
    """A server of the OpenAI API that has no room at first; gives its URL and when it was asked for a chat."""
    asked: list[float] = []

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if b"/chat/" in head:
            asked.append(time.monotonic())
            writer.write(BUSY if len(asked) <= refusals else CHUNKS)
        else:
            writer.write(LIST if b"/models" in head else ABSENT)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(client, "127.0.0.1", 0)
    async with server:
        host, port = server.sockets[0].getsockname()[:2]
        yield f"http://{host}:{port}", asked


@pytest.mark.row("001:209")
async def test_a_429_with_retry_after_waits_that_long_and_uses_no_attempt(fabric: Fabric) -> None:
    async with full_at_first(2) as (url, asked), fabric.worker(connectors=[build("openai-http", url=url)]):
        job = await fabric.submit("chat.complete", HELLO)
        result = await fabric.result(job)
        found = await fabric.get(job)
        texts = [event.data.get("text") for event in await fabric.events(job) if event.type == "progress"]
    assert result["text"] == "a light"
    assert "".join(text or "" for text in texts) == "a light"
    assert [attempt.counted for attempt in found.attempts] == [False, False]
    assert {attempt.error.class_ for attempt in found.attempts if attempt.error} == {"overloaded"}
    assert all(later - earlier >= 0.4 for earlier, later in pairwise(asked))
    assert len(asked) == 3


@pytest.mark.row("002:84")
async def test_the_warm_up_of_a_model_is_counted_in_the_stage_load(fabric: Fabric) -> None:
    knobs = OllamaKnobs(load=0.3, first_token=0.001, token=0.01, tokens=8)
    async with OllamaHTTPService(knobs) as server:
        connector = build("ollama-http", url=server.url)
        async with fabric.worker(connectors=[connector]):
            job = await fabric.submit("chat.complete", HELLO, timeouts=Timeouts(first_byte=0.25, load=5.0))
            result = await fabric.result(job)
            stages: list[Any] = [
                event.data.get("stage") for event in await fabric.events(job) if event.type == "progress"
            ]
            server.knobs = OllamaKnobs(load=60.0)
            slow = await fabric.submit("chat.complete", {**HELLO, "model": "sim-large"}, timeouts=Timeouts(load=0.2))
            (attempt, *_) = await eventually(lambda: _attempts(fabric, slow))
    assert result["timings"]["load"] >= 0.3
    assert stages[0] == "load"
    assert "generating" in stages
    assert attempt.error is not None
    assert (attempt.error.class_, attempt.error.stage) == ("timeout", "load")


async def _attempts(fabric: Fabric, job: str) -> tuple[Attempt, ...]:
    return (await fabric.get(job)).attempts
