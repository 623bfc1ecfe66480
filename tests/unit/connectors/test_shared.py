"""Requests of many over one dialogue: told apart, asked again when it breaks, and bounded."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager

import pytest

from hostler.connectors.faults import ServiceFaultError, fault
from hostler.connectors.shared import TRIES, UNREAD, SharedDialogue
from hostler.contracts.failure import FailureClass, Stage
from hostler.testing.eventually import eventually


class Echo:
    """A dialogue whose peer says back `number:text` as often as `times`; `breaks` of them end without an answer."""

    def __init__(self, *, times: int = 1, breaks: int = 0, absent: bool = False) -> None:
        self.opened = self.left = 0
        self.heard: list[bytes] = []
        self._times, self._breaks, self._absent = times, breaks, absent
        self._queue: asyncio.Queue[bytes | None] = asyncio.Queue()

    @asynccontextmanager
    async def open(self) -> AsyncGenerator["Echo"]:
        self.opened += 1
        if self._absent:
            raise fault(FailureClass.TRANSIENT, "nobody is there")
        self._queue = asyncio.Queue()
        try:
            yield self
        finally:
            self.left += 1

    async def send(self, message: bytes) -> None:
        self.heard.append(message)
        if self.opened <= self._breaks:
            self._queue.put_nowait(None)
            return
        for _ in range(self._times):
            self._queue.put_nowait(message)

    async def messages(self) -> AsyncGenerator[bytes]:
        yield b"0:to nobody"
        while (message := await self._queue.get()) is not None:
            yield message


def shared(echo: Echo) -> SharedDialogue:
    return SharedDialogue(echo.open, number_of=lambda message: int(message.split(b":")[0]))


async def test_answers_find_those_who_asked_over_one_dialogue() -> None:
    echo = Echo()
    dialogue = shared(echo)
    asked = [dialogue.ask(lambda n, text=text: b"%d:%s" % (n, text), within=5.0) for text in (b"a", b"b", b"c")]
    assert [answer.split(b":")[1] for answer in await asyncio.gather(*asked)] == [b"a", b"b", b"c"]
    assert (echo.opened, echo.left) == (1, 0)
    await dialogue.close()
    await dialogue.close()
    assert echo.left == 1


async def test_a_request_whose_dialogue_breaks_is_asked_again_and_not_for_ever() -> None:
    echo = Echo(breaks=TRIES - 1)
    dialogue = shared(echo)
    assert (await dialogue.ask(lambda n: b"%d:again" % n, within=5.0)).endswith(b":again")
    assert echo.opened == TRIES
    await dialogue.close()
    never = Echo(breaks=1_000)
    with pytest.raises(ServiceFaultError) as caught:
        await shared(never).ask(lambda n: b"%d:again" % n, within=5.0)
    assert caught.value.failure.class_ is FailureClass.TRANSIENT
    assert never.opened == TRIES


async def test_one_that_cannot_be_opened_is_a_failure_at_once() -> None:
    echo = Echo(absent=True)
    with pytest.raises(ServiceFaultError, match="nobody is there"):
        await shared(echo).ask(lambda n: b"%d:" % n, within=5.0)
    assert echo.opened == 1


async def test_a_request_that_nobody_answers_is_a_timeout_of_its_stage() -> None:
    dialogue = shared(Echo(times=0))
    with pytest.raises(ServiceFaultError) as caught:
        await dialogue.ask(lambda n: b"%d:" % n, within=0.05, stage=Stage.CONNECT)
    assert (caught.value.failure.class_, caught.value.failure.stage) == (FailureClass.TIMEOUT, Stage.CONNECT)
    await dialogue.close()


async def test_closing_ends_those_who_wait_with_a_failure() -> None:
    echo = Echo(times=0)
    dialogue = shared(echo)
    waiting = asyncio.create_task(dialogue.ask(lambda n: b"%d:" % n, within=5.0))
    await eventually(lambda: echo.heard)
    await dialogue.close()
    with pytest.raises(ServiceFaultError):
        await waiting
    assert (echo.opened, echo.left) == (1, 1)
    await dialogue.close()


async def test_one_who_does_not_read_loses_its_answers_and_nobody_elses() -> None:
    echo = Echo(times=UNREAD + 2)
    dialogue = shared(echo)
    async with aclosing(dialogue.follow(lambda n: b"%d:a" % n, leave=lambda n: b"%d:leave" % n, within=5.0)) as answers:
        assert await anext(answers) == b"1:a"
        assert await dialogue.ask(lambda n: b"%d:b" % n, within=5.0) == b"2:b"
        with pytest.raises(ServiceFaultError, match="not read in time"):
            [answer async for answer in answers]
    assert b"1:leave" in echo.heard
    await dialogue.close()
