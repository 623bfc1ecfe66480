"""Which models a simulated Ollama holds: loaded on demand, side by side while they fit, unloaded when idle."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

from hostler.kernel.units import Seconds
from hostler.testing.sims.ollama_knobs import OllamaKnobs

FOREVER: Seconds = 3_600 * 24 * 365


class BusyError(Exception):
    """As many requests wait as may."""


class Held:
    """One model in memory."""

    def __init__(self, *, size: int, gpu: int) -> None:
        self.size = size
        self.gpu = min(size, gpu)
        """What does not fit the GPU is kept beside it."""
        self.loading = True
        self.busy = 1
        self.expires = time.monotonic() + FOREVER

    def expires_at(self) -> datetime:
        """Return when it will be unloaded if nobody asks for it."""
        return datetime.now(UTC) + timedelta(seconds=self.expires - time.monotonic())


class ModelMemory:
    """Lets requests in, model by model; whoever comes first to an absent model waits for its load."""

    def __init__(self, knobs: Callable[[], OllamaKnobs]) -> None:
        self._knobs = knobs
        self._held: dict[str, Held] = {}
        self._changed = asyncio.Event()
        self._waiting = 0

    @property
    def busy(self) -> int:
        """Requests that a model works on."""
        return sum(one.busy for one in self._held.values())

    def held(self) -> dict[str, Held]:
        """Return what is in memory now."""
        now = time.monotonic()
        for name in [name for name, one in self._held.items() if not one.busy and one.expires <= now]:
            del self._held[name]
        return dict(self._held)

    @asynccontextmanager
    async def use(self, model: str, keep_alive: Seconds) -> AsyncGenerator[Seconds]:
        """Hold a model for one request and yield how long its load took; raises `BusyError`."""
        if self._waiting >= max(1, self._knobs().backlog):
            raise BusyError
        began = time.monotonic()
        self._waiting += 1
        try:
            one = await self._enter(model)
        finally:
            self._waiting -= 1
        try:
            if one.loading:
                await asyncio.sleep(self._knobs().load)
                one.loading = False
            self._wake()
            yield time.monotonic() - began
        finally:
            one.busy -= 1
            one.expires = time.monotonic() + (keep_alive if keep_alive >= 0 else FOREVER)
            if one.loading or keep_alive == 0:  # a load that nobody waits for any more leaves nothing behind
                self._held.pop(model, None)
            self._wake()

    async def _enter(self, model: str) -> Held:
        while True:
            changed = self._changed
            one = self.held().get(model)
            if one is None and self._make_room():
                knobs = self._knobs()
                one = self._held[model] = Held(size=knobs.size, gpu=knobs.gpu_memory)
                return one
            if one is not None and not one.loading and one.busy < self._knobs().parallel:
                one.busy += 1
                return one
            await changed.wait()

    def _make_room(self) -> bool:
        """Unload what is idle until another model fits; tell whether one does."""
        knobs = self._knobs()
        idle = sorted((one.expires, name) for name, one in self._held.items() if not one.busy)
        while self._held and sum(one.size for one in self._held.values()) + knobs.size > knobs.gpu_memory:
            if not idle:
                return False
            del self._held[idle.pop(0)[1]]
        return True

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
