"""A reader that comes back to a live stream: the real gateway loses and repeats nothing, and one that is off by one
is caught by the checker from what the reader heard."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from hostler.chaos.judge import Report, judge
from hostler.chaos.reading import Record
from hostler.chaos.record import Header, Heard, Line, Push
from hostler.chaos.recorder import read_all
from hostler.gateway.routes import jobs

from .conftest import House

QUEUE = "default"


async def heard(house: House, job: str, after: int, most: int) -> Heard:
    """Follow a job from an offset on, and go away after `most` events."""
    headers = {"Last-Event-ID": str(after)} if after else {}
    pushes: list[Push] = []
    over = True
    async with asyncio.timeout(20), house.session.get(f"/v1/jobs/{job}/events", headers=headers) as answer:
        async for line in answer.content:
            if line.startswith(b"data: "):
                found = msgspec.json.decode(line[6:])
                pushes.append(msgspec.convert({name: found[name] for name in ("offset", "type", "job", "state")}, Push))
                if len(pushes) == most:
                    over = False
                    break
    until = max([after, *(push.offset for push in pushes)]) if over else None
    return Heard(reader="r", queue=QUEUE, job=job, after=after, pushes=tuple(pushes), until=until)


async def followed(house: House) -> Report:
    """Follow a job over three connections, and judge what was heard beside what the queue keeps."""
    await house.announce()  # so that upkeep finds the lane served whenever it looks, and the offsets are in a row
    job = await house.submit()
    lines: list[Line] = [await heard(house, job, 0, 1)]
    await house.finish(await house.claim())
    for most in (1, 100):
        last = max(push.offset for line in lines if isinstance(line, Heard) for push in line.pushes)
        lines.append(await heard(house, job, last, most))
    await read_all(lambda *more: lines.extend(more), QUEUE, house.desk, house.foreman)
    return judge(Record(header=Header(began_at=datetime.now(UTC)), lines=tuple(lines)))


async def test_a_reader_that_comes_back_gets_every_move_once(house: House) -> None:
    assert (await followed(house)).ruling("S18").verdict == "held"


@pytest.mark.parametrize("off", [-1, 1])
@pytest.mark.row("000:48")
async def test_a_stream_that_resumes_off_by_one_is_caught(
    off: int, house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    right: Callable[[Any], tuple[int, int | None]] = jobs._last_event_id  # pyright: ignore[reportPrivateUsage] - what is broken here

    def wrong(call: Any) -> tuple[int, int | None]:
        offset, epoch = right(call)
        return offset + off, epoch

    monkeypatch.setattr(jobs, "_last_event_id", wrong)
    ruling = (await followed(house)).ruling("S18")
    assert ruling.verdict == "broken"
    assert ("again" if off < 0 else "never got") in ruling.findings[0].sentence
