"""Queues whose server does not answer while others do: set aside, and asked again where nobody waits for them."""

import asyncio
from collections.abc import Callable, Sequence

import msgspec
import structlog
from msgspec import Struct

from hostler.contracts.lease import ClaimRequest, Lease
from hostler.kernel.errors import HostlerError
from hostler.ports.broker import Broker
from hostler.ports.clock import Dice
from hostler.worker.patience import persist

_LOG = structlog.stdlib.get_logger("hostler.worker.aside")


class Unanswered(Struct, frozen=True, kw_only=True):
    """A claim, and what became of it as far as is known."""

    request: ClaimRequest
    operation: str
    doubtful: bool
    """Whether it may have been executed: then there may be leases that nobody runs or renews."""


class Aside:
    """Asks each by the operation of its claim, for nothing new.

    So it gets what the first try was given, if it was executed, and no more: room is promised to the queues that
    go on. `came` is told these leases, `back` that a queue answers.
    """

    def __init__(
        self,
        broker: Broker,
        *,
        dice: Dice,
        came: Callable[[Unanswered, Sequence[Lease]], None],
        back: Callable[[], None],
    ) -> None:
        self._broker = broker
        self._dice = dice
        self._came = came
        self._back = back
        self._asking: dict[str, asyncio.Task[None]] = {}
        self._doubts: set[str] = set()
        self._sure = asyncio.Event()
        self._sure.set()

    def __contains__(self, queue: str) -> bool:
        """Tell whether a queue is to be left out of the rounds."""
        return queue in self._asking

    def put(self, claim: Unanswered) -> None:
        """Set a claim's queue aside until it answers."""
        queue = claim.request.queue
        if claim.doubtful:
            self._doubts.add(queue)
            self._sure.clear()
        self._asking[queue] = asyncio.create_task(self._ask(claim), name=f"ask {queue}")

    async def sure(self) -> None:
        """Return when no lease can have been given that is not known here."""
        await self._sure.wait()

    async def close(self) -> None:
        """Ask no more."""
        asking = tuple(self._asking.values())
        for task in asking:
            task.cancel()
        if asking:
            await asyncio.wait(asking)

    async def _ask(self, claim: Unanswered) -> None:
        request = msgspec.structs.replace(claim.request, limit=0)
        try:
            leases = await persist(
                lambda: self._broker.claim(request, operation=claim.operation),
                dice=self._dice,
                what=f"ask {request.queue} again",
            )
            self._came(claim, leases)
        except HostlerError as error:
            _LOG.warning("a queue was asked in vain", queue=request.queue, code=error.code, error=error.message)
        finally:
            del self._asking[request.queue]
            self._doubts.discard(request.queue)
            if not self._doubts:
                self._sure.set()
            self._back()
