"""Following work that a service does on its own: its stream is believed, but never alone."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from typing import Final, Protocol

from msgspec import Struct, structs

from hostler.connectors.faults import ServiceFaultError
from hostler.connectors.stages import Stages
from hostler.contracts.failure import Failure, FailureClass, Stage
from hostler.contracts.job import Progress
from hostler.contracts.preview import Preview
from hostler.contracts.service import Failed, Finished, RemoteState, Step
from hostler.contracts.timeouts import LOADING
from hostler.kernel.units import Seconds

AHEAD: Final = 16
"""Signals that are read before they are taken, at most."""
STRIKES: Final = 10
"""Times in a row that neither stream nor status may answer."""
ENDED: Final = frozenset({RemoteState.SUCCEEDED, RemoteState.FAILED, RemoteState.CANCELLED, RemoteState.LOST})
_SOFT: Final = frozenset({FailureClass.TRANSIENT, FailureClass.OVERLOADED})


class Signal(Struct, frozen=True, kw_only=True):
    """What a stream or a status said about the work."""

    state: RemoteState
    progress: Progress | None = None
    preview: Preview | None = None
    """How the work looks; no sign that it moves."""
    cursor: str | None = None
    """Where a new stream goes on."""


_Word = Signal | Exception | None
"""A signal of a stream, how it broke, or None for its end."""


class RemoteWork(Protocol):
    """One piece of work that runs in a service; every verb raises `ServiceFaultError` when it cannot."""

    def signals(self, cursor: str | None) -> AsyncGenerator[Signal]:
        """Stream what happens after `cursor`; may end or break at any time."""
        ...

    async def status(self) -> Signal:
        """Ask how the work is; `LOST` when the service answers and knows nothing of it."""
        ...

    async def outcome(self) -> Finished | Failed:
        """Fetch how ended work ended."""
        ...

    async def stop(self) -> bool:
        """Stop the work."""
        ...


class Follower:
    """Turns one piece of remote work into steps: progress that only rises, then exactly one end.

    A silent stream is checked by a status query every `poll` seconds, so a completion that is never
    announced is found; a broken one is opened again where it broke. Work over a limit is told to stop.
    """

    def __init__(self, work: RemoteWork, stages: Stages, *, poll: Seconds) -> None:
        self._work = work
        self._stages = stages
        self._poll = poll
        self._cursor: str | None = None
        self._last: Progress = Progress()
        self._seen = time.monotonic()
        self._stage: Stage = Stage.FIRST_BYTE
        self._strikes = 0
        """Failures in a row to hear anything."""
        self._drops = 0
        """Streams in a row that ended without a word."""

    async def steps(self) -> AsyncGenerator[Step]:
        """Yield progress until the work has ended, then its end."""
        try:
            async with aclosing(self._until_ended()) as updates:
                async for progress in updates:
                    yield progress
            end = await self._persist()
        except ServiceFaultError as error:
            if error.failure.class_ is FailureClass.TIMEOUT:
                end = Failed(failure=await self._stopped(error))
            else:
                end = Failed(failure=error.failure)
        yield end

    async def _until_ended(self) -> AsyncGenerator[Progress | Preview]:
        while True:
            try:
                async with aclosing(self._signals()) as signals:
                    async for signal in signals:
                        if (progress := self._advance(signal)) is not None:
                            yield progress
                        if signal.preview is not None:
                            yield signal.preview
                        if signal.state in ENDED:
                            return
            except ServiceFaultError as error:
                self._strike(error)
            self._drops += 1
            await self._rest()
            try:
                signal = await self._status()
            except ServiceFaultError as error:
                self._strike(error)
                continue
            if (progress := self._advance(signal)) is not None:
                yield progress
            if signal.state in ENDED:
                return

    async def _signals(self) -> AsyncGenerator[Signal]:
        """Yield what the stream says, and while it is silent what the status says."""
        heard = _Heard()
        reading = asyncio.create_task(_read(self._work.signals(self._cursor), heard))
        try:
            while True:
                left, _, _ = self._stages.left(self._stage, since=self._seen)
                try:
                    signal = await heard.take(self._poll if left is None else min(self._poll, left))
                except TimeoutError:
                    self._stages.check(self._stage, since=self._seen)
                    try:
                        yield await self._status()
                    except ServiceFaultError as error:
                        self._strike(error)
                    continue
                if signal is None:
                    return
                if isinstance(signal, Exception):
                    try:
                        raise signal
                    finally:  # an exception that its own frames hold keeps connections until the collector comes
                        del signal
                self._strikes = self._drops = 0
                yield signal
        finally:
            if not reading.done():
                reading.cancel()
                await asyncio.wait({reading})
            with suppress(asyncio.CancelledError):  # taken out, so that its frames and their connection go now
                reading.exception()
            heard.clear()

    def _advance(self, signal: Signal) -> Progress | None:
        """Take a signal in; return what is new in it, with a fraction that never falls."""
        self._stages.check(self._stage, since=self._seen)
        self._cursor = signal.cursor or self._cursor
        progress = signal.progress
        if progress is None:
            return None
        stale = (progress.fraction or 0.0) < (self._last.fraction or 0.0)  # a stream that was resumed repeats itself
        if stale or progress == self._last:
            return None
        self._last = progress
        stage = Stage.LOAD if (progress.stage or "").lower() in LOADING else Stage.IDLE
        if (stage, self._stage) != (Stage.LOAD, Stage.LOAD):  # a load as a whole has a limit, whatever it says
            self._seen = time.monotonic()
        self._stage = stage
        return progress

    def _strike(self, error: ServiceFaultError) -> ServiceFaultError:
        """Count a failure to hear from the service; raise it when it is the last, or of no passing kind."""
        failure = error.failure
        slow = failure.class_ is FailureClass.TIMEOUT and failure.stage in {Stage.CONNECT, Stage.FIRST_BYTE}
        if not (failure.class_ in _SOFT or slow):
            raise error
        self._stages.check(self._stage, since=self._seen)
        self._strikes += 1
        if self._strikes > STRIKES:
            raise error
        return error

    async def _status(self) -> Signal:
        signal = await self._work.status()
        self._strikes = 0
        return signal

    async def _rest(self) -> None:
        left, _, _ = self._stages.left(self._stage, since=self._seen)
        pause = min(self._poll, 0.05 * 2.0 ** min(max(self._strikes, self._drops, 1), 16))
        await asyncio.sleep(pause if left is None else min(pause, left))
        self._stages.check(self._stage, since=self._seen)

    async def _persist(self) -> Finished | Failed:
        """Fetch the end, through passing failures."""
        self._strikes = 0
        while True:
            try:
                return await self._work.outcome()
            except ServiceFaultError as error:
                self._strike(error)
            await self._rest()

    async def _stopped(self, error: ServiceFaultError) -> Failure:
        try:
            stopped = await self._work.stop()
        except ServiceFaultError:
            stopped = False
        return structs.replace(error.failure, details={**error.failure.details, "stopped": stopped})


class _Heard:
    """What a stream said that nobody took yet, `AHEAD` words at most; one puts and one takes."""

    def __init__(self) -> None:
        self._words: deque[_Word] = deque()
        self._news: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None

    async def put(self, word: _Word) -> None:
        """Add a word once there is room for it."""
        while len(self._words) >= AHEAD:
            self._room = asyncio.get_running_loop().create_future()
            await self._room
        self._words.append(word)
        _wake(self._news)

    async def take(self, within: Seconds) -> _Word:
        """Return the next word; raises `TimeoutError` when none comes in so many seconds."""
        if not self._words:
            loop = asyncio.get_running_loop()
            self._news = loop.create_future()
            timer = loop.call_later(within, _wake, self._news)
            try:
                await self._news
            finally:
                timer.cancel()
            if not self._words:
                raise TimeoutError
        _wake(self._room)
        return self._words.popleft()

    def clear(self) -> None:
        """Forget what nobody will take."""
        self._words.clear()


def _wake(waiting: asyncio.Future[None] | None) -> None:
    if waiting is not None and not waiting.done():
        waiting.set_result(None)


async def _read(stream: AsyncGenerator[Signal], heard: _Heard) -> None:
    """Read a stream to its end, or until it breaks: one task for it all, however many signals there are."""
    try:
        async with aclosing(stream):
            async for signal in stream:
                await heard.put(signal)
    except Exception as error:  # noqa: BLE001 - raised where the signals are taken
        await heard.put(error)
    else:
        await heard.put(None)
