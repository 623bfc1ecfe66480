"""The function library of version 1 is frozen: processes of a later version run beside those that use it."""

from pathlib import Path

import pytest

from hostler.contracts.job import JobState
from hostler.contracts.queue import KindSpec
from hostler.testing.front import Front
from hostler.valkeyio.engine import Engine
from hostler.valkeyio.layout import VERSION
from hostler.valkeyio.library_text import NAME, shipped

FROZEN = Path(__file__).parent / "v1" / "hostler1.lua"


def test_a_change_of_the_functions_is_a_new_version() -> None:
    assert (VERSION, NAME) == (1, "hostler1"), "a later version keeps its own frozen copy beside this one"
    assert shipped().text == FROZEN.read_text(), "raise layout.VERSION and freeze the new text; never edit this one"


@pytest.mark.row("000:89")
async def test_the_frozen_library_runs_a_job_from_submit_to_result(engine: Engine) -> None:
    await engine.command("FUNCTION", "FLUSH")
    await engine.command("FUNCTION", "LOAD", FROZEN.read_text())
    front = Front(engine)
    try:
        await front.foreman.declare_kind(KindSpec(name="draw", queue="images"))
        job_id = await front.submit()
        await front.hire()
        (lease,) = await front.claim()
        assert (await front.end(lease)).accepted
        job = await front.desk.get(job_id)
        assert job.state is JobState.SUCCEEDED
        assert [event.type for event in (await front.desk.timeline(job_id)).events] == ["submit", "claim", "finish"]
    finally:
        await front.aclose()
