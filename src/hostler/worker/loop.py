"""The claim loop: asks each queue for what there is room for, and starts an attempt for every lease."""

import asyncio
import itertools
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

import structlog

from hostler.contracts.lease import ClaimRequest, Lease
from hostler.contracts.offer import Offer, Standing
from hostler.kernel.errors import EngineError
from hostler.kernel.units import Seconds
from hostler.policy.sharding import home_of
from hostler.ports.broker import Broker
from hostler.ports.clock import Clock, Dice
from hostler.worker.aside import Aside, Unanswered
from hostler.worker.attempt import Route
from hostler.worker.capacity import Capacity
from hostler.worker.crew import Crew
from hostler.worker.patience import doubtful, local, passing, pause, persist

_LOG = structlog.stdlib.get_logger("hostler.worker.loop")

CLAIM_MOST = 64
"""Leases of one claim at most."""
STRIDE = 16
"""Attempts that begin at once; batches of so many cost the engine hardly more for each job than larger ones."""
HERD: Seconds = 0.05
"""Longest pause after a wake-up that brought nothing: another worker was faster."""

ELSEWHERE: Seconds = 0.5
"""How often a worker whose own queues keep it busy asks the others."""


class Stock(Protocol):
    """What the worker can do now."""

    def own(self) -> frozenset[str]:
        """Return the queues that its kinds go to unless a submit names another."""
        ...

    def shards(self) -> tuple[str, ...]:
        """Return every queue, or shard of one, that may hold work for it, those of its own first."""
        ...

    def offered(self) -> tuple[tuple[Offer, ...], tuple[Standing, ...]]:
        """Return the healthy offers with what each endpoint may get now, and how they stand."""
        ...

    def route(self, lease: Lease, offers: Sequence[Offer]) -> Route:
        """Return what runs this lease, which was claimed with these offers; `LookupError` when nothing does."""
        ...


