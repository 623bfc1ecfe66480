"""Whether a worker has what any job needs, before its first and now and then: checks that say what is wrong."""

import asyncio
import hashlib
import resource
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final

from hostler.kernel.errors import EngineError
from hostler.kernel.units import Bytes, Instant, Seconds
from hostler.ports.blobs import Blobs
from hostler.ports.clock import Clock, Dice
from hostler.worker.life import Life

CHECK_LIMIT: Final[Seconds] = 5.0
"""Longest check; a slower one counts as failed."""
SKEW_MOST: Final[Seconds] = 1.0
"""Deadlines travel as times of day, so a clock that is further off ends work too early or too late."""
DISK_LEAST: Final[Bytes] = 268_435_456
"""Files that go in and out of jobs lie in the folder for temporary files meanwhile."""
MEMORY_LEAST: Final[Bytes] = 67_108_864
RARELY: Final = 30
"""A worker that is fit looks so many times more seldom whether it still is."""
ENGINE_LIMIT: Final[Seconds] = 2.0
FILES_LEAST: Final = 32
FILES_PER_SLOT: Final = 4

Check = Callable[[], Awaitable[str | None]]
"""Returns what is wrong, for people, or None; what it raises is wrong too."""


class Fitness:
    """Runs checks together; each by its name."""

    def __init__(self, checks: Sequence[tuple[str, Check]]) -> None:
        self._checks = tuple(checks)

    async def wrong(self) -> str | None:
        """Return what is wrong now, all of it in one sentence; None when nothing is. Takes `CHECK_LIMIT` at most."""
        found = await asyncio.gather(*(_checked(name, check) for name, check in self._checks))
        said = [words for words in found if words is not None]
        return f"not fit to run jobs: {'; '.join(said)}" if said else None

    async def passed(self, life: Life, *, every: Seconds) -> None:
        """Return once nothing is wrong any more, which is looked at so often; `life` says what it is meanwhile."""
        while life.reason is not None:
            await asyncio.sleep(every)
            life.note(await self.wrong())

    async def watch(self, say: Callable[[str | None], None], dice: Dice, *, every: Seconds) -> None:
        """Look now and then, until cancelled; `say` hears what is wrong twice in a row, and None when it is over."""
        while True:
            await asyncio.sleep(RARELY * every * (0.8 + 0.4 * dice.roll()))
            if await self.wrong() is None:
                continue
            await asyncio.sleep(every)
            while (reason := await self.wrong()) is not None:
                say(reason)
                await asyncio.sleep(every)
            say(None)


async def _checked(name: str, check: Check) -> str | None:
    try:
        async with asyncio.timeout(CHECK_LIMIT):
            words = await check()
    except TimeoutError:
        words = f"no answer within {CHECK_LIMIT:g} s"
    except Exception as error:  # noqa: BLE001 - whatever keeps a check from passing is what is wrong
        words = f"{type(error).__name__}: {error}"
    return None if words is None else f"{name}: {words}"


def stores(blobs: Blobs, worker: str) -> Check:
    """Check that the blob store takes a blob and gives it back; it is removed again."""

    async def check() -> str | None:
        content = f"hostler fitness {worker} {time.time_ns()}".encode()
        sha256 = hashlib.sha256(content).hexdigest()
        await blobs.put(sha256, _once(content), limit=len(content))
        try:
            back = b"".join([part async for part in blobs.get(sha256)])
        finally:
            await blobs.delete(sha256)
        return None if back == content else "it gives back something else than it took"

    return check


def agrees(engine_now: Callable[[], Awaitable[Instant]], clock: Clock) -> Check:
    """Check that this clock and the engine's differ by less than a second, the way there and back allowed for.

    An engine that does not answer is no fault of the clock, and is told elsewhere.
    """

    async def check() -> str | None:
        began, before = clock.monotonic(), clock.now()
        try:
            async with asyncio.timeout(ENGINE_LIMIT):
                theirs = await engine_now()
        except (EngineError, TimeoutError):
            return None
        way = clock.monotonic() - began
        skew = (theirs - before).total_seconds()
        if -SKEW_MOST <= skew <= SKEW_MOST + way:
            return None
        return f"this machine's differs from the engine's by {abs(skew):.1f} s; let both follow one time server"

    return check


def has_room(
    slots: int, *, disk: Bytes = DISK_LEAST, memory: Bytes = MEMORY_LEAST, folder: Path | None = None
) -> Check:
    """Check that there is disk for temporary files, memory, and file descriptors for so many jobs at a time.

    Once that was so, jobs hold what was there for them: from then on only the least number of descriptors is asked for.
    """
    place = folder or Path(tempfile.gettempdir())
    jobs = slots

    def measure() -> str | None:
        nonlocal jobs
        if (free := shutil.disk_usage(place).free) < disk:
            return f"{free / 1e6:.0f} MB of disk free at {place}, it takes {disk / 1e6:.0f} MB"
        available = _memory()
        if available is not None and available < memory:
            return f"{available / 1e6:.0f} MB of memory available, it takes {memory / 1e6:.0f} MB"
        needed, left = FILES_LEAST + FILES_PER_SLOT * jobs, _files_left()
        if left is not None and left < needed:
            return f"{left} more files may be opened, {jobs} jobs take {needed}: raise the limit (ulimit -n)"
        jobs = 0
        return None

    async def check() -> str | None:
        return await asyncio.to_thread(measure)

    return check


async def _once(content: bytes) -> AsyncIterator[bytes]:
    yield content


def _memory() -> Bytes | None:
    """Return the memory that can be had, of the machine or of the group that this process is held in."""
    found = [int(line.split()[1]) * 1024 for line in _lines("/proc/meminfo") if line.startswith("MemAvailable:")]
    most, used = _lines("/sys/fs/cgroup/memory.max"), _lines("/sys/fs/cgroup/memory.current")
    if most and used and most[0].isdigit() and used[0].isdigit():
        cached = sum(
            int(line.split()[1]) for line in _lines("/sys/fs/cgroup/memory.stat") if line.startswith("inactive_file ")
        )
        found.append(max(0, int(most[0]) - int(used[0]) + cached))
    return min(found, default=None)


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def _files_left() -> int | None:
    """Return how many more files may be opened; None where the system does not say."""
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    folder = next((name for name in ("/proc/self/fd", "/dev/fd") if Path(name).exists()), None)
    if folder is None or most == resource.RLIM_INFINITY:
        return None
    return most - sum(1 for _ in Path(folder).iterdir())
