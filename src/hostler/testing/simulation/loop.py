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
import weakref
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar
from typing import Any, Final, TypeVar

from hostler.kernel.units import Seconds

T = TypeVar("T")

STEP: Final[Seconds] = 0.000_05
"""Longest that one callback takes; how long each does is drawn."""
LAST_ROUNDS: Final = 5
LAST_SECONDS: Final[Seconds] = 60.0
"""How often, and how long each time, what still runs at the end is given to stop."""


class StalledError(Exception):
    """Nothing is left that could ever run, and what was waited for has not come."""


class _Owner:
    """One owner's callbacks that are ready, and all tasks that were ever its."""

    __slots__ = ("frozen", "line", "name", "tasks")

    def __init__(self, name: str) -> None:
        self.name = name
        self.line: deque[_Handle | _Timer] = deque()
        self.frozen = False
        self.tasks: list[weakref.ref[asyncio.Task[Any]]] = []


OWNER: Final[ContextVar[_Owner]] = ContextVar("owner")
"""Who runs; where it is not set, the world does."""


class _Handle(asyncio.Handle):
    """A callback; as that of asyncio, and made in a third of the time."""

    __slots__ = ("args", "callback", "context", "gone")

    def __init__(self, callback: Callable[..., object], args: tuple[Any, ...], context: Context | None) -> None:
        self.callback: Callable[..., object] | None = callback
        self.args = args
        self.context = contextvars.copy_context() if context is None else context
        self.gone = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.callback!r}>"

    def cancel(self) -> None:
        self.gone, self.callback, self.args = True, None, ()

    def cancelled(self) -> bool:
        return self.gone


class _Timer(asyncio.TimerHandle):
    """A callback with a time; as above."""

    __slots__ = ("args", "callback", "context", "gone", "moment")

    def __init__(
        self, moment: float, callback: Callable[..., object], args: tuple[Any, ...], context: Context | None
    ) -> None:
        self.moment = moment
        self.callback: Callable[..., object] | None = callback
        self.args = args
        self.context = contextvars.copy_context() if context is None else context
        self.gone = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.callback!r} at {self.moment}>"

    def cancel(self) -> None:
        self.gone, self.callback, self.args = True, None, ()

    def cancelled(self) -> bool:
        return self.gone

    def when(self) -> float:
        return self.moment


