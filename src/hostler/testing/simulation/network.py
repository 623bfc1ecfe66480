"""What lies between a process and the engine or a service: delays, lost requests, lost answers, outages."""

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, TypeVar

from msgspec import Struct

from hostler.chaos.check import Told
from hostler.contracts.event import Page
from hostler.contracts.fence import attempt_of
from hostler.contracts.lease import Again, Settlement
from hostler.kernel.errors import EngineTimeoutError, EngineUnavailableError
from hostler.kernel.units import Fraction, Seconds
from hostler.testing.simulation.loop import VirtualLoop

T = TypeVar("T")

CALL_LIMIT: Final[Seconds] = 5.0
"""How long an answer is waited for."""


class Weather(Struct, frozen=True, kw_only=True):
    """How one connection is at the moment."""

    delay: Seconds = 0.002
    """Longest way of one message; each is drawn."""
    lost_requests: Fraction = 0.0
    lost_answers: Fraction = 0.0
    """Things were done, and nobody hears of it."""
    refused: bool = False
    """The other side is away: it says so at once."""


class NoAnswerError(Exception):
    """Nothing came back within the limit: it may or may not have been done."""


class RefusedError(Exception):
    """There is nobody: it was not done."""


class Path:
    """One process's way to one other; what is on the way goes on when the process is killed."""

    def __init__(self, loop: VirtualLoop, name: str, dice: random.Random) -> None:
        self._loop = loop
        self.name = name
        self._dice = dice
        self._on_the_way: set[asyncio.Task[None]] = set()
        self.weather = Weather()

    async def exchange(self, what: Callable[[], Awaitable[T]], *, limit: Seconds = CALL_LIMIT) -> T:
        """Have something done on the other side and return what it says, or raise what it raises."""
        answer: asyncio.Future[T] = self._loop.create_future()
        task = self._loop.start(self._carry(what, answer), self.name)
        self._on_the_way.add(task)
        task.add_done_callback(self._on_the_way.discard)
        try:
            async with asyncio.timeout(limit):
                return await answer
        except TimeoutError:
            raise NoAnswerError from None

    async def _carry(self, what: Callable[[], Awaitable[T]], answer: asyncio.Future[T]) -> None:
        weather = self.weather
        await asyncio.sleep(self._dice.random() * weather.delay)
        if self.weather.refused:
            _end(answer, error=RefusedError())
            return
        if self._dice.random() < weather.lost_requests:
            return
        result, error = None, None
        try:
            result = await what()
        except Exception as raised:  # noqa: BLE001 - carried to whoever asked
            error = raised
        await asyncio.sleep(self._dice.random() * weather.delay)
        if self._dice.random() >= weather.lost_answers and not self.weather.refused:
            _end(answer, result=result, error=error)


def _end(answer: asyncio.Future[Any], *, result: Any = None, error: Exception | None = None) -> None:
    if answer.done():
        return
    if error is None:
        answer.set_result(result)
    else:
        answer.set_exception(error)


class EngineLine:
    """The engine's ports as one process sees them over its path; what the engine refuses is raised as it is.

    Every verb of the object behind it can be called. `wait_for_work` waits for a change, as a wake-up does.
    """

    def __init__(self, engine: "SharedEngine", path: Path) -> None:
        self._engine = engine
        self._path = path

    def __getattr__(self, verb: str) -> Callable[..., Awaitable[Any]]:
        method = getattr(self._engine.model, verb)

        async def call(*words: Any, **named: Any) -> Any:
            async def there() -> Any:
                return await self._engine.do(method, *words, **named)

            try:
                return await self._path.exchange(there)
            except RefusedError:
                raise EngineUnavailableError("the engine cannot be reached") from None
            except NoAnswerError:
                raise EngineTimeoutError("the engine did not answer in time") from None

        return call

    async def events(self, queue: str, *, after: int, limit: int = 1000, wait: Seconds = 0.0) -> Page:
        """Return a page of a stream; one that would be empty after `wait` seconds at the latest."""
        loop = asyncio.get_running_loop()
        ends = loop.time() + wait
        while True:
            stirred = self._engine.stirred
            page: Page = await self.__getattr__("events")(queue, after=after, limit=limit)
            left = ends - loop.time()
            if page.events or left <= 0:
                return page
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await stirred.wait()

    async def wait_for_work(self, queues: object, worker: object, *, timeout: float) -> bool:
        """Return True after something changed, False after `timeout` seconds; some wake-ups are lost."""
        del queues, worker
        if self._path.weather.refused:
            await asyncio.sleep(self._path.weather.delay)
            raise EngineUnavailableError("the engine cannot be reached")
        try:
            async with asyncio.timeout(timeout):
                await self._engine.changed.wait()
        except TimeoutError:
            return False
        return True


WAKING: Final = frozenset({"submit", "settle", "tick", "cancel", "replay", "wake", "resume"})
"""Verbs after which there may be work that was not there before."""


class SharedEngine:
    """The one engine behind all paths."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.changed = asyncio.Event()
        self.stirred = asyncio.Event()
        """Set, and another one put in its place, when there are events that were not there before."""
        self.told: list[Told] = []
        """What was said to every settlement, whether or not the answer arrived."""

    async def do(self, method: Callable[..., Awaitable[T]], *words: Any, **named: Any) -> T:
        """Do one verb; whoever waits for work hears of it when there may be some."""
        before = self.model.moves
        answer = await method(*words, **named)
        verb = getattr(method, "__name__", "")
        if verb == "settle":
            self._note(words[1], answer)
        if verb in WAKING:
            self.changed.set()
            self.changed = asyncio.Event()
        if self.model.moves != before:
            self.stirred.set()
            self.stirred = asyncio.Event()
        return answer

    def _note(self, settlements: Sequence[Settlement], answer: Any) -> None:
        for asked, settled in zip(settlements, answer, strict=True):
            fence, ending = attempt_of(asked.fence), asked.ending
            delay = ending.delay if isinstance(ending, Again) else None
            self.told.append(Told(job=asked.job_id, fence=fence, accepted=settled.accepted, delay=delay))
