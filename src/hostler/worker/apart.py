"""One thing done for many queues, each by itself: in a cluster one may not answer, and no other waits for it."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import Any


class Apart:
    """Does `do` for each queue in a task of its own; a queue whose last turn has not ended is left out of the next."""

    def __init__(self, do: Callable[[str], Coroutine[Any, Any, None]], *, name: str) -> None:
        self._do = do
        self._name = name
        self._running: dict[str, asyncio.Task[None]] = {}

    def turn(self, queues: Iterable[str]) -> None:
        """Begin a turn; raises what broke one before it."""
        for queue in queues:
            task = self._running.get(queue)
            if task is not None and not task.done():
                continue
            if task is not None:
                task.result()
            self._running[queue] = asyncio.create_task(self._do(queue), name=f"{self._name} {queue}")

    def only(self, queues: Iterable[str]) -> None:
        """End what is under way for others than these."""
        for queue in self._running.keys() - set(queues):
            self._running.pop(queue).cancel()

    async def ended(self) -> None:
        """Return when one that is under way has ended; with none, never."""
        if self._running:
            await asyncio.wait(self._running.values(), return_when=asyncio.FIRST_COMPLETED)
        else:
            await asyncio.get_running_loop().create_future()

    async def close(self) -> None:
        """End what is under way."""
        running = [task for task in self._running.values() if not task.done()]
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)
