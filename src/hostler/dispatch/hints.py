"""What an endpoint says about its limits, told to everybody who calls it."""

import asyncio

import structlog

from hostler.contracts.rates import RateHint
from hostler.dispatch.gauge import COOLEST
from hostler.kernel.errors import EngineError
from hostler.kernel.units import Seconds
from hostler.policy.limits import pause_of
from hostler.ports.limiter import Limiter

_LOG = structlog.stdlib.get_logger("hostler.dispatch.hints")


class Hints:
    """Turns the words of one endpoint into holds of its gate; `hear` fits `ConnectorConfig.on_rate_hint`."""

    def __init__(self, limiter: Limiter) -> None:
        self._limiter = limiter
        self.gate = ""
        """Name of what is held; set by whoever knows the endpoint."""
        self._until = 0.0
        self._telling: set[asyncio.Task[None]] = set()

    @property
    def holds(self) -> bool:
        """Tell whether something was said that may hold yet: only then is the gate worth asking for."""
        return asyncio.get_running_loop().time() < self._until

    def hear(self, hint: RateHint) -> None:
        """Take in what one answer said; neither blocks nor raises."""
        pause = pause_of(hint)
        if pause:
            self._keep(asyncio.get_running_loop().create_task(self.tell(pause), name=f"hold {self.gate}"))

    async def tell(self, seconds: Seconds) -> None:
        """Let nobody call for so long, `COOLEST` at most: then one call finds out whether that still holds.

        An engine that is away means that only this process knows.
        """
        if seconds <= 0.0 or not self.gate:
            return
        seconds = min(seconds, COOLEST)
        self._until = max(self._until, asyncio.get_running_loop().time() + seconds)
        try:
            await self._limiter.hold(self.gate, seconds)
        except EngineError as error:
            _LOG.warning("a hold was not told", gate=self.gate, code=error.code)

    def close(self) -> None:
        """Tell nothing more."""
        for task in tuple(self._telling):
            task.cancel()

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)
