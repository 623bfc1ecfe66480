"""Servers with settings of the test's own, and other processes that open an engine."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, cast

import pytest
from msgspec import Struct

from hostler.testing.eventually import eventually
from hostler.valkeyio.embedded import ask, server_program

OPENER = Path(__file__).with_name("opener.py")
SAFE = {
    "port": "0",
    "save": "",
    "appendonly": "yes",
    "appendfsync": "always",
    "maxmemory-policy": "noeviction",
}


class Server(Struct, frozen=True, kw_only=True):
    """A server that a test started with settings of its own."""

    url: str
    process: "subprocess.Popen[bytes]"


StartServer = Callable[[dict[str, str]], Awaitable[Server]]


class Opener(Struct, frozen=True, kw_only=True):
    """Another process that holds an engine open."""

    process: "subprocess.Popen[str]"
    server_pid: int

    @property
    def said(self) -> IO[str]:
        return cast("IO[str]", self.process.stdout)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def finish(self) -> int:
        self.process.communicate(timeout=20)  # reads on: a writer must not block on a full pipe
        return self.process.returncode


StartOpener = Callable[[Path, str], Opener]


@pytest.fixture
async def start_server(data_folder: Path) -> AsyncGenerator[StartServer]:
    """Starts servers with `SAFE` settings and those given on top; they end with the test."""
    started: list[subprocess.Popen[bytes]] = []

    async def start(options: dict[str, str]) -> Server:
        folder = data_folder / f"server{len(started)}"
        folder.mkdir(parents=True)
        settings = SAFE | {"unixsocket": str(folder / "s"), "dir": str(folder)} | options
        words = [word for name, value in settings.items() for word in (f"--{name}", value)]
        program = await asyncio.to_thread(server_program)
        process = await asyncio.to_thread(subprocess.Popen[bytes], [str(program), *words], stdout=subprocess.DEVNULL)
        started.append(process)

        async def answers() -> bool:
            return await ask(folder / "s") != "absent"

        await eventually(answers, within=10)
        return Server(url=f"unix://{folder / 's'}", process=process)

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture
def start_opener() -> Generator[StartOpener]:
    """Starts processes that hold the engine of a folder; they end with the test."""
    with ExitStack() as stack:

        def start(folder: Path, mode: str) -> Opener:
            process = stack.enter_context(
                subprocess.Popen(
                    [sys.executable, str(OPENER), str(folder), mode],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            stack.callback(process.kill)
            line = cast("IO[str]", process.stdout).readline()
            assert line, "the opener ended before it had opened the engine"
            return Opener(process=process, server_pid=int(line))

        yield start