class ClaimLoop:
    """Claims while it is open; one claim at a time, so what it asks for is never promised twice.

    A queue whose server does not answer while others may is set aside (`Aside`).

    `name` is the worker's id and one of this run, for operation ids that no other run used; `idle` is called
    when a round brought nothing.
    """

    def __init__(
        self,
        broker: Broker,
        stock: Stock,
        capacity: Capacity,
        crew: Crew,
        *,
        name: tuple[str, str],
        idle_poll: Seconds,
        clock: Clock,
        dice: Dice,
        idle: Callable[[], None],
    ) -> None:
        self._broker = broker
        self._worker, run = name
        self._stock = stock
        self._capacity = capacity
        self._crew = crew
        self._idle_poll = idle_poll
        self._clock = clock
        self._dice = dice
        self._idle = idle
        self._operations = (f"{self._worker}/{run}/{number}" for number in itertools.count(1))
        self._turn = 0
        self._elsewhere_at = float("-inf")
        self._open = asyncio.Event()
        self._calm = asyncio.Event()
        self._calm.set()
        self._waiter: asyncio.Task[bool] | None = None
        self._aside = Aside(broker, dice=dice, came=self._late, back=self._capacity.changed.set)

    def open(self) -> None:
        """Claim from now on."""
        self._open.set()
        self._capacity.changed.set()

    def close(self) -> None:
        """Claim no more; a claim whose answer is not known yet is still asked for it."""
        self._open.clear()

    async def settled(self) -> None:
        """Return when no claim is under way, nor one that may have been given leases without our knowing."""
        await self._calm.wait()
        await self._aside.sure()

    async def run(self) -> None:
        """Claim, until cancelled."""
        fruitless = 0
        try:
            while True:
                await self._open.wait()
                self._capacity.changed.clear()
                self._wait_on()
                if await self._look():
                    fruitless = 0
                    await asyncio.sleep(0)  # attempts that can end at once do so,
                    await asyncio.sleep(0)  # and the engine hears of their ends before it is asked for more
                    continue
                self._idle()
                woken = await self._rest()
                fruitless = fruitless + 1 if woken else 0
                if fruitless > 1:
                    await asyncio.sleep(min(HERD, 0.002 * 2 ** min(fruitless, 8)) * (0.5 + self._dice.roll() / 2))
        finally:
            if self._waiter is not None:
                self._waiter.cancel()
            await self._aside.close()

    async def _look(self) -> int:
        """Ask its own queues; the others when these have nothing, and all of them alike now and then.

        A submit may name any queue, but hardly any does: a busy worker does not pay for empty claims elsewhere.
        """
        queues = self._stock.shards()
        mine = self._stock.own()
        own = frozenset(shard for shard in queues if home_of(shard) in mine)
        now = self._clock.monotonic()
        self._turn += 1
        if now < self._elsewhere_at and (found := await self._round([queue for queue in queues if queue in own])):
            return found
        rest = queues if now >= self._elsewhere_at else [queue for queue in queues if queue not in own]
        self._elsewhere_at = now + ELSEWHERE
        return await self._round(rest)

    async def _round(self, queues: Sequence[str]) -> int:
        """Ask each of these queues once, each time another first; return how many leases came."""
        found = 0
        for step in range(len(queues)):
            queue = queues[(self._turn + step) % len(queues)]
            if queue in self._aside:
                continue
            offers, standings = self._stock.offered()
            if not offers or not self._capacity.free or not self._open.is_set():
                continue
            self._calm.clear()
            try:
                found += await self._claim(queue, offers, standings)
            finally:
                self._calm.set()
        return found

    async def _claim(self, queue: str, offers: tuple[Offer, ...], standings: tuple[Standing, ...]) -> int:
        asked = tuple(self._capacity.offer(offer) for offer in offers)
        request = ClaimRequest(
            queue=queue,
            worker=self._worker,
            limit=min(CLAIM_MOST, self._capacity.free),
            offers=asked,
            standings=standings,
            pools=self._capacity.pools(),
            suspicion=self._crew.suspicion,
        )
        operation = next(self._operations)
        # The answer may be lost on the wire; asked again by the same name, so that no lease is left to nobody.
        try:
            leases = await persist(
                lambda: self._broker.claim(request, operation=operation),
                dice=self._dice,
                what=f"claim from {queue}",
                unless=local,
            )
        except EngineError as error:
            if not local(error):
                raise
            _LOG.warning("a queue does not answer, others go on", queue=queue, code=error.code, error=error.message)
            self._aside.put(Unanswered(request=request, operation=operation, doubtful=doubtful(error)))
            return 0
        await self._start(leases, asked)
        return len(leases)

    async def _start(self, leases: Sequence[Lease], asked: tuple[Offer, ...]) -> None:
        """Start attempts, some at a time: while the next ones begin, the engine hears of those that ended at once."""
        waiting = deque(leases)
        try:
            while waiting:
                for _ in range(min(STRIDE, len(waiting))):
                    self._begin(waiting.popleft(), asked)
                if waiting:
                    await asyncio.sleep(0)
        finally:
            while waiting:  # whoever cancels a claim may not leave leases to nobody
                self._begin(waiting.popleft(), asked)

    def _begin(self, lease: Lease, asked: tuple[Offer, ...], *, late: bool = False) -> None:
        """Start an attempt; a lease that came late may find its room taken."""
        try:
            route = self._stock.route(lease, asked)
        except LookupError as error:
            gone = lease.offer is not None and lease.offer < len(asked) and asked[lease.offer].endpoint is not None
            (self._crew.give_up if gone else self._crew.refuse)(lease, str(error))
            return
        if late and not self._capacity.holds(lease.lane, route.pools):
            self._crew.give_up(lease, "the claim was answered late, and the room for it is taken")
            return
        self._crew.start(lease, route)

    def _late(self, claim: Unanswered, leases: Sequence[Lease]) -> None:
        for lease in leases:
            self._begin(lease, claim.request.offers, late=True)

    def _wait_on(self) -> None:
        """Listen for work before asking for it, so that what comes in between wakes us."""
        if self._waiter is None or self._waiter.done():
            self._waiter = asyncio.create_task(self._listen(), name="wait for work")

    async def _listen(self) -> bool:
        """Return whether work may have come; an adapter that does not wait is waited for."""
        began = self._clock.monotonic()
        timeout = self._idle_poll * (0.75 + 0.25 * self._dice.roll())
        queues = self._stock.shards()
        if not queues:
            await asyncio.sleep(timeout)
            return False
        try:
            woken = await self._broker.wait_for_work(queues, self._worker, timeout=timeout)
        except EngineError as error:
            if not passing(error):
                raise
            await asyncio.sleep(pause(4, self._dice))
            return False
        if not woken and self._clock.monotonic() - began < HERD:
            await asyncio.sleep(HERD)
        return woken

    async def _rest(self) -> bool:
        """Sleep until work may have come, or room was made; tell whether a wake-up said that work came."""
        waiter = self._waiter
        changed = asyncio.create_task(self._capacity.changed.wait(), name="room made")
        try:
            watched = {changed} if waiter is None or not self._capacity.free else {changed, waiter}
            await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
        finally:
            changed.cancel()
        if waiter is not None and waiter.done():
            return waiter.result()
        return False
