"""Readers of a rig leave a word in the record however they end, and nothing that ends one is passed over."""

from pathlib import Path

import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from hostler.chaos.reading import read_history
from hostler.chaos.record import Header, Heard
from hostler.chaos.tape import Tape
from hostler.cli.rig.listeners import EACH, Listeners
from hostler.contracts.problem import Problem
from hostler.worker.system import SystemClock

JOB = "chaos.1"
NONE = Problem(type="about:blank", title="There is none.", status=404, code="not-found", retry="never")


@pytest.fixture(autouse=True)
def no_blocking_calls() -> None:
    """The tape joins its thread where the loop runs: it is no part of what is tested."""


async def listened(folder: Path, *, body: bytes, status: int, media_type: str) -> tuple[list[Heard], int]:
    """Let one reader ask a gateway that answers everything like this; return what it recorded, and who was denied."""

    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=body, status=status, content_type=media_type)

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    clock = SystemClock()
    async with TestServer(app) as gateway:
        with Tape.open(folder / "history.ndjson", clock) as tape:
            tape.write(Header(began_at=clock.now()))
            async with Listeners(tape, [str(gateway.make_url(""))], seed=1) as listeners:
                for _ in range(EACH):
                    listeners.follow(JOB)
                await listeners.finish(within=20)
            denied = listeners.gone
    return [line for line in read_history(folder).lines if isinstance(line, Heard)], denied


async def test_a_reader_that_is_told_that_there_is_no_such_job_ends_with_that_word(tmp_path: Path) -> None:
    heard, denied = await listened(
        tmp_path, body=msgspec.json.encode(NONE), status=404, media_type="application/problem+json"
    )
    assert [(line.job, line.end, line.pushes) for line in heard] == [(JOB, "gone", ())]
    assert denied == 1


async def test_an_answer_that_is_none_ends_the_run_and_not_only_its_reader(tmp_path: Path) -> None:
    with pytest.raises(msgspec.MsgspecError):
        await listened(tmp_path, body=b"{", status=200, media_type="application/json")
