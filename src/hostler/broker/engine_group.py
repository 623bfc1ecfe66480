"""Group commit: callers that wait at the same moment share one call, and nobody waits for company."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class Group(Generic[T, R]):
    """Runs `act` on batches of what callers hand in: at once when idle, else together when the call returns.

    `act` returns one answer per item, in order; what it raises, every caller of that batch gets. Items keep
    their order. A caller that is cancelled no longer waits; what it handed in is done all the same.
    """

    def __init__(self, act: Callable[[Sequence[T]], Awaitable[Sequence[R]]], *, most: int, parallel: int = 2) -> None:
        self._act = act
        self._most = most
        self._parallel = parallel
        self._running = 0
        self._waiting: deque[tuple[T, int, asyncio.Future[R]]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()

    async def do(self, item: T, *, weight: int = 1) -> R:
        """Hand in one item that counts `weight` against the batch limit, and return its answer."""
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, weight, future))
        if self._running < self._parallel:
            self._running += 1
            task = asyncio.create_task(self._drain())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return await future

    async def _drain(self) -> None:
        try:
            while self._waiting:
                await self._one_batch()
        finally:
            self._running -= 1

    async def _one_batch(self) -> None:
        batch = [self._waiting.popleft()]
        weight = batch[0][1]
        while self._waiting and weight + self._waiting[0][1] <= self._most:
            batch.append(self._waiting.popleft())
            weight += batch[-1][1]
        futures = [future for _, _, future in batch]
        try:
            answers = await self._act([item for item, _, _ in batch])
        except asyncio.CancelledError:
            for future in futures:
                future.cancel()
            raise
        except Exception as error:  # noqa: BLE001 - handed to every caller of the batch
            for future in futures:
                if not future.done():
                    future.set_exception(error)
            return
        for future, answer in zip(futures, answers, strict=True):
            if not future.done():
                future.set_result(answer)
