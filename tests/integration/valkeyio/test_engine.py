"""One embedded server of a folder: started, joined, healed, left."""

import os
import signal
from pathlib import Path

import pytest

from hostler.kernel.errors import EngineUnavailableError
from hostler.kernel.settings import EngineSettings
from hostler.testing.eventually import eventually
from hostler.valkeyio.engine import Engine
from hostler.valkeyio.faults import mapped


async def server_pid(engine: Engine) -> int:
    return int((await engine.client.info("server"))["process_id"])


async def test_an_engine_starts_on_an_empty_folder_and_ends_with_its_last_user(data_folder: Path) -> None:
    settings = EngineSettings(data=str(data_folder))
    async with Engine.open(settings, role="first") as first, Engine.open(settings, role="second") as second:
        pid = await server_pid(first)
        assert await server_pid(second) == pid
        assert first.degraded == ()
        assert first.version.startswith("valkey ")
        assert data_folder.stat().st_mode & 0o777 == 0o700
    await eventually(lambda: not Path(f"/proc/{pid}").exists())


@pytest.mark.row("001:59")
async def test_an_attached_process_heals_a_killed_server_and_acknowledged_writes_are_there(data_folder: Path) -> None:
    async with Engine.open(EngineSettings(data=str(data_folder)), role="test") as engine:
        await engine.client.set("kept", "yes")
        os.kill(await server_pid(engine), signal.SIGKILL)
        with pytest.raises(EngineUnavailableError), mapped():
            await engine.client.get("kept")
        await engine.until_down()
        await engine.until_available(5)
        assert await engine.client.get("kept") == b"yes"


async def test_the_shared_engine_is_empty_at_the_start_of_each_test(engine: Engine) -> None:
    assert await engine.client.dbsize() == 0
    assert engine.data is None
