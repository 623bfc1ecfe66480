"""Requests and answers of many over one dialogue, told apart by number."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, aclosing, suppress
from itertools import count
from typing import Final

from hostler.connectors.faults import ServiceFaultError, failure
from hostler.connectors.stages import Bounded
from hostler.connectors.transports.conversation import Dialogue
from hostler.contracts.failure import Failure, FailureClass, Stage
from hostler.kernel.allowance import allowed
from hostler.kernel.units import Seconds

Request = Callable[[int], bytes]
"""Writes a request that bears a number; everything that answers it bears the same."""
UNREAD: Final = 1_000
"""Messages that may wait for one who asked."""
TRIES: Final = 3
"""Dialogues that a request is sent over, while they break before it is answered."""


class SharedDialogue:
    """The one dialogue with an endpoint that all share who speak with it.

    A request whose dialogue breaks before the answer is asked again over a new one: the service must take a
    repeated request for the same.
    """

    def __init__(
        self,
        open_: Callable[[], AbstractAsyncContextManager[Dialogue]],
        *,
        number_of: Callable[[bytes], int | None],
    ) -> None:
        """Take what opens a dialogue, and what reads the number in a message (None when it bears none)."""
        self._open = open_
        self._number_of = number_of
        self._numbers = count(1)
        self._line: _Line | None = None

    async def ask(self, request: Request, *, within: Seconds, stage: Stage = Stage.CONNECT) -> bytes:
        """Return the first answer, in `within` seconds, blamed on `stage`; raises `ServiceFaultError`."""
        async with Bounded(within, stage):
            for rest in reversed(range(TRIES)):
                line = self._alive()
                try:
                    async with aclosing(line.answers(next(self._numbers), request)) as answers:
                        return await anext(answers)
                except ServiceFaultError:
                    if line.closed or not (line.opened and line.broken and rest):
                        raise
        raise ServiceFaultError(_ENDED)

    async def follow(self, request: Request, *, leave: Request, within: Seconds) -> AsyncGenerator[bytes]:
        """Yield every answer, the first in `within` seconds, and say `leave` at the end.

        Raises `ServiceFaultError` when the dialogue breaks.
        """
        number, line = next(self._numbers), self._alive()
        async with aclosing(line.answers(number, request)) as answers:
            try:
                async with Bounded(within, Stage.FIRST_BYTE):
                    answer = await anext(answers)
                yield answer
                async for answer in answers:
                    yield answer
            finally:
                with suppress(ServiceFaultError):
                    await line.say(leave(number))

    async def close(self) -> None:
        """End the dialogue and everything that waits for it. Twice is safe; the next request opens another."""
        line, self._line = self._line, None
        if line is not None:
            await line.close()

    def _alive(self) -> "_Line":
        if self._line is None or self._line.broken is not None:
            self._line = _Line(self._open, self._number_of)
        return self._line


class _Line:
    """One dialogue from its opening to its end, in a task of its own."""

    def __init__(
        self, open_: Callable[[], AbstractAsyncContextManager[Dialogue]], number_of: Callable[[bytes], int | None]
    ) -> None:
        self.opened = self.closed = False
        self.broken: Failure | None = None
        self._dialogue: Dialogue | None = None
        self._settled = asyncio.Event()
        self._boxes: dict[int, _Box] = {}
        self._number_of = number_of
        with allowed(None):  # whoever opens it has no more time than others who will share it
            self._task = asyncio.create_task(self._run(open_), name="shared dialogue")

    async def answers(self, number: int, request: Request) -> AsyncGenerator[bytes]:
        """Say the request and yield what answers it."""
        box = self._boxes[number] = _Box()
        try:
            await self._settled.wait()
            await self.say(request(number))
            while True:
                yield await box.take()
        finally:
            del self._boxes[number]

    async def say(self, message: bytes) -> None:
        if self.broken is not None or self._dialogue is None:
            raise ServiceFaultError(self.broken or _ENDED)
        try:
            await self._dialogue.send(message)
        except ServiceFaultError as error:  # it takes nothing more, though its end was not read yet
            self.broken = self.broken or error.failure
            self._task.cancel()
            raise

    async def close(self) -> None:
        self.closed = True
        self._task.cancel()
        await asyncio.wait({self._task})

    async def _run(self, open_: Callable[[], AbstractAsyncContextManager[Dialogue]]) -> None:
        end = _ENDED
        try:
            async with open_() as dialogue, aclosing(dialogue.messages()) as messages:
                self._dialogue, self.opened = dialogue, True
                self._settled.set()
                async for message in messages:
                    number = self._number_of(message)
                    box = None if number is None else self._boxes.get(number)
                    if box is not None:
                        box.put(message)
        except ServiceFaultError as error:
            end = error.failure
        finally:
            self.broken = self.broken or end
            self._settled.set()
            for box in self._boxes.values():
                box.end(self.broken)


_ENDED: Final = failure(FailureClass.TRANSIENT, "the dialogue with the service ended")


class _Box:
    """What came for one request and was not read yet."""

    def __init__(self) -> None:
        self._messages: deque[bytes] = deque()
        self._news = asyncio.Event()
        self._end: Failure | None = None

    def put(self, message: bytes) -> None:
        if len(self._messages) >= UNREAD:
            self.end(failure(FailureClass.TRANSIENT, f"{UNREAD} messages of the service were not read in time"))
        else:
            self._messages.append(message)
            self._news.set()

    def end(self, why: Failure) -> None:
        self._end = self._end or why
        self._news.set()

    async def take(self) -> bytes:
        while not self._messages:
            if self._end is not None:
                raise ServiceFaultError(self._end)
            self._news.clear()
            await self._news.wait()
        return self._messages.popleft()
