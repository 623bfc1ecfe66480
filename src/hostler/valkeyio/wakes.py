"""Wake-ups: one subscription per process tells its workers that work for them may have appeared."""

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any, Final, Protocol, cast

import structlog

from hostler.kernel.errors import HostlerError
from hostler.kernel.units import Seconds
from hostler.valkeyio.client import Client
from hostler.valkeyio.faults import mapped
from hostler.valkeyio.keys import wake_channel

_POLL: Final[Seconds] = 5.0
_RETRY: Final[Seconds] = 0.5

_log = structlog.get_logger(__name__)


class HasBlocking(Protocol):
    """What wake-ups need of an engine."""

    @property
    def blocking(self) -> Client:
        """Return the client for waits and subscriptions."""
        ...


class _PubSub(Protocol):
    async def subscribe(self, *channels: str) -> None: ...

    async def get_message(self, *, ignore_subscribe_messages: bool, timeout: float | None) -> dict[str, Any] | None: ...

    async def aclose(self) -> None: ...


class WakeUps:
    """Listens for the workers of this process; a hint that is lost costs no more than the caller's timeout.

    The subscription begins with the first wait and is made anew after a failure. One event loop only.
    """

    def __init__(self, engine: HasBlocking) -> None:
        self._engine = engine
        self._workers: dict[str, str] = {}
        self._events: dict[str, asyncio.Event] = {}
        self._task: asyncio.Task[None] | None = None
        self._pubsub: _PubSub | None = None

    async def wait(self, queues: Sequence[str], worker: str, *, timeout: Seconds) -> bool:
        """Return True once a wake-up for `worker` came (or came since the last wait), False after `timeout`."""
        event = self._events.setdefault(worker, asyncio.Event())
        await self._listen(queues, worker)
        try:
            async with asyncio.timeout(timeout):
                await event.wait()
        except TimeoutError:
            return False
        event.clear()
        return True

    async def aclose(self) -> None:
        """End the subscription; waits run into their timeouts."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
            self._task = None

    async def _listen(self, queues: Sequence[str], worker: str) -> None:
        channels = {wake_channel(queue, worker): worker for queue in queues}
        new = [channel for channel in channels if channel not in self._workers]
        self._workers |= channels
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="hostler-wake-ups")
        elif new and self._pubsub is not None:
            with contextlib.suppress(HostlerError), mapped():  # the reader notices, and subscribes to all of them anew
                await self._pubsub.subscribe(*new)

    async def _run(self) -> None:
        while True:
            try:
                with mapped():
                    await self._follow()
            except HostlerError as error:
                _log.debug("wake-ups interrupted", reason=error.message)
                await asyncio.sleep(_RETRY)

    async def _follow(self) -> None:
        pubsub = cast("_PubSub", self._engine.blocking.pubsub())
        try:
            await pubsub.subscribe(*self._workers)
            self._pubsub = pubsub
            for event in self._events.values():
                event.set()  # what was published while nobody listened is not known: look
            while True:
                message = await pubsub.get_message(ignore_subscribe_messages=True, timeout=_POLL)
                if message is not None:
                    self._wake(message)
        finally:
            self._pubsub = None
            await pubsub.aclose()

    def _wake(self, message: dict[str, Any]) -> None:
        channel = message["channel"]
        worker = self._workers.get(channel.decode() if isinstance(channel, bytes) else channel)
        if worker is not None:
            self._events[worker].set()
