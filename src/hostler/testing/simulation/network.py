"""What lies between a process and the engine or a service: delays, lost requests, lost answers, outages."""

import asyncio
import contextvars
import random
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from functools import partial
from typing import Any, Final, TypeVar, cast

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
    """There is nobody: it was not done. `server` is which one of several, where there are several."""

    def __init__(self, server: str | None = None) -> None:
        super().__init__(server)
        self.server = server


class BrokenOffError(Exception):
    """The connection to one server of several broke: it may or may not have been done."""

    def __init__(self, server: str) -> None:
        super().__init__(server)
        self.server = server


class Server:
    """Where one queue is, as in a cluster: it may be away while the engine's others answer."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.away = False
        """Whether it refuses what comes; what it had to say yet never arrives."""
        self.cuts: Fraction = 0.0
        """How many of its answers break off."""


class Path:
    """One process's way to one other; what is on the way goes on when the process is killed.

    Made of callbacks rather than of tasks, which would cost several times as much: what most of a story's time goes to.
    """

    def __init__(self, loop: VirtualLoop, name: str, dice: random.Random) -> None:
        self._loop = loop
        self.name = name
        self._roll = dice.random
        self._context = loop.context_of(name)
        self._working: set[asyncio.Future[Any]] = set()
        self.weather = Weather()

    def exchange(
        self, what: Callable[[], "asyncio.Future[T] | T"], *, limit: Seconds = CALL_LIMIT, server: Server | None = None
    ) -> "asyncio.Future[T]":
        """Have something done on the other side and return what it says, or raise what it raises.

        What the other side has to wait for is a future, which runs on when nobody waits for the answer any more.
        """
        request = _Request(self._loop, what, limit, self.weather, server)
        self._loop.call_later(self._roll() * self.weather.delay, self._arrive, request, context=self._context)
        return request.answer

    def _arrive(self, request: "_Request") -> None:
        if self.weather.refused:
            request.end(error=RefusedError())
            return
        if request.server is not None and request.server.away:
            request.end(error=RefusedError(request.server.name))
            return
        if self._roll() < request.weather.lost_requests:
            request.lose()
            return
        try:
            result = request.what()
        except Exception as error:  # noqa: BLE001 - carried to whoever asked
            self._send_back(request, error=error)
            return
        if isinstance(result, asyncio.Future):
            request.lose()  # unless it is done in time
            work = cast("asyncio.Future[Any]", result)
            self._working.add(work)
            work.add_done_callback(partial(self._worked, request), context=self._context)
        else:
            self._send_back(request, result=result)

    def _worked(self, request: "_Request", work: "asyncio.Future[Any]") -> None:
        self._working.discard(work)
        if not work.cancelled():
            error = work.exception()
            if error is None:
                self._send_back(request, result=work.result())
            elif isinstance(error, Exception):
                self._send_back(request, error=error)

    def _send_back(self, request: "_Request", *, result: Any = None, error: Exception | None = None) -> None:
        delay = self._roll() * request.weather.delay
        self._loop.call_later(delay, self._return, request, result, error, context=self._context)

    def _return(self, request: "_Request", result: Any, error: Exception | None) -> None:
        server = request.server
        if server is not None and (server.away or (server.cuts and self._roll() < server.cuts)):
            request.end(error=BrokenOffError(server.name))
        elif self._roll() >= request.weather.lost_answers and not self.weather.refused:
            request.end(result=result, error=error)
        else:
            request.lose()


class _Request:
    """One request on its way, until there is an answer or it is given up."""

    __slots__ = ("_caller", "_ends", "_limited", "_loop", "answer", "server", "weather", "what")

    def __init__(
        self, loop: VirtualLoop, what: Callable[[], Any], limit: Seconds, weather: Weather, server: Server | None
    ) -> None:
        self.what = what
        self.server = server
        self.weather = weather
        """When it was sent: losses and delays are that moment's."""
        self._loop = loop
        self.answer: asyncio.Future[Any] = asyncio.Future(loop=loop)
        """What there is, or what comes instead of it."""
        self._caller = contextvars.copy_context()
        self._ends = loop.time() + limit
        self._limited = False

    def end(self, *, result: Any = None, error: Exception | None = None) -> None:
        """Answer, if anybody still waits for it."""
        if self.answer.done():
            return
        if error is None:
            self.answer.set_result(result)
        else:
            self.answer.set_exception(error)

    def lose(self) -> None:
        """Let whoever asked give up when his time comes: it is he who waits, so not while he is frozen."""
        if not self._limited and not self.answer.done():
            self._limited = True
            self._loop.call_at(max(self._ends, self._loop.time()), self._give_up, context=self._caller)

    def _give_up(self) -> None:
        self.end(error=NoAnswerError())


