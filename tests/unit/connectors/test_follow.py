"""A follower reads a stream ahead within a bound, and leaves it whole."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest
from msgspec import Raw

from hostler.connectors.follow import AHEAD, Follower, Signal
from hostler.connectors.stages import Stages
from hostler.contracts.job import Progress
from hostler.contracts.service import Failed, Finished, RemoteState, Step
from hostler.contracts.timeouts import Timeouts
from hostler.testing.eventually import eventually


class Endless:
    """Work that says something new for ever, and breaks where it is told to."""

    def __init__(self, *, breaks_at: int | None = None) -> None:
        self.said = 0
        self.left = False
        self._breaks_at = breaks_at

    async def signals(self, cursor: str | None) -> AsyncGenerator[Signal]:
        del cursor
        try:
            while self.said != self._breaks_at:
                self.said += 1
                yield Signal(state=RemoteState.RUNNING, progress=Progress(message=str(self.said)))
            raise ZeroDivisionError("a defect")
        finally:
            self.left = True

    async def status(self) -> Signal:
        return Signal(state=RemoteState.RUNNING)

    async def outcome(self) -> Finished | Failed:
        return Finished(result=Raw(b"1"))

    async def stop(self) -> bool:
        return True


def follow(work: Endless) -> Follower:
    return Follower(work, Stages(Timeouts()), poll=60.0)


async def test_a_stream_is_read_no_further_ahead_than_its_bound() -> None:
    work = Endless()
    async with aclosing(follow(work).steps()) as steps:
        assert await anext(steps) == Progress(message="1")
        await eventually(lambda: work.said > AHEAD)
        for _ in range(100):
            await asyncio.sleep(0)
        assert work.said <= AHEAD + 2


async def test_who_leaves_a_follower_has_left_its_stream_when_it_is_closed() -> None:
    work = Endless()
    async with aclosing(follow(work).steps()) as steps:
        await anext(steps)
        assert not work.left
    assert work.left


async def test_a_defect_in_a_stream_is_raised_after_what_came_before_it() -> None:
    heard: list[Step] = []

    async def listen() -> None:
        async with aclosing(follow(Endless(breaks_at=3)).steps()) as steps:
            async for step in steps:
                heard.append(step)  # noqa: PERF401 - what came before the defect counts

    with pytest.raises(ZeroDivisionError):
        await listen()
    assert heard == [Progress(message=word) for word in "123"]
