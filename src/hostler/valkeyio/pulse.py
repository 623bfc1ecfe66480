"""Whether the engine answers: one small task per process that asks, heals the embedded server, and tells."""

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from hostler.kernel.errors import EngineTimeoutError, EngineUnavailableError, HostlerError, InternalError
from hostler.kernel.units import Seconds

_EVERY: Final[Seconds] = 0.5
_BACKOFF_FIRST: Final[Seconds] = 0.05
_BACKOFF_MOST: Final[Seconds] = 1.0

Ask = Callable[[], Awaitable[object]]
"""Raises an error of ours when the engine does not answer."""

Heal = Callable[[HostlerError], Awaitable[object]]
"""Does what may help after this failure; raises an error of ours that says why nothing did."""

_log = structlog.get_logger(__name__)


class Pulse:
    """Asks the engine twice a second; while it is down, asks again with growing, jittered pauses.

    `heal` is awaited when the engine does not answer, `recovered` before it counts as up again.
    """

    def __init__(self, *, ask: Ask, heal: Heal, recovered: Ask) -> None:
        self._ask = ask
        self._heal = heal
        self._recovered = recovered
        self._up = asyncio.Event()
        self._down = asyncio.Event()
        self._poke = asyncio.Event()
        self._reason: HostlerError | None = None
        self.defects = 0
        """Times that something broke here which is no error of ours: each is logged, and it is looked at again."""
        self._up.set()

    @property
    def up(self) -> bool:
        """Whether the engine answered when it was last asked."""
        return self._up.is_set()

    @property
    def reason(self) -> HostlerError | None:
        """Why the engine is down; None while it is up."""
        return self._reason

    async def until_up(self, *, timeout: Seconds) -> None:
        """Return as soon as the engine answers; `EngineUnavailableError` after `timeout` seconds.

        It is asked now, whatever was known: who comes here has just seen a call fail.
        """
        if self.up and (failure := await self._try_asking()) is not None:
            self._note_down(failure)
            self._poke.set()
        try:
            async with asyncio.timeout(timeout):
                await self._up.wait()
        except TimeoutError as error:
            raise EngineUnavailableError(
                f"the engine has not come back within {timeout:g} s ({self._reason})", waited=timeout
            ) from error

    async def until_down(self) -> None:
        """Return as soon as the engine is known to be down."""
        await self._down.wait()

    async def run(self) -> None:
        """Watch until cancelled."""
        pause = _EVERY
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._poke.wait()
            self._poke.clear()
            failure = await self._looked()
            if failure is None:
                pause = _EVERY
            else:
                known = self._reason is not None
                self._note_down(failure)
                pause = min(_BACKOFF_MOST, pause * 2) if known else _BACKOFF_FIRST
                pause *= random.uniform(0.5, 1.0)  # noqa: S311 - jitter, not a secret

    async def _looked(self) -> HostlerError | None:
        """Look, whatever comes: an engine that nobody watches any more would never be healed."""
        try:
            return await self._look()
        except Exception as error:  # noqa: BLE001 - whatever it is, the next look comes
            self.defects += 1
            _log.exception("watching the engine broke", defects=self.defects)
            return InternalError(f"watching the engine broke with {type(error).__name__}: it is tried again")

    async def _look(self) -> HostlerError | None:
        """Return what is wrong, after having tried to heal it."""
        failure = await self._try_asking()
        if isinstance(failure, (EngineUnavailableError, EngineTimeoutError)):
            self._note_down(failure)
            try:
                await self._heal(failure)
            except HostlerError as error:
                return error
            failure = await self._try_asking()
        return failure

    async def _try_asking(self) -> HostlerError | None:
        try:
            await self._ask()
            if not self.up:
                await self._recovered()
                self._note_up()
        except HostlerError as error:
            return error
        return None

    def _note_down(self, failure: HostlerError) -> None:
        if self._reason is None:
            _log.warning("engine down", error=failure.message, code=failure.code)
        self._reason = failure
        self._up.clear()
        self._down.set()

    def _note_up(self) -> None:
        _log.info("engine up")
        self._reason = None
        self._down.clear()
        self._up.set()
