"""The worker's sign of life: renews leases, announces, takes commands, and watches the work loop from outside."""

import asyncio
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

import msgspec
import structlog

from hostler.contracts.lease import Renewal
from hostler.contracts.worker import Worker, WorkerState
from hostler.kernel.errors import HostlerError, StateConflictError
from hostler.kernel.units import Seconds
from hostler.ports.broker import Broker
from hostler.ports.clock import Clock, Dice
from hostler.ports.registry import Registry
from hostler.worker.apart import Apart
from hostler.worker.board import Board
from hostler.worker.patience import pause

_LOG = structlog.stdlib.get_logger("hostler.worker.heartbeat")

Link = Callable[[], AbstractAsyncContextManager[tuple[Broker, Registry]]]
"""Opens a connection of the heartbeat's own, on the loop that calls it."""

END_LIMIT: Seconds = 3.0
"""How long the last announcements may take when the worker ends."""


@dataclass(frozen=True, kw_only=True)
class Tempo:
    """How often the heart beats, and what it takes for a stuck loop; all in seconds."""

    beat: Seconds = 3.0
    ttl: Seconds = 10.0
    pulse: Seconds = 0.2
    """How often the work loop shows that it turns."""
    sample: Seconds = 0.25
    """How often the work loop's age is looked at, and whether leases are to be renewed sooner than was said before."""
    blocked_after: Seconds = 0.75
    """A work loop that has not turned for this long is reported with its stack, once."""
    stuck_after: Seconds = 30.0
    """One that has not turned for this long loses its leases: they are renewed no more."""


@dataclass(frozen=True, kw_only=True)
class News:
    """What the heartbeat tells the work loop."""

    renewal: Renewal | None = None
    commands: tuple[str, ...] = ()
    catalogue: str | None = None
    """Said when it is another one than before (`Heard.catalogue`)."""
    announced: int = 0
    """Number of the last record announced."""


