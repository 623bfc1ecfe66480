"""The rig's engine: what a power cut and a full disk really take away, and that nothing outlives who started it."""

import asyncio
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Generator
from pathlib import Path

import pytest

from hostler.chaos.disk import SmallDisk, why_not
from hostler.chaos.power import PowerCut, compiler
from hostler.chaos.server import EngineServer
from hostler.kernel.errors import EngineUnavailableError
from hostler.testing.bench import Clients
from hostler.testing.eventually import eventually
from hostler.testing.programs import ended
from hostler.valkeyio.client import send
from hostler.valkeyio.embedded import ask
from hostler.valkeyio.faults import mapped

needs_compiler = pytest.mark.skipif(compiler() is None, reason="no C compiler")
needs_mount = pytest.mark.skipif(why_not() is not None, reason=f"no small disk: {why_not()}")


@pytest.fixture
def folder() -> Generator[Path]:
    found = Path(tempfile.mkdtemp(prefix="h", dir="/tmp"))
    (found / "data").mkdir()
    yield found
    shutil.rmtree(found, ignore_errors=True)


def server(folder: Path, **more: object) -> EngineServer:
    return EngineServer(folder / "data", folder / "s", log=folder / "engine.log", **more)  # type: ignore[arg-type] - tests


async def write(folder: Path, first: int, count: int) -> None:
    clients = Clients(folder / "s")
    with mapped():
        for number in range(first, first + count):
            await send(clients.client, "SET", f"k{number}", number)
    await clients.aclose()


async def kept(folder: Path) -> int:
    clients = Clients(folder / "s")
    size = int(await send(clients.client, "DBSIZE"))
    await clients.aclose()
    return size


@needs_compiler
async def test_a_power_cut_takes_nothing_that_was_acknowledged_when_every_write_is_synced(folder: Path) -> None:
    power = await PowerCut.build(folder)
    async with server(folder, environment=power.environment) as engine:
        await write(folder, 0, 50)
        await engine.kill()
        await asyncio.to_thread(power.cut, engine.folder)
        await engine.start()
        assert await kept(folder) == 50


@needs_compiler
async def test_a_power_cut_takes_what_was_not_synced_where_a_kill_takes_nothing(folder: Path) -> None:
    power = await PowerCut.build(folder)
    careless = ("--appendfsync", "no")
    async with server(folder, environment=power.environment, options=careless) as engine:
        await write(folder, 0, 50)
        await engine.kill()
        await engine.start()
        assert await kept(folder) == 50
        await write(folder, 50, 50)
        await engine.kill()
        assert await asyncio.to_thread(power.cut, engine.folder) > 0
        await engine.start()
        assert await kept(folder) < 100


@needs_mount
async def test_an_engine_whose_disk_is_full_ends_rather_than_lose_a_write_and_comes_back_whole(folder: Path) -> None:
    async with SmallDisk(folder / "data", size=16_777_216) as disk, server(folder, before=disk.joining) as engine:
        await write(folder, 0, 50)
        assert await asyncio.to_thread(disk.fill) > 0
        done = 50
        with pytest.raises(EngineUnavailableError):  # noqa: PT012 - how many are acknowledged counts
            while True:
                await write(folder, done, 1)
                done += 1
        await eventually(lambda: engine.pid is None)
        await asyncio.to_thread(disk.free)
        await engine.start()
        assert await kept(folder) >= done
        assert not (folder / "data" / "appendonlydir").exists()


async def test_a_stopped_engine_says_nothing_until_it_goes_on_and_a_restart_keeps_all(folder: Path) -> None:
    async with server(folder) as engine:
        await write(folder, 0, 5)
        engine.stop()
        assert await ask(folder / "s") == "silent"
        engine.go_on()
        assert await kept(folder) == 5
        before = engine.pid
        await engine.terminate()
        assert engine.pid is None
        await engine.start()
        assert engine.pid != before
        assert await kept(folder) == 5


OWNER = """
import asyncio, sys
from pathlib import Path
from hostler.chaos.server import EngineServer

async def main():
    folder = Path(sys.argv[1])
    async with EngineServer(folder / "data", folder / "s", log=folder / "engine.log") as engine:
        engine.stop()
        print(engine.pid, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="setpriv is not installed")
async def test_even_a_stopped_engine_does_not_outlive_a_killed_owner(folder: Path) -> None:
    owner = await asyncio.create_subprocess_exec(
        sys.executable, "-c", OWNER, str(folder), stdout=asyncio.subprocess.PIPE
    )
    assert owner.stdout is not None
    pid = int(await asyncio.wait_for(owner.stdout.readline(), 30))
    os.kill(owner.pid, signal.SIGKILL)
    await owner.wait()
    await eventually(lambda: ended(pid))
