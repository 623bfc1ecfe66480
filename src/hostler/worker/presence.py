"""How a worker is seen: its record, announced in order by its heartbeat."""

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

from hostler.contracts.worker import Worker
from hostler.ports.broker import Broker
from hostler.ports.clock import Clock, Dice
from hostler.ports.registry import Registry
from hostler.worker.board import Board
from hostler.worker.heartbeat import Heartbeat, HeartbeatTask, HeartbeatThread, Link, News, Tempo


class Presence:
    """Shows records through a heartbeat, which beats in a thread of its own when it has a `link`.

    Without one it beats on the work loop, through the objects given in `shared`. `hear` is called on the work
    loop with what the heartbeat found.
    """

    def __init__(
        self,
        board: Board,
        shared: tuple[Broker, Registry],
        link: Link | None,
        tempo: Tempo,
        *,
        clock: Clock,
        dice: Dice,
        hear: Callable[[News], None],
    ) -> None:
        self._board = board
        self._hear = hear
        self._waiters: list[tuple[int, asyncio.Future[None]]] = []
        self._shown = 0
        self._told = 0
        self._loop = asyncio.get_running_loop()
        self._heart = Heartbeat(
            link or _sharing(shared),
            board,
            tempo,
            clock=clock,
            dice=dice,
            tell=self._receive,
            watched=threading.get_ident() if link is not None else None,
        )
        self._host = HeartbeatThread(self._heart) if link is not None else HeartbeatTask(self._heart)

    @property
    def blocked(self) -> tuple[str, ...]:
        """Return the stack of the work loop when it was last found blocked; empty when it never was."""
        return self._heart.blocked

    def start(self) -> None:
        """Begin to beat."""
        self._host.start()

    def show(self, record: Worker) -> None:
        """Announce a record at once, after those before it."""
        self._shown = self._board.show(record)
        self._heart.poke()

    def refresh(self, record: Worker) -> None:
        """Announce a record with the next beat."""
        self._board.refresh(record)

    async def announced(self) -> None:
        """Return when all that was shown so far is announced."""
        if self._told < self._shown:
            waiter: asyncio.Future[None] = self._loop.create_future()
            self._waiters.append((self._shown, waiter))
            await waiter

    async def end(self, state: str) -> None:
        """Announce what is left, withdraw as `state`, and beat no more; bounded."""
        await self._host.end(state)

    def _receive(self, news: News) -> None:
        """Take news in the heartbeat's thread and hand it to the work loop."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._take, news)

    def _take(self, news: News) -> None:
        self._told = max(self._told, news.announced)
        for number, waiter in self._waiters:
            if number <= self._told and not waiter.done():
                waiter.set_result(None)
        self._waiters = [each for each in self._waiters if not each[1].done()]
        self._hear(news)


def _sharing(shared: tuple[Broker, Registry]) -> Link:
    @asynccontextmanager
    async def link() -> AsyncGenerator[tuple[Broker, Registry]]:
        yield shared

    return link
