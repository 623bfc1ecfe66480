"""Parts that many tests stand on: a real engine, short folders for sockets, and a guard of the event loop.

    engine_settings   settings of a real server for this test run, AOF `always`, emptied before each test that asks
    engine            an open `Engine` on them
    data_folder       a path for an embedded engine of one's own: short enough for sockets, nothing there yet
    mlserver          a real MLServer over HTTP and gRPC, one per test process; skips where it cannot be had
    streaming_cog     a real Cog server whose model streams, one per test process; `silent_cog`: one whose does not
    lighthouse        a service that knows nothing of Hostler (`services/lighthouse.py`), in a process of its own

The server is one per test process (so per xdist worker), on a unix socket; tests that kill, stop or
misconfigure a server take `data_folder` or start their own.
"""

import asyncio
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import AsyncGenerator, Callable, Generator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from blockbuster import blockbuster_ctx

from hostler.kernel.errors import ServiceUnavailableError
from hostler.kernel.settings import EngineSettings
from hostler.testing.cog import CogServer
from hostler.testing.environments import environment_python
from hostler.testing.eventually import eventually
from hostler.testing.mlserver import Mlserver
from hostler.valkeyio.embedded import ask, server_program
from hostler.valkeyio.engine import Engine


@pytest.fixture(autouse=True)
def no_blocking_calls() -> Generator[None]:
    """Fail whatever blocks the event loop: the package (files, sockets, sleeps, locks), a synchronous engine client."""
    with blockbuster_ctx(["hostler", "redis.client", "redis.connection"], excluded_modules=["hostler.testing"]):
        yield


@pytest.fixture
def data_folder() -> Generator[Path]:
    """A path of which nothing exists yet; its parent is removed afterwards."""
    parent = Path(tempfile.mkdtemp(prefix="h", dir="/tmp"))
    yield parent / "data"
    shutil.rmtree(parent, ignore_errors=True)


@pytest.fixture(scope="session")
def engine_socket() -> Generator[Path]:
    """The socket of this test run's server, which ends with the run."""
    folder = Path(tempfile.mkdtemp(prefix="h", dir="/tmp"))
    path = folder / "s"
    options = {"port": "0", "unixsocket": str(path), "dir": str(folder), "save": "", "loglevel": "warning"}
    options |= {"appendonly": "yes", "appendfsync": "always", "maxmemory-policy": "noeviction"}
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    server = subprocess.Popen([str(server_program()), *words], stdout=subprocess.DEVNULL)
    try:
        asyncio.run(eventually(lambda: _ready(path), within=20))
        yield path
    finally:
        server.kill()
        server.wait()
        shutil.rmtree(folder, ignore_errors=True)


async def _ready(socket: Path) -> bool:
    return await ask(socket) == "ready"


@pytest.fixture
async def engine_settings(engine_socket: Path) -> EngineSettings:
    """Settings of the run's server, empty now (its function libraries stay: they are versioned by themselves)."""
    settings = EngineSettings(url=f"unix://{engine_socket}")
    async with Engine.open(settings, role="test-flush") as engine:
        await engine.command("FLUSHALL")
    return settings


@pytest.fixture
async def engine(engine_settings: EngineSettings) -> AsyncGenerator[Engine]:
    """An open engine on an empty database."""
    async with Engine.open(engine_settings, role="test") as opened:
        yield opened


@pytest.fixture(scope="session")
def mlserver(tmp_path_factory: pytest.TempPathFactory) -> Generator[Mlserver]:
    """A real MLServer whose environment is built once into `.cache`."""
    root = Path(__file__).parents[1]
    try:
        python = environment_python(root / "requirements" / "mlserver.txt", root / ".cache")
    except ServiceUnavailableError as error:
        pytest.skip(error.message)
    with Mlserver(python, tmp_path_factory.mktemp("mlserver")) as server:
        yield server


COG_INPUTS = {
    "prompt": {"type": "string", "x-order": 0},
    "steps": {"type": "integer", "default": 5, "minimum": 1, "maximum": 10_000, "x-order": 1},
    "pause": {"type": "number", "default": 0.02, "minimum": 0, "x-order": 2},
    "fail": {"type": "string", "default": "", "x-order": 3},
}


@pytest.fixture(scope="session")
def start_cog(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., CogServer]:
    """Make a Cog server for the model of `services/cog_runner.py`; keywords are those of `CogServer`."""
    program = Path(__file__).parent / "services" / "cog_runner.py"

    def make(**options: Any) -> CogServer:
        folder = tmp_path_factory.mktemp("cog")
        return CogServer(program, folder, inputs=COG_INPUTS, required=("prompt",), **options)

    return make


@pytest.fixture(scope="session")
def streaming_cog(start_cog: Callable[..., CogServer]) -> Generator[CogServer]:
    """A real Cog server whose model streams."""
    with start_cog(stream=True) as server:
        yield server


@pytest.fixture(scope="session")
def silent_cog(start_cog: Callable[..., CogServer]) -> Generator[CogServer]:
    """A real Cog server whose model does not stream."""
    with start_cog(stream=False) as server:
        yield server


class Lighthouse:
    """The service of `services/lighthouse.py`, and a way to set its moods and to ask what it did."""

    def __init__(self, url: str, http: aiohttp.ClientSession) -> None:
        self.url = url
        self._http = http

    async def get(self, path: str) -> Any:
        async with self._http.get(self.url + path) as answer:
            return await answer.json()

    async def put(self, path: str, value: Any) -> None:
        async with self._http.put(self.url + path, json=value) as answer:
            assert answer.status == 200


@pytest.fixture
async def lighthouse() -> AsyncGenerator[Lighthouse]:
    """A fresh lighthouse; it ends with its standard input."""
    program = Path(__file__).parent / "services" / "lighthouse.py"
    pipe = asyncio.subprocess.PIPE
    server = await asyncio.create_subprocess_exec(sys.executable, "-I", str(program), stdin=pipe, stdout=pipe)
    assert server.stdout is not None
    try:
        url = (await asyncio.wait_for(server.stdout.readline(), 20)).decode().strip()
        async with aiohttp.ClientSession() as http:
            yield Lighthouse(url, http)
    finally:
        await asyncio.wait_for(server.communicate(b""), 20)


@pytest.fixture(scope="session")
def lighthouse_options() -> Any:
    """What the page on `http-json` writes for the lighthouse."""
    page = (Path(__file__).parents[1] / "docs" / "connectors" / "http-json.md").read_text()
    written = page.partition("```toml\n")[2].partition("```")[0]
    return tomllib.loads(written)["connectors"]["lighthouse"]["options"]
