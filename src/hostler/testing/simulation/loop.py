"""An event loop without a clock, sockets or threads of its own: time jumps, and a seed decides who goes first.

What runs belongs to an *owner*: a process, a connection, a machine. One owner's callbacks run in the order in which
asyncio promises to run them; between owners the seed chooses. An owner may be frozen, as SIGSTOP does it, and for
good, as SIGKILL does: nothing of it runs any more, no `finally` either.
"""

import asyncio
import contextvars
import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar
from typing import Any, Final, TypeVar, cast
from weakref import WeakKeyDictionary

from hostler.kernel.units import Seconds

T = TypeVar("T")

OWNER: Final[ContextVar[str]] = ContextVar("owner", default="world")
STEP: Final[Seconds] = 0.000_05
"""Longest that one callback takes; how long each does is drawn."""
LAST_ROUNDS: Final = 5
LAST_SECONDS: Final[Seconds] = 60.0
"""How often, and how long each time, what still runs at the end is given to stop."""


class StalledError(Exception):
    """Nothing is left that could ever run, and what was waited for has not come."""


class VirtualLoop(asyncio.BaseEventLoop):
    """Runs callbacks one by one; when none is ready, time is that of the next timer."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        dice = random.Random(seed)  # noqa: S311 - a schedule, not a secret
        self._elapsed = 0.0
        self._line = _Line(dice)
        self._dice = dice
        self._ready = self._line
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._numbers = itertools.count()
        self._selector = _NoSockets()
        self._tasks: WeakKeyDictionary[asyncio.Task[Any], str] = WeakKeyDictionary()

    def time(self) -> float:
        """Return the seconds that have passed."""
        return self._elapsed

    def call_soon(  # pyright: ignore[reportIncompatibleMethodOverride] - typeshed has a parameter pack here
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        """Run a callback next, or when its owner has its turn."""
        handle = asyncio.Handle(callback, args, self, context)
        self._line.append(handle)
        return handle

    def call_later(  # pyright: ignore[reportIncompatibleMethodOverride] - as above
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Run a callback after this time."""
        return self.call_at(self._elapsed + delay, callback, *args, context=context)

    def call_at(  # pyright: ignore[reportIncompatibleMethodOverride] - as above
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Run a callback at this time."""
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        heapq.heappush(self._timers, (when, next(self._numbers), timer))
        return timer

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Do nothing: it is left out when its time comes."""

    def _run_once(self) -> None:
        """Let the time of one callback pass, or that until the next timer, and run one callback."""
        timers = self._timers
        while timers and timers[0][2].cancelled():
            heapq.heappop(timers)
        if len(self._line):
            self._elapsed += self._dice.random() * STEP
        elif timers:
            self._elapsed = max(self._elapsed, timers[0][0])
        else:
            raise StalledError("nothing is left that could run")
        while timers and timers[0][0] <= self._elapsed:
            self._line.append(heapq.heappop(timers)[2])
        handle = self._line.popleft()
        if not handle.cancelled():
            run = getattr(handle, "_run")  # noqa: B009 - a loop runs handles in no other way
            run()

    def start(self, work: Coroutine[Any, Any, T], owner: str) -> asyncio.Task[T]:
        """Run something as this owner, and all that it starts."""
        context = contextvars.copy_context()
        context.run(OWNER.set, owner)
        return self.create_task(work, name=f"{owner}", context=context)

    def create_task(self, coro: Any, *, name: object = None, context: Context | None = None) -> asyncio.Task[Any]:
        """Create a task; it is the present owner's unless the context says otherwise."""
        task = super().create_task(coro, name=None if name is None else str(name), context=context)
        self._tasks[task] = OWNER.get() if context is None else context.get(OWNER, "world")
        return task

    def tasks_of(self, owner: str) -> list[asyncio.Task[Any]]:
        """Return what this owner has not ended."""
        return [task for task, whose in self._tasks.items() if whose == owner and not task.done()]

    def freeze(self, owner: str) -> None:
        """Run nothing of this owner until it is thawed."""
        self._line.freeze(owner)

    def thaw(self, owner: str) -> None:
        """Go on where it was."""
        self._line.thaw(owner)

    def end(self) -> None:
        """End all that still runs, killed owners too, and close; what goes wrong meanwhile is nobody's concern."""
        self.set_exception_handler(_unheard)
        self._line.thaw_all()
        for _ in range(LAST_ROUNDS):
            tasks = [task for task in self._tasks if not task.done()]
            if not tasks:
                break
            for task in tasks:
                task.cancel()
            self.run_until_complete(asyncio.wait(tasks, timeout=LAST_SECONDS))
        self.run_until_complete(self.shutdown_asyncgens())
        self.close()

    def _write_to_self(self) -> None:
        """Do nothing: there are no other threads."""


def _unheard(_: asyncio.AbstractEventLoop, __: dict[str, Any]) -> None:
    """Say nothing."""


class _NoSockets:
    """Stands in for what a loop waits for sockets with: it has none, and only closes it."""

    def close(self) -> None:
        """Do nothing."""


class _Line:
    """The callbacks that are ready, one line for each owner; stands in for the deque of the base class."""

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice
        self._open: dict[str, deque[asyncio.Handle]] = {}
        self._held: dict[str, deque[asyncio.Handle]] = {}
        """Lines of those that are frozen, empty ones too."""
        self._length = 0

    def freeze(self, owner: str) -> None:
        """Hold back what this owner has and gets."""
        if owner not in self._held:
            self._held[owner] = self._open.pop(owner, deque())
            self._length -= len(self._held[owner])

    def thaw(self, owner: str) -> None:
        """Let it go on."""
        if held := self._held.pop(owner, None):
            self._open[owner] = held
            self._length += len(held)

    def thaw_all(self) -> None:
        """Let everybody go on."""
        for owner in tuple(self._held):
            self.thaw(owner)

    def __len__(self) -> int:
        return self._length

    def append(self, handle: asyncio.Handle) -> None:
        context = cast("Context", getattr(handle, "_context"))  # noqa: B009 - a handle shows it in no other way
        owner = context.get(OWNER, "world")
        if (held := self._held.get(owner)) is not None:
            held.append(handle)
            return
        self._length += 1
        line = self._open.get(owner)
        if line is None:
            self._open[owner] = deque((handle,))
        else:
            line.append(handle)

    def popleft(self) -> asyncio.Handle:
        if not self._open:  # frozen since the loop counted
            return _NOTHING
        owners = list(self._open)
        owner = owners[int(self._dice.random() * len(owners))]
        line = self._open[owner]
        handle = line.popleft()
        self._length -= 1
        if not line:
            del self._open[owner]
        return handle

    def clear(self) -> None:
        self._open.clear()
        self._held.clear()
        self._length = 0


class _Nothing(asyncio.Handle):
    """A callback that was cancelled."""

    def __init__(self) -> None:
        self._cancelled = True


_NOTHING: Final = _Nothing()