class Heartbeat:
    """Beats on whatever loop runs it; `tell` is called there, and must be safe for that."""

    def __init__(
        self,
        link: Link,
        board: Board,
        tempo: Tempo,
        *,
        clock: Clock,
        dice: Dice,
        tell: Callable[[News], None],
        watched: int | None = None,
    ) -> None:
        self._link = link
        self._board = board
        self._tempo = tempo
        self._clock = clock
        self._dice = dice
        self._tell = tell
        self._watched = watched
        self._ending: str | None = None
        self._wake: tuple[asyncio.AbstractEventLoop, asyncio.Event] | None = None
        self._reported = False
        self._looked_at = clock.monotonic()
        self._failures = 0
        self._catalogue: str | None = None
        self.blocked: tuple[str, ...] = ()
        """Stack of the work loop when it was last found blocked, innermost frame last."""

    async def run(self) -> None:
        """Beat until `end`, through outages of the engine; then withdraw."""
        self._wake = (asyncio.get_running_loop(), asyncio.Event())
        while True:
            try:
                async with self._link() as (broker, registry):
                    await self._beat_on(broker, registry)
                    return
            except Exception as error:  # noqa: BLE001 - a heart that stops beating would lose every lease
                if self._ending is not None:
                    return
                if self._failures == 0:
                    _LOG.warning("heartbeat has no engine, trying on", error=str(error))
                await self._rest(pause(self._failures, self._dice))
                self._failures += 1

    def poke(self) -> None:
        """Announce what is new at once; safe from any thread."""
        if self._wake is not None:
            loop, event = self._wake
            if not loop.is_closed():
                loop.call_soon_threadsafe(event.set)

    def end(self, state: str = "stopped") -> None:
        """Announce what is left, withdraw as `state`, and return from `run`; safe from any thread."""
        self._ending = state
        self.poke()

    async def _beat_on(self, broker: Broker, registry: Registry) -> None:
        """Renew and announce, neither waiting for the other: in a cluster one of them may not be answered."""
        renewals = Apart(partial(self._renew, broker), name="renew")
        announcing = asyncio.create_task(self._announce_on(registry), name="announce")
        beaten = float("-inf")
        try:
            while not announcing.done():
                now = self._clock.monotonic()
                self._look(now)
                due = beaten + self._interval()  # anew each time: a lease that came since may be shorter than the rest
                if now >= due:
                    renewals.turn(self._board.queues())
                    beaten, due = now, now + self._interval()
                await self._rest(min(self._tempo.sample, due - self._clock.monotonic()))
            announcing.result()
        finally:
            announcing.cancel()
            await asyncio.wait({announcing})
            await renewals.close()

    async def _announce_on(self, registry: Registry) -> None:
        """Announce and take commands, until the last word was said."""
        quiet, beaten = self._clock.monotonic(), float("-inf")
        while True:
            now = self._clock.monotonic()
            due = beaten + self._interval()
            if now >= quiet and (now >= due or self._board.next() is not None or self._ending is not None):
                try:
                    if await self._announce(registry, beat=now >= due):
                        await self._commands(registry)
                    if now >= due:
                        beaten, due = now, now + self._interval()
                    if self._ending is not None:
                        last = self._board.record
                        reason = last.reason if last is not None else None
                        await registry.withdraw(self._board.worker, state=self._ending, reason=reason or "")
                        return
                    self._failures = 0
                except HostlerError as error:
                    if self._failures == 0:
                        _LOG.warning("heartbeat is not answered, beating on", code=error.code, error=error.message)
                    quiet = now + pause(self._failures, self._dice)
                    self._failures += 1
            await self._rest(min(self._tempo.sample, max(quiet, due) - self._clock.monotonic()))

    def _interval(self) -> Seconds:
        shortest = self._board.shortest
        return self._tempo.beat if shortest is None else min(self._tempo.beat, max(0.02, shortest / 3))

    async def _announce(self, registry: Registry, *, beat: bool) -> bool:
        """Say what is new, and once in a beat how things are; return whether commands may wait."""
        told = waiting = False
        while (change := self._board.next()) is not None:
            number, record = change
            waiting = await self._say(registry, record)
            self._board.announced(number)
            self._tell(News(announced=number))
            told = True
        if beat and not told and self._ending is None and (latest := self._board.record) is not None:
            waiting = await self._say(registry, latest)
        return waiting

    async def _say(self, registry: Registry, record: Worker) -> bool:
        """Announce one record, and tell whether commands may wait.

        Known as ended (by a restore, or by another process of our name), begin anew.
        """
        stamped = self._stamped(record)
        try:
            heard = await registry.announce(stamped, ttl=self._tempo.ttl)
        except StateConflictError:
            anew = msgspec.structs.replace(stamped, state=WorkerState.STARTING)
            await registry.announce(anew, ttl=self._tempo.ttl)
            heard = await registry.announce(stamped, ttl=self._tempo.ttl)
        if heard.catalogue != self._catalogue:
            self._catalogue = heard.catalogue
            self._tell(News(catalogue=heard.catalogue))
        return heard.commands

    async def _renew(self, broker: Broker, queue: str) -> None:
        """Renew the leases of one queue, through an outage of its server."""
        failures = 0
        while (leases := self._board.held(queue)) and not self._stuck(self._clock.monotonic()):
            try:
                self._tell(News(renewal=await broker.renew(self._board.worker, leases)))
            except HostlerError as error:
                if failures == 0:
                    _LOG.warning("leases are not renewed, trying on", queue=queue, code=error.code, error=error.message)
                await asyncio.sleep(pause(failures, self._dice))
                failures += 1
            else:
                return

    async def _commands(self, registry: Registry) -> None:
        commands = await registry.commands(self._board.worker)
        if commands:
            self._tell(News(commands=commands))

    def _age(self, now: float) -> Seconds:
        return max(0.0, now - self._board.turned)

    def _stuck(self, now: float) -> bool:
        return self._age(now) > self._tempo.stuck_after

    def _stamped(self, record: Worker) -> Worker:
        """Return the record with times, the loop's age, and no offers from a loop that is stuck."""
        now = self._clock.now()
        age = self._age(self._clock.monotonic())
        changes: dict[str, object] = {
            "seen_at": now,
            "expires_at": now + timedelta(seconds=self._tempo.ttl),
            "loop_age": age,
        }
        if age > self._tempo.blocked_after and self.blocked and record.state is not WorkerState.STARTING:
            changes["reason"] = f"the work loop has not turned for {age:.1f} s, it is in {self.blocked[-1]}"
        if age > self._tempo.stuck_after:
            changes["offers"] = ()
        return msgspec.structs.replace(record, **changes)

    def _look(self, now: float) -> None:
        """Report a blocked work loop once, with the stack that it is in."""
        age = self._age(now)
        away = now - self._looked_at > self._tempo.blocked_after
        self._looked_at = now
        if away:
            return  # this thread did not run either: the whole process was frozen, not its loop
        if age <= self._tempo.blocked_after:
            self._reported = False
        elif not self._reported and self._watched is not None:
            self._reported = True
            self.blocked = stack_of(self._watched)
            _LOG.error("the work loop is blocked", age_s=round(age, 2), frames=self.blocked)

    async def _rest(self, seconds: Seconds) -> None:
        if self._wake is None:
            return
        event = self._wake[1]
        try:
            async with asyncio.timeout(max(0.001, seconds)):
                await event.wait()
        except TimeoutError:
            return
        event.clear()


def stack_of(thread: int) -> tuple[str, ...]:
    """Return where a thread is now, innermost frame last; empty when it has ended."""
    frames = sys._current_frames()  # noqa: SLF001 - no other way  # pyright: ignore[reportPrivateUsage] - no other way
    frame = frames.get(thread)
    stack = traceback.extract_stack(frame)[-12:] if frame is not None else []
    return tuple(f"{each.filename}:{each.lineno} in {each.name}" for each in stack)


class HeartbeatThread:
    """Runs a heartbeat on an event loop and in a thread of its own."""

    def __init__(self, heart: Heartbeat) -> None:
        self._heart = heart
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    async def end(self, state: str) -> None:
        """Let it announce what is left and withdraw, `END_LIMIT` at most."""
        self._heart.end(state)
        if self._thread.ident is not None:  # a worker may end before its heart has begun to beat
            await asyncio.to_thread(self._thread.join, END_LIMIT)

    def _beat(self) -> None:
        asyncio.run(self._heart.run())


class HeartbeatTask:
    """Runs a heartbeat on the work loop itself: for tests and programs of one thread; it cannot see a blocked loop."""

    def __init__(self, heart: Heartbeat) -> None:
        self._heart = heart
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.create_task(self._heart.run(), name="heartbeat")

    async def end(self, state: str) -> None:
        """Let it announce what is left and withdraw, `END_LIMIT` at most."""
        self._heart.end(state)
        if self._task is not None:
            _, late = await asyncio.wait({self._task}, timeout=END_LIMIT)
            if late:
                self._task.cancel()
                await asyncio.wait(late)  # whoever ends a worker finds nothing of it running