class VirtualLoop(asyncio.BaseEventLoop):
    """Runs callbacks one by one; when none is ready, time is that of the next timer."""

    _stopping: bool
    """Of the base class: somebody stopped the loop."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._dice = random.Random(seed)  # noqa: S311 - a schedule, not a secret
        self._elapsed = 0.0
        self._world = _Owner("world")
        self._owners = {"world": self._world}
        self._open: list[_Owner] = []
        """Those of whom something is ready and that are not frozen."""
        self._timers: list[tuple[float, int, _Timer]] = []
        self._numbers = itertools.count()
        self._selector = _NoSockets()
        self.get_debug = (
            bool  # False, as it would be; every future asks for it, and asks a builtin in a tenth of the time
        )

    def time(self) -> float:
        """Return the seconds that have passed."""
        return self._elapsed

    def call_soon(  # pyright: ignore[reportIncompatibleMethodOverride] - typeshed has a parameter pack here
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        """Run a callback next, or when its owner has its turn."""
        handle = _Handle(callback, args, context)
        self._append(handle)
        return handle

    def call_soon_threadsafe(  # pyright: ignore[reportIncompatibleMethodOverride] - as above
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        """Do the same: there are no other threads."""
        return self.call_soon(callback, *args, context=context)

    def call_later(  # pyright: ignore[reportIncompatibleMethodOverride] - as above
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Run a callback after this time."""
        when = self._elapsed + delay
        timer = _Timer(when, callback, args, context)
        heapq.heappush(self._timers, (when, next(self._numbers), timer))
        return timer

    def call_at(  # pyright: ignore[reportIncompatibleMethodOverride] - as above
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Run a callback at this time."""
        timer = _Timer(when, callback, args, context)
        heapq.heappush(self._timers, (when, next(self._numbers), timer))
        return timer

    def _append(self, handle: "_Handle | _Timer") -> None:
        owner = handle.context.get(OWNER, self._world)
        if not owner.line and not owner.frozen:
            self._open.append(owner)
        owner.line.append(handle)

    def _run_once(self) -> None:
        """Run callbacks one by one until somebody stops the loop: before each, let the time of one pass, or jump."""
        timers, ready, roll = self._timers, self._open, self._dice.random
        while True:
            while timers and timers[0][2].gone:
                heapq.heappop(timers)
            if ready:
                self._elapsed += roll() * STEP
            elif timers:
                self._elapsed = max(self._elapsed, timers[0][0])
            else:
                raise StalledError("nothing is left that could run")
            while timers and timers[0][0] <= self._elapsed:
                timer = heapq.heappop(timers)[2]
                if not timer.gone:
                    self._append(timer)
            if ready and self._run(ready, int(roll() * len(ready))):
                return

    def _run(self, ready: list[_Owner], chosen: int) -> bool:
        """Run the first callback of this owner; tell whether somebody stopped the loop."""
        owner = ready[chosen]
        handle = owner.line.popleft()
        if not owner.line:
            last = ready.pop()
            if last is not owner:
                ready[chosen] = last
        callback = handle.callback
        if callback is not None:
            try:
                handle.context.run(callback, *handle.args)
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as error:  # noqa: BLE001 - as a loop does it
                words = {"message": f"a callback broke: {callback!r}", "exception": error, "handle": handle}
                self.call_exception_handler(words)
        return self._stopping

    def context_of(self, owner: str) -> Context:
        """Return a context in which callbacks are this owner's."""
        context = contextvars.copy_context()
        context.run(OWNER.set, self._owner(owner))
        return context

    def start(self, work: Coroutine[Any, Any, T], owner: str) -> asyncio.Task[T]:
        """Run something as this owner, and all that it starts."""
        return self.create_task(work, name=owner, context=self.context_of(owner))

    def create_task(self, coro: Any, *, name: object = None, context: Context | None = None) -> asyncio.Task[Any]:
        """Create a task; it is the present owner's unless the context says otherwise."""
        task = asyncio.Task(coro, loop=self, name=None if name is None else str(name), context=context)
        owner = OWNER.get(self._world) if context is None else context.get(OWNER, self._world)
        owner.tasks.append(weakref.ref(task))
        return task

    def _owner(self, name: str) -> _Owner:
        owner = self._owners.get(name)
        if owner is None:
            owner = self._owners[name] = _Owner(name)
        return owner

    def tasks_of(self, owner: str) -> list[asyncio.Task[Any]]:
        """Return what this owner has not ended."""
        return [task for each in self._owner(owner).tasks if (task := each()) is not None and not task.done()]

    def freeze(self, owner: str) -> None:
        """Run nothing of this owner until it is thawed."""
        struck = self._owner(owner)
        if struck.line and not struck.frozen:
            self._open.remove(struck)
        struck.frozen = True

    def thaw(self, owner: str) -> None:
        """Go on where it was."""
        struck = self._owner(owner)
        if struck.line and struck.frozen:
            self._open.append(struck)
        struck.frozen = False

    def end(self) -> None:
        """End all that still runs, killed owners too, and close; what goes wrong meanwhile is nobody's concern."""
        self.set_exception_handler(_unheard)
        for owner in self._owners:
            self.thaw(owner)
        for _ in range(LAST_ROUNDS):
            tasks = [task for owner in self._owners for task in self.tasks_of(owner)]
            if not tasks:
                break
            for task in tasks:
                task.cancel()
            self.run_until_complete(asyncio.wait(tasks, timeout=LAST_SECONDS))
        self.run_until_complete(self.shutdown_asyncgens())
        self.close()


def _unheard(_: asyncio.AbstractEventLoop, __: dict[str, Any]) -> None:
    """Say nothing."""


class _NoSockets:
    """Stands in for what a loop waits for sockets with: it has none, and only closes it."""

    def close(self) -> None:
        """Do nothing."""
