"""A provider that is loaded when it is first needed, once, in threads of its own."""

import asyncio
import contextlib
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from typing import Final, TypeVar

import structlog
from msgspec import Struct

from hostler.kernel.errors import MissingExtraError
from hostler.kernel.units import Bytes, Seconds
from hostler.providers.messages import Ask, Reply, Verb
from hostler.providers.provider import Halt, HaltedError, Loading, Provider, RefusedError, Step
from hostler.providers.stats import Figures, Stats

T = TypeVar("T")

_LOG = structlog.stdlib.get_logger("hostler.providers")

BACKOFF_FIRST: Final[Seconds] = 5.0
BACKOFF_MOST: Final[Seconds] = 300.0
COME_BACK: Final[Seconds] = 1.0
"""When to ask again while a load goes on, or no thread is free."""


class ProviderState(StrEnum):
    """How a provider is."""

    IDLE = "idle"
    """Not loaded; the first use loads it."""
    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"
    """The last load failed; a use after its time to come back loads again."""
    CLOSED = "closed"


AVAILABLE: Final = frozenset({ProviderState.IDLE, ProviderState.READY})


class ProviderView(Struct, frozen=True, kw_only=True):
    """How one provider is, as the service shows it."""

    name: str
    about: str
    capabilities: tuple[Verb, ...]
    state: ProviderState
    available: bool
    """Whether it takes questions now: ready, or not loaded yet and never failed."""
    phase: str | None
    item: str | None
    percent: float | None
    """Of the load."""
    message: str | None
    """Why the last load failed."""
    load_s: Seconds | None
    memory_bytes: Bytes | None
    slots: int
    in_flight: int
    waiting: int
    stats: Figures


