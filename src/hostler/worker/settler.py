"""How attempts end: settlements in batches, shard by shard, repeated with the same content until they are answered."""

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence

import structlog

from hostler.contracts.failure import Failure, FailureClass
from hostler.contracts.lease import Die, Settled, Settlement, Succeed
from hostler.kernel.errors import HostlerError
from hostler.policy.sharding import shard_of
from hostler.ports.broker import Broker
from hostler.ports.clock import Dice
from hostler.worker.patience import passing, pause

_LOG = structlog.stdlib.get_logger("hostler.worker.settler")

BATCH = 64
"""Most settlements of one call."""
CALLS = 4
"""Calls of one shard that are under way at once: what ends meanwhile does not wait for their answers."""

_Told = tuple[Settlement, "asyncio.Future[Settled | None]"]
"""A settlement and who waits for the word on it."""


class Settlers:
    """One for each shard: those on one server of a cluster may have to wait, and no others with them."""

    def __init__(self, broker: Broker, worker: str, *, dice: Dice) -> None:
        self._broker = broker
        self._worker = worker
        self._dice = dice
        self._settlers: dict[str, Settler] = {}

    async def settle(self, settlement: Settlement) -> Settled | None:
        """Return the broker's word on the end of a job; see `Settler`."""
        shard = shard_of(settlement.job_id)
        settler = self._settlers.get(shard)
        if settler is None:
            settler = Settler(self._broker, self._worker, dice=self._dice)
            self._settlers[shard] = settler
        return await settler.settle(settlement)

    async def close(self) -> None:
        """Stop sending; what was not answered yet stays as the broker has it."""
        for settler in tuple(self._settlers.values()):
            await settler.close()


class Settler:
    """Settles what is of one shard; safe to repeat, since the broker knows an ending by its fence."""

    def __init__(self, broker: Broker, worker: str, *, dice: Dice) -> None:
        self._broker = broker
        self._worker = worker
        self._dice = dice
        self._queue: deque[_Told] = deque()
        self._senders: set[asyncio.Task[None]] = set()
        self._beginning = False
        """Whether a sender is about to take what there is."""

    async def settle(self, settlement: Settlement) -> Settled | None:
        """Return the broker's word on one settlement; None when it was refused as it is, which is logged.

        While the engine cannot be reached this waits: the lease may still be ours when it is back, and only
        the broker knows.
        """
        answer: asyncio.Future[Settled | None] = asyncio.get_running_loop().create_future()
        self._queue.append((settlement, answer))
        self._begin()
        return await answer

    async def close(self) -> None:
        """Stop sending; what was not answered yet stays as the broker has it."""
        _give_up(self._queue)
        self._queue.clear()
        senders = tuple(self._senders)
        for sender in senders:
            sender.cancel()
        if senders:
            await asyncio.wait(senders)

    def _begin(self) -> None:
        if self._queue and not self._beginning and len(self._senders) < CALLS:
            self._beginning = True
            sender = asyncio.create_task(self._send(), name="settle")
            self._senders.add(sender)
            sender.add_done_callback(self._ended)

    def _ended(self, sender: asyncio.Task[None]) -> None:
        self._senders.discard(sender)
        if sender.cancelled() or sender.exception() is not None:
            self._beginning = False
        self._begin()  # what was told between a sender's last look and now has nobody yet

    async def _send(self) -> None:
        self._beginning = False
        while self._queue:
            batch = [self._queue.popleft() for _ in range(min(BATCH, len(self._queue)))]
            try:
                await self._sent(batch)
            except BaseException:  # a defect, or the end: whoever waits must not wait for ever
                _LOG.exception("settling broke", jobs=[settlement.job_id for settlement, _ in batch])
                raise
            finally:
                _give_up(batch)

    async def _sent(self, batch: Sequence[_Told]) -> None:
        """Return once each of them has its answer."""
        failures = 0
        while True:
            try:
                words = await self._broker.settle(self._worker, [settlement for settlement, _ in batch])
            except HostlerError as error:
                if not passing(error):
                    break
                await asyncio.sleep(pause(failures, self._dice))
                failures += 1
            else:
                for (_, answer), word in zip(batch, words, strict=True):
                    _answer(answer, word)
                return
        for settlement, answer in batch:  # one of them spoilt the batch
            _answer(answer, await self._alone(settlement))

    async def _alone(self, settlement: Settlement) -> Settled | None:
        """Settle one that may be the one that spoilt its batch; a result that is refused becomes a failure."""
        failures = 0
        while True:
            try:
                (word,) = await self._broker.settle(self._worker, [settlement])
            except HostlerError as error:
                if passing(error):
                    await asyncio.sleep(pause(failures, self._dice))
                    failures += 1
                    continue
                if not isinstance(settlement.ending, Succeed):
                    _LOG.exception("an ending was refused", job=settlement.job_id, fence=settlement.fence)
                    return None
                words = f"the broker refused the result: {error.message}"
                settlement = Settlement(
                    job_id=settlement.job_id,
                    fence=settlement.fence,
                    ending=Die(failure=Failure(class_=FailureClass.INTERNAL, message=words[:2000])),
                    endpoint=settlement.endpoint,
                )
            else:
                return word


def _give_up(told: Iterable[_Told]) -> None:
    """Who has no answer by now gets none."""
    for _, answer in told:
        answer.cancel()


def _answer(answer: asyncio.Future[Settled | None], word: Settled | None) -> None:
    if not answer.done():
        answer.set_result(word)
