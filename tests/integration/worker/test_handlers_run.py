"""Handlers run on the loop, in threads and in child processes, and their words reach the broker."""

import asyncio
import threading
from typing import Any

from msgspec import Struct

import hostler
from hostler.testing.fabric import Fabric


class Pair(Struct, frozen=True, kw_only=True):
    left: int
    right: int


@hostler.handler("t.add", payload=Pair, result=int)
async def add(call: hostler.Call[Pair]) -> int:
    return call.payload.left + call.payload.right


@hostler.handler("t.thread")
def in_a_thread(call: hostler.Call[Any]) -> str:
    call.progress(fraction=0.5, text="half ")
    call.progress(text="way")
    return threading.current_thread().name


async def test_a_coroutine_handler_gets_its_typed_payload_and_its_result_is_recorded(fabric: Fabric) -> None:
    async with fabric.worker(add):
        job = await fabric.submit("t.add", {"left": 1, "right": 2})
        assert await fabric.result(job) == 3
        assert [event.type for event in await fabric.events(job)] == ["submit", "claim", "finish"]


async def test_a_payload_that_does_not_fit_is_invalid_input_and_dead_at_once(fabric: Fabric) -> None:
    async with fabric.worker(add):
        job = await fabric.ended(await fabric.submit("t.add", {"left": "x"}))
        assert job.state == "dead"
        assert job.error is not None
        assert job.error.class_ == "invalid_input"


async def test_a_plain_function_runs_in_a_thread_of_its_own_and_its_text_is_appended(fabric: Fabric) -> None:
    async with fabric.worker(in_a_thread):
        job = await fabric.submit("t.thread")
        assert (await fabric.result(job)).startswith("handler ")
        events = await fabric.events(job)
        assert "".join(event.data.get("text", "") for event in events if event.type == "progress") == "half way"


async def test_long_jobs_never_delay_short_ones_while_a_slot_is_free(fabric: Fabric) -> None:
    begun, over = asyncio.Semaphore(0), asyncio.Event()

    @hostler.handler("t.long")
    async def long(call: hostler.Call[Any]) -> None:
        begun.release()
        await over.wait()

    async with fabric.worker(add, long, slots=4):
        long_ones = [await fabric.submit("t.long") for _ in range(3)]
        for _ in long_ones:
            await begun.acquire()
        short_ones = [await fabric.submit("t.add", {"left": n, "right": 1}) for n in range(40)]
        assert [await fabric.result(job) for job in short_ones] == list(range(1, 41))
        assert {(await fabric.get(job)).state for job in long_ones} == {"running"}
        over.set()
        for job in long_ones:
            await fabric.result(job)