class EngineLine:
    """The engine's ports as one process sees them over its path; what the engine refuses is raised as it is.

    Every verb of the object behind it can be called. `wait_for_work` and `events` wait for a change, as a wake-up and
    a blocking read do.
    """

    def __init__(self, engine: "SharedEngine", path: Path) -> None:
        self._engine = engine
        self._path = path

    def __getattr__(self, verb: str) -> Callable[..., Awaitable[Any]]:
        method, queue_of = getattr(self._engine.model, verb), QUEUE_OF.get(verb)

        def call(*words: Any, **named: Any) -> Coroutine[Any, Any, Any]:
            server = None if queue_of is None else self._engine.servers.get(queue_of(words))
            return self._ask(lambda: self._engine.do(verb, method, *words, **named), server=server)

        self.__dict__[verb] = call
        return call

    async def _ask(self, what: Callable[[], Any], limit: Seconds = CALL_LIMIT, *, server: Server | None = None) -> Any:
        try:
            return await self._path.exchange(what, limit=limit, server=server)
        except RefusedError as error:
            if error.server is None:
                raise EngineUnavailableError("the engine cannot be reached") from None
            raise EngineUnavailableError("it cannot be reached", executed=False, server=error.server) from None
        except BrokenOffError as error:
            raise EngineUnavailableError("the connection broke", server=error.server) from None
        except NoAnswerError:
            raise EngineTimeoutError("the engine did not answer in time") from None

    async def events(self, queue: str, *, after: int, limit: int = 1000, wait: Seconds = 0.0) -> Page:
        """Return a page of a stream; one that would be empty after `wait` seconds at the latest."""
        server = self._engine.servers.get(queue)
        return await self._ask(lambda: self._engine.read(queue, after, limit, wait), CALL_LIMIT + wait, server=server)

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


def _home(job_id: str) -> str:
    return job_id.rpartition(".")[0]


QUEUE_OF: Final[Mapping[str, Callable[[tuple[Any, ...]], str]]] = {
    "submit": lambda words: words[0][0].queue,
    "claim": lambda words: words[0].queue,
    **dict.fromkeys(("settle", "progress", "renew"), lambda words: _home(words[1][0].job_id)),
    **dict.fromkeys(("get", "timeline", "cancel"), lambda words: _home(words[0])),
    **dict.fromkeys(("tick", "promote", "stats", "demand"), lambda words: words[0]),
}
"""Verbs that one queue's server does, and the queue."""
WAKING: Final = frozenset({"submit", "settle", "tick", "promote", "cancel", "replay", "wake", "resume"})
"""Verbs after which there may be work that was not there before."""


class SharedEngine:
    """The one engine behind all paths."""

    def __init__(self, model: Any, queues: Sequence[str] = ()) -> None:
        self.model = model
        self.servers = {queue: Server(queue) for queue in queues}
        """Of each queue; the rest of the engine is always there."""
        self.changed = asyncio.Event()
        self.told: list[Told] = []
        """What was said to every settlement, whether or not the answer arrived."""
        self._moves = 0
        self._readers: list[Callable[[], bool]] = []
        """Reads that wait for events; each tells whether it is over."""

    def do(self, verb: str, method: Callable[..., Coroutine[Any, Any, Any]], *words: Any, **named: Any) -> Any:
        """Do one verb; whoever waits for work hears of it when there may be some, and whoever reads of new events."""
        answer = at_once(method(*words, **named))
        if verb == "settle":
            self._note(words[1], answer)
        if (moves := self.model.moves) != self._moves:
            self._moves = moves
            if verb in WAKING and self.model.waits:
                self.changed.set()
                self.changed = asyncio.Event()
            self._readers = [read for read in self._readers if not read()]
        return answer

    def read(self, queue: str, after: int, limit: int, wait: Seconds) -> "Page | asyncio.Future[Page]":
        """Return a page of a stream, at the latest after `wait` seconds an empty one."""
        page: Page = at_once(self.model.events(queue, after=after, limit=limit))
        if page.events or wait <= 0:
            return page
        loop = asyncio.get_running_loop()
        later: asyncio.Future[Page] = loop.create_future()
        over = loop.call_later(wait, _answer, later, page)

        def read() -> bool:
            if not later.done() and self.model.offset(queue) > after:
                over.cancel()
                later.set_result(at_once(self.model.events(queue, after=after, limit=limit)))
            return later.done()

        self._readers.append(read)
        return later

    def _note(self, settlements: Sequence[Settlement], answer: Any) -> None:
        for asked, settled in zip(settlements, answer, strict=True):
            fence, ending = attempt_of(asked.fence), asked.ending
            delay = ending.delay if isinstance(ending, Again) else None
            self.told.append(Told(job=asked.job_id, fence=fence, accepted=settled.accepted, delay=delay))


def _answer(later: "asyncio.Future[Page]", page: Page) -> None:
    if not later.done():
        later.set_result(page)


def at_once(work: Coroutine[Any, Any, T]) -> T:
    """Return what something comes to that never waits, as no verb of the model does."""
    try:
        work.send(None)
    except StopIteration as end:
        return end.value
    work.close()
    raise AssertionError("a verb of the model waited")