class LazyProvider:
    """One provider with its state, its threads and its figures; a slow one holds up nobody else."""

    def __init__(self, provider: Provider, *, backlog: int, changed: Callable[[], None] = lambda: None) -> None:
        """Take a provider; `backlog` questions may wait for a thread, `changed` is called after a state did."""
        self.provider = provider
        self.state = ProviderState.IDLE
        self.in_flight = self.waiting = 0
        self.stats = Stats()
        self.loads = 0
        """Loads that were begun."""
        self.load_s: Seconds | None = None
        self._changed = changed
        self._backlog = backlog
        self._threads = ThreadPoolExecutor(provider.slots, thread_name_prefix=f"provider-{provider.name}")
        self._free = asyncio.Semaphore(provider.slots)
        self._step: Step | None = None
        self._message: str | None = None
        self._final = False
        self._retry_at = 0.0
        self._failures = 0
        self._loading: Loading | None = None
        self._load: asyncio.Task[None] | None = None
        self._halts: set[Halt] = set()
        self._memory: Bytes | None = None
        self._halted = False
        self._quiet = asyncio.Event()
        self._quiet.set()

    def view(self) -> ProviderView:
        """Return how it is."""
        step = self._step if self.state is ProviderState.LOADING else None
        return ProviderView(
            name=self.provider.name,
            about=self.provider.about,
            capabilities=self.provider.verbs,
            state=self.state,
            available=self.available,
            phase=None if step is None else step.phase,
            item=None if step is None else step.item,
            percent=None if step is None or step.fraction is None else round(100 * step.fraction, 1),
            message=self._message,
            load_s=self.load_s,
            memory_bytes=self._memory,
            slots=self.provider.slots,
            in_flight=self.in_flight,
            waiting=self.waiting,
            stats=self.stats.figures(),
        )

    @property
    def available(self) -> bool:
        """Tell whether it takes questions; one whose time to load again has come does."""
        if self.state is ProviderState.FAILED:
            return not self._final and time.monotonic() >= self._retry_at
        return self.state in AVAILABLE

    async def ready(self, *, wait: Seconds) -> None:
        """Load it unless it is loaded or somebody loads it; `RefusedError` when that takes longer than `wait`."""
        if self.state is ProviderState.READY:
            return
        if self.state is ProviderState.CLOSED:
            raise RefusedError(503, "draining", "the service is closing")
        if self.state is ProviderState.FAILED and not self.available:
            raise self._failed()
        if self._load is None:
            self._load = asyncio.create_task(self._load_once(), name=f"load {self.provider.name}")
        await asyncio.wait({self._load}, timeout=wait)
        outcome = self.view().state  # it moved while we waited
        if outcome is ProviderState.FAILED:
            raise self._failed()
        if outcome is ProviderState.LOADING:
            raise self._still_loading()
        if outcome is not ProviderState.READY:
            raise RefusedError(503, "draining", "the service is closing")

    async def answer(self, ask: Ask, *, within: Seconds) -> Reply:
        """Answer in one of its threads; the thread is told to halt when nobody waits for it any more."""
        if self.waiting >= self._backlog and self._free.locked():
            raise RefusedError(
                503,
                "overloaded",
                f"provider {self.provider.name} works on {self.in_flight} questions and {self.waiting} wait",
                retry_after=COME_BACK,
            )
        began = time.monotonic()
        halt = Halt()
        try:
            async with asyncio.timeout(within):
                await self._turn()
                reply = await self._in_thread(halt, ask)
        except TimeoutError:
            message = f"provider {self.provider.name} did not answer within {within:g} s"
            self.stats.add(time.monotonic() - began, error=message)
            raise RefusedError(504, "too_slow", message) from None
        except (RefusedError, HaltedError):
            self.stats.add(time.monotonic() - began)
            raise
        except Exception as error:  # counted, not swallowed
            self.stats.add(time.monotonic() - began, error=f"{type(error).__name__}: {error}")
            raise
        self.stats.add(time.monotonic() - began)
        return reply

    async def close(self, *, grace: Seconds) -> None:
        """Take no more questions, give those under way their grace, halt the rest, and close the provider."""
        self.state = ProviderState.CLOSED
        if self._loading is not None:
            self._loading.set()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._quiet.wait(), grace)
        self._halted = True
        for halt in tuple(self._halts):
            halt.set()
        if self._load is not None:
            await asyncio.wait({self._load})
        await asyncio.get_running_loop().run_in_executor(self._threads, self.provider.close)
        await asyncio.to_thread(self._threads.shutdown)

    async def _turn(self) -> None:
        """Wait for a free thread."""
        self.waiting += 1
        self._quiet.clear()
        try:
            await self._free.acquire()
            if self._halted:
                self._free.release()
                raise HaltedError
            self.in_flight += 1
        finally:
            self.waiting -= 1
            self._settle()

    async def _in_thread(self, halt: Halt, ask: Ask) -> Reply:
        """Run one answer; the slot is free again when the thread is, not when the caller stopped waiting."""
        self._halts.add(halt)
        work = asyncio.get_running_loop().run_in_executor(self._threads, self.provider.answer, ask, halt)

        def done(ended: asyncio.Future[Reply]) -> None:
            self.in_flight -= 1
            self._halts.discard(halt)
            self._free.release()
            self._settle()
            if not ended.cancelled():
                ended.exception()  # seen: whoever waited may be gone

        work.add_done_callback(done)
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            halt.set()
            raise

    def _settle(self) -> None:
        if not self.in_flight and not self.waiting:
            self._quiet.set()

    async def _load_once(self) -> None:
        name = self.provider.name
        began = time.monotonic()
        self.loads += 1
        self._loading = Loading(self._report)
        self._move(ProviderState.LOADING)
        _LOG.info("provider.loading", provider=name)
        try:
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(self._threads, self.provider.load, self._loading)
            self._memory = await loop.run_in_executor(self._threads, self.provider.memory)
        except HaltedError:
            self._message = "the load was stopped"
        except Exception as error:  # noqa: BLE001 - whatever a provider raises, the other four go on
            self._fail(error)
        else:
            self.load_s = time.monotonic() - began
            self._message, self._failures = None, 0
            self._move(ProviderState.READY)
            _LOG.info("provider.ready", provider=name, seconds=round(self.load_s, 3), memory_bytes=self._memory)
        finally:
            self._loading = self._load = None

    def _fail(self, error: Exception) -> None:
        self._final = isinstance(error, MissingExtraError)
        self._message = error.message if isinstance(error, MissingExtraError) else f"{type(error).__name__}: {error}"
        self._retry_at = time.monotonic() + min(BACKOFF_MOST, BACKOFF_FIRST * 2.0**self._failures)
        self._failures = min(self._failures + 1, 16)
        self._move(ProviderState.FAILED)
        _LOG.warning("provider.failed", provider=self.provider.name, error=self._message)

    def _move(self, state: ProviderState) -> None:
        """Change the state, unless it has been closed meanwhile."""
        if self.state is not ProviderState.CLOSED:
            self.state = state
            self._changed()

    def _report(self, step: Step) -> None:
        self._step = step  # one assignment: safe from another thread

    def _failed(self) -> RefusedError:
        if self._final:
            return RefusedError(501, "missing_extra", str(self._message))
        return RefusedError(
            503,
            "load_failed",
            f"provider {self.provider.name} could not be loaded: {self._message}",
            retry_after=round(max(COME_BACK, self._retry_at - time.monotonic()), 1),
        )

    def _still_loading(self) -> RefusedError:
        view = self.view()
        where = " ".join(part for part in (view.phase, view.item) if part)
        done = "" if view.percent is None else f" ({view.percent:g} %)"
        return RefusedError(
            503,
            "loading",
            f"provider {view.name} is loading{f': {where}' if where else ''}{done}",
            retry_after=COME_BACK,
            facts={"phase": view.phase, "item": view.item, "percent": view.percent},
        )
