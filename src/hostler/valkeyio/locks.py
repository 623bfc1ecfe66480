"""Advisory file locks: the kernel lets go of them when their holder dies, so nothing here trusts a process id."""

import asyncio
import contextlib
import fcntl
import os
from collections.abc import AsyncGenerator
from pathlib import Path
from types import TracebackType
from typing import Self

from hostler.kernel.errors import EngineUnavailableError

_RETRY_S = 0.02


class FileLock:
    """A `flock` on one file; closed on exit from the process, however it ends.

    Each instance has an open file of its own, so two of them exclude each other inside one process too.
    The file is never removed: removing it would let two holders lock two files of one name.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd: int | None = None

    @property
    def fd(self) -> int:
        """The open file, made on first use; not inherited by programs that this process starts."""
        if self._fd is None:
            self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        return self._fd

    def take(self, *, shared: bool = False) -> bool:
        """Try to lock now; False when somebody else's lock forbids it."""
        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        try:
            fcntl.flock(self.fd, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def drop(self) -> None:
        """Unlock and close; idempotent. A copy of the open file in another process keeps the lock there."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.drop()


def is_held(path: Path) -> bool:
    """Return whether any process holds a lock on `path` now; call it only where nobody else tries to take it."""
    with FileLock(path) as lock:
        return not lock.take()


@contextlib.asynccontextmanager
async def exclusive(path: Path, *, within: float) -> AsyncGenerator[None]:
    """Hold `path` exclusively without blocking the event loop; `EngineUnavailableError` after `within` seconds."""
    with FileLock(path) as lock:
        ends = asyncio.get_running_loop().time() + within
        while not lock.take():
            if asyncio.get_running_loop().time() >= ends:
                raise EngineUnavailableError(
                    f"another process has been starting or stopping the engine of {path.parent} for {within:g} s; "
                    "try again, or look into engine.log there",
                    lock=str(path),
                )
            await asyncio.sleep(_RETRY_S)
        yield
