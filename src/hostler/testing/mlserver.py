"""A real MLServer on free ports, over HTTP and gRPC, in a virtual environment of its own.

MLServer needs older parts than Hostler does, so it never shares an environment with it. The environment is
built once from a lock with hashes (226 MB; seconds from a warm cache of packages, else a minute or two) and
kept (`environments.py`); the models are those of `mlserver_models.py`.
"""

import asyncio
import json
import os
import socket
import subprocess
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import aiohttp

from hostler.kernel.errors import ServiceUnavailableError
from hostler.kernel.units import Seconds
from hostler.testing.eventually import eventually

START_LIMIT: Final[Seconds] = 60.0
MODELS: Final = ("echo", "add", "slow", "failing", "late", "broken", "counts")
LOADED: Final = ("echo", "add", "slow", "failing", "counts")
"""Models that are ready when the server is."""
CODE: Final = Path(__file__).with_name("mlserver_models.py")


class Mlserver:
    """A running MLServer; `with` starts and ends it, and it ends with this process, however that ends.

    `url` is where it speaks HTTP, `target` (host and port) where it speaks gRPC.
    """

    def __init__(self, python: Path, folder: Path) -> None:
        """Take the interpreter of its environment, and an empty folder for its models and its log."""
        self.url = ""
        self.target = ""
        self._python = python
        self._folder = folder
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        http, grpc = _free_ports()
        self.url, self.target = f"http://127.0.0.1:{http}", f"127.0.0.1:{grpc}"
        self._write(http=http, grpc=grpc)
        log = self._folder / "log"
        with ExitStack() as stack, log.open("wb") as output:
            server = subprocess.Popen(  # noqa: S603 - our own command
                [str(self._python), CODE.name, "start", "."],
                cwd=self._folder,
                env={**os.environ, "PYTHONPATH": str(self._folder)},
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
            stack.callback(_end, server)
            try:
                asyncio.run(self._ready(server))
            except (AssertionError, aiohttp.ClientError) as error:
                raise ServiceUnavailableError(f"MLServer did not start: {log.read_text()[-400:]}") from error
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    async def counts(self, mood: str | None = None) -> dict[str, int]:
        """Return how many inferences have `begun` and how many are `busy`, after setting the mood if one is given."""
        asked: dict[str, object] = {"inputs": [{"name": "n", "datatype": "BOOL", "shape": [1], "data": [True]}]}
        if mood is not None:
            asked["parameters"] = {"mood": mood}
        async with (
            aiohttp.ClientSession(self.url, raise_for_status=True) as session,
            session.post("/v2/models/counts/infer", json=asked) as answer,
        ):
            said = json.loads(await answer.read())
        return {output["name"]: output["data"][0] for output in said["outputs"]}

    def _write(self, *, http: int, grpc: int) -> None:
        settings = {"debug": False, "host": "127.0.0.1", "http_port": http, "grpc_port": grpc, "gzip_enabled": False}
        settings |= {"metrics_endpoint": None, "parallel_workers": 0, "load_models_at_startup": False}
        (self._folder / "settings.json").write_text(json.dumps(settings))
        (self._folder / CODE.name).write_text(CODE.read_text())
        for model in MODELS:
            (self._folder / model).mkdir()
            tensors = [{"name": name, "datatype": "FP32", "shape": [-1]} for name in ("a", "b", "sum")]
            about = {"inputs": tensors[:2], "outputs": tensors[2:], "parameters": {"version": "v1"}}
            row = {"name": model, "implementation": f"{CODE.stem}.{model.capitalize()}"}
            (self._folder / model / "model-settings.json").write_text(
                json.dumps(row | about if model == "add" else row)
            )

    async def _ready(self, server: subprocess.Popen[bytes]) -> None:
        async with aiohttp.ClientSession(self.url) as session:

            async def lives() -> bool:
                if server.poll() is not None:
                    raise aiohttp.ClientError(f"it ended with {server.returncode}")
                try:
                    async with session.get("/v2/health/live") as answer:
                        return answer.ok
                except aiohttp.ClientConnectorError:
                    return False

            await eventually(lives, within=START_LIMIT, every=0.1)
            for model in LOADED:
                async with session.post(f"/v2/repository/models/{model}/load") as answer:
                    answer.raise_for_status()


def _free_ports() -> tuple[int, int]:
    with socket.socket() as first, socket.socket() as second:
        for one in (first, second):
            one.bind(("127.0.0.1", 0))
        return first.getsockname()[1], second.getsockname()[1]


def _end(server: subprocess.Popen[bytes]) -> None:
    server.kill()
    server.communicate()
