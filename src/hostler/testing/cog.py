"""A real Cog server for tests: a model in a folder of its own, on a free port.

Needs `cog` in this interpreter's environment. What `cog build` writes into an image, the schema, is written here.
"""

import asyncio
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import aiohttp

from hostler.kernel.errors import ServiceUnavailableError
from hostler.kernel.units import Seconds
from hostler.testing.eventually import eventually

START_LIMIT: Final[Seconds] = 60.0


class CogServer:
    """A running model; `with` starts and ends it, and it ends with this process, however that ends.

    `folder` is where the model runs, with a copy of `program`; `inputs` are the properties of its schema.
    """

    def __init__(
        self,
        program: Path,
        folder: Path,
        *,
        inputs: dict[str, Any],
        required: tuple[str, ...] = (),
        stream: bool = True,
        ready: bool = True,
    ) -> None:
        """Take the file with the class `Runner` and an empty folder; with `ready` the start waits for the setup."""
        self.url = ""
        self.folder = folder
        self._program = program
        self._schema = _schema(inputs, required, stream=stream)
        self._wait = "READY" if ready else "STARTING"
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        (self.folder / self._program.name).write_text(self._program.read_text())
        (self.folder / ".cog").mkdir(exist_ok=True)
        (self.folder / ".cog" / "openapi_schema.json").write_text(json.dumps(self._schema))
        port = _free_port()
        self.url = f"http://127.0.0.1:{port}"
        command = shlex.join([sys.executable, "-m", "cog.server.http", "--host", "127.0.0.1"])
        bin_ = str(Path(sys.executable).parent)
        log = self.folder / "log"
        with ExitStack() as stack, log.open("wb") as output:
            server = subprocess.Popen(  # noqa: S603 - our own command
                ["/bin/sh", "-c", f"{command} & read -r _; kill -KILL 0"],
                cwd=self.folder,
                env={
                    **os.environ,
                    "PATH": f"{bin_}{os.pathsep}{os.environ['PATH']}",  # it starts its worker as `python`
                    "PORT": str(port),
                    "COG_PREDICT_TYPE_STUB": f"{self._program.name}:Runner",
                },
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            stack.callback(_end, server)
            try:
                asyncio.run(self._answers())
            except AssertionError as error:
                raise ServiceUnavailableError(f"Cog did not start: {log.read_text()[-400:]}") from error
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    async def _answers(self) -> None:
        async with aiohttp.ClientSession() as http:

            async def answers() -> bool:
                return await health(http, self.url) in {self._wait, "SETUP_FAILED"}

            await eventually(answers, within=START_LIMIT, every=0.1)


async def health(http: aiohttp.ClientSession, url: str) -> str:
    """Return the word of a server about its health; empty when it does not answer."""
    try:
        async with http.get(f"{url}/health-check") as answer:
            return str((await answer.json())["status"])
    except aiohttp.ClientError:
        return ""


def _schema(inputs: dict[str, Any], required: tuple[str, ...], *, stream: bool) -> dict[str, Any]:
    schemas = {
        "Input": {"type": "object", "title": "Input", "properties": inputs, "required": list(required)},
        "Output": {
            "type": "array",
            "items": {"type": "string"},
            "x-cog-array-type": "iterator",
            "x-cog-array-display": "concatenate",
        },
    }
    post = {"x-cog-streaming": True} if stream else {}
    return {
        "openapi": "3.0.2",
        "info": {"title": "Cog", "version": "0.1.0"},
        "paths": {"/predictions": {"post": post}},
        "components": {"schemas": schemas},
    }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _end(server: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGKILL)
    server.communicate()
