"""How attempts end: settlements in batches, queue by queue, repeated with the same content until they are answered."""

import asyncio
from collections.abc import Callable

import structlog

from hostler.contracts.failure import Failure, FailureClass
from hostler.contracts.lease import Die, Settled, Settlement, Succeed
from hostler.kernel.errors import HostlerError
from hostler.ports.broker import Broker
from hostler.ports.clock import Dice
from hostler.worker.patience import local, passing, pause

_LOG = structlog.stdlib.get_logger("hostler.worker.settler")

BATCH = 64
"""Most settlements of one call."""


class Settlers:
    """One for each queue: those on one server of a cluster may have to wait, and no others with them."""

    def __init__(self, broker: Broker, worker: str, *, dice: Dice) -> None:
        self._broker = broker
        self._worker = worker
        self._dice = dice
        self._settlers: dict[str, Settler] = {}
        self.away: Callable[[str], None] = lambda _: None
        """Hears of a queue each time that its server alone does not answer."""

    async def settle(self, settlement: Settlement, *, queue: str) -> Settled | None:
        """Return the broker's word on the end of a job of this queue; see `Settler`."""
        settler = self._settlers.get(queue)
        if settler is None:
            settler = Settler(self._broker, self._worker, dice=self._dice, away=lambda: self.away(queue))
            self._settlers[queue] = settler
        return await settler.settle(settlement)

    async def close(self) -> None:
        """Stop sending; what was not answered yet stays as the broker has it."""
        for settler in tuple(self._settlers.values()):
            await settler.close()


class Settler:
    """Settles what is of one queue; safe to repeat, since the broker knows an ending by its fence."""

    def __init__(self, broker: Broker, worker: str, *, dice: Dice, away: Callable[[], None] = lambda: None) -> None:
        self._broker = broker
        self._worker = worker
        self._dice = dice
        self._away = away
        self._queue: list[tuple[Settlement, asyncio.Future[Settled | None]]] = []
        self._sender: asyncio.Task[None] | None = None

    async def settle(self, settlement: Settlement) -> Settled | None:
        """Return the broker's word on one settlement; None when it was refused as it is, which is logged.

        While the engine cannot be reached this waits: the lease may still be ours when it is back, and only
        the broker knows.
        """
        answer: asyncio.Future[Settled | None] = asyncio.get_running_loop().create_future()
        self._queue.append((settlement, answer))
        if self._sender is None or self._sender.done():
            self._sender = asyncio.create_task(self._send(), name="settle")
        return await answer

    async def close(self) -> None:
        """Stop sending; what was not answered yet stays as the broker has it."""
        if self._sender is not None:
            self._sender.cancel()
            await asyncio.wait({self._sender})
        for _, answer in self._queue:
            answer.cancel()

    async def _send(self) -> None:
        failures = 0
        while self._queue:
            batch = self._queue[:BATCH]
            try:
                words = await self._broker.settle(self._worker, [settlement for settlement, _ in batch])
                for (_, answer), word in zip(batch, words, strict=True):
                    _answer(answer, word)
            except HostlerError as error:
                if passing(error):
                    if local(error):
                        self._away()
                    await asyncio.sleep(pause(failures, self._dice))
                    failures += 1
                    continue
                await self._each(batch)
            except BaseException:  # a defect, or the end: whoever waits must not wait for ever
                _LOG.exception("settling broke", jobs=[settlement.job_id for settlement, _ in batch])
                self._drop(batch)
                raise
            failures = 0
            self._drop(batch)

    def _drop(self, batch: list[tuple[Settlement, asyncio.Future[Settled | None]]]) -> None:
        """Have done with a batch; who has no answer by now gets none."""
        del self._queue[: len(batch)]
        for _, answer in batch:
            answer.cancel()

    async def _each(self, batch: list[tuple[Settlement, asyncio.Future[Settled | None]]]) -> None:
        """Settle one by one, since one of them spoilt the batch."""
        try:
            for settlement, answer in batch:
                _answer(answer, await self._alone(settlement))
        except BaseException:  # a defect, or the end: whoever waits must not wait for ever
            self._drop(batch)
            raise

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


def _answer(answer: asyncio.Future[Settled | None], word: Settled | None) -> None:
    if not answer.done():
        answer.set_result(word)
