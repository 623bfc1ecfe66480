"""The rig's own engine: a Valkey server with AOF `always` on a Unix socket, which can be ended in every way."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from hostler.chaos.tied import TIED
from hostler.kernel.errors import EngineUnavailableError
from hostler.kernel.units import Seconds
from hostler.valkeyio.embedded import ask, server_program

STARTING: Final[Seconds] = 60.0
ENDING: Final[Seconds] = 15.0
LOOK: Final[Seconds] = 0.02
_SAFE: Final = ("--appendonly", "yes", "--appendfsync", "always", "--maxmemory-policy", "noeviction", "--save", "")


class EngineServer:
    """`async with` starts it and ends it; `folder` is where its files lie, `socket` needs a short path.

    `before` are words before its command line, `environment` is all that it sees.
    """

    def __init__(
        self,
        folder: Path,
        socket: Path,
        *,
        log: Path,
        before: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        options: Sequence[str] = (),
    ) -> None:
        self.folder = folder
        self.socket = socket
        self._log = log
        self._before = tuple(before)
        self._environment = {"LC_ALL": "C", "PATH": os.environ.get("PATH", "")} | dict(environment or {})
        self._options = tuple(options)
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int | None:
        """Return the id of its process; None while it does not run."""
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.kill()

    async def start(self) -> None:
        """Start it on its files and wait until it answers; `EngineUnavailableError` when it does not."""
        place = ("--port", "0", "--unixsocket", str(self.socket), "--unixsocketperm", "700", "--dir", str(self.folder))
        program = await asyncio.to_thread(server_program)
        with await asyncio.to_thread(self._log.open, "ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._before, *TIED, str(program), *place, *_SAFE, *self._options,
                stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log, env=self._environment, start_new_session=True,
            )  # fmt: skip
        try:
            async with asyncio.timeout(STARTING):
                while self.pid is not None and await ask(self.socket) != "ready":  # noqa: ASYNC110 - another process
                    await asyncio.sleep(LOOK)
        except TimeoutError:
            raise EngineUnavailableError(f"the engine did not answer in {STARTING:g} s; see {self._log}") from None
        if self.pid is None:
            raise EngineUnavailableError(f"the engine ended at its start; see {self._log}")

    async def kill(self) -> None:
        """Kill it, stopped or not. Idempotent."""
        await self._end(signal.SIGKILL)

    async def terminate(self) -> None:
        """Ask it to end; it is killed when it does not. Idempotent."""
        self.go_on()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ENDING):
                await self._end(signal.SIGTERM)
        await self.kill()

    def stop(self) -> None:
        """Freeze it."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it go on after `stop`. Idempotent."""
        self._signal(signal.SIGCONT)

    async def _end(self, number: signal.Signals) -> None:
        self._signal(number)
        if self._process is not None:
            await self._process.wait()

    def _signal(self, number: signal.Signals) -> None:
        if self.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)
