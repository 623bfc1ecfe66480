"""Real servers with wrong settings are refused by name, and used only when the operator insists."""

import asyncio
import json
import sys

import pytest

from hostler.kernel.errors import EngineDeniedError, EngineUnsafeError, EngineVersionError
from hostler.kernel.settings import EngineSettings
from hostler.testing.eventually import eventually
from hostler.valkeyio.engine import Engine

from .conftest import StartServer


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("maxmemory-policy", "allkeys-lru"),
        ("appendonly", "no"),
        ("appendfsync", "everysec"),
        ("no-appendfsync-on-rewrite", "yes"),
        ("auto-aof-rewrite-percentage", "0"),
    ],
)
async def test_an_unsafe_server_is_refused_by_name_and_degraded_when_insisted(
    start_server: StartServer, name: str, value: str
) -> None:
    server = await start_server({name: value})
    with pytest.raises(EngineUnsafeError, match=f"CONFIG SET {name}"):
        async with Engine.open(EngineSettings(url=server.url), role="test"):
            pass
    async with Engine.open(EngineSettings(url=server.url, allow_degraded=True), role="test") as engine:
        assert len(engine.degraded) == 1
        assert name in engine.degraded[0]


@pytest.mark.row("000:53")
@pytest.mark.parametrize(
    ("name", "value", "mended"),
    [
        ("appendonly", "no", "yes"),
        ("appendfsync", "everysec", "always"),
        ("maxmemory-policy", "volatile-lru", "noevic"),
    ],
)
async def test_doctor_fails_on_an_unsafe_server_and_says_what_to_run(
    start_server: StartServer, name: str, value: str, mended: str
) -> None:
    server = await start_server({name: value})
    doctor = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "hostler", "doctor", "--engine", server.url, "--json", stdout=asyncio.subprocess.PIPE
    )
    out, _ = await doctor.communicate()
    (found,) = [line for line in map(json.loads, out.splitlines()) if line.get("check") == "engine"]
    assert doctor.returncode == 1
    assert found["level"] == "bad"
    assert f"CONFIG SET {name} {mended}" in found["message"]


async def test_a_safe_server_is_not_degraded(start_server: StartServer) -> None:
    server = await start_server({})
    async with Engine.open(EngineSettings(url=server.url), role="test") as engine:
        assert engine.degraded == ()
        assert engine.warnings == ()


async def test_a_nearly_full_server_is_warned_of(start_server: StartServer) -> None:
    server = await start_server({"maxmemory": "1mb"})
    async with Engine.open(EngineSettings(url=server.url), role="test") as engine:
        assert engine.degraded == ()
        assert "maxmemory" in engine.warnings[0]


async def test_a_replica_is_refused_even_when_insisted(start_server: StartServer) -> None:
    replica = await start_server({"replicaof": "127.0.0.1 1"})
    with pytest.raises(EngineVersionError, match="read-only replica"):
        async with Engine.open(EngineSettings(url=replica.url, allow_degraded=True), role="test"):
            pass


async def test_a_user_that_may_not_look_is_unsafe_unless_allowed_and_says_what_to_grant(
    start_server: StartServer,
) -> None:
    server = await start_server({})
    async with Engine.open(EngineSettings(url=server.url), role="admin") as admin:
        await admin.command("ACL SETUSER", "app", "on", ">secret", "~*", "+@all", "-config")
        await admin.command("ACL SETUSER", "poor", "on", ">secret", "~*", "+ping", "+client")
    url = server.url.replace("unix://", "unix://app:secret@")
    with pytest.raises(EngineUnsafeError, match=r"\+config\|get") as caught:
        async with Engine.open(EngineSettings(url=url), role="test"):
            pass
    assert "secret" not in caught.value.message
    async with Engine.open(EngineSettings(url=url, allow_degraded=True), role="test") as engine:
        assert "cannot be checked" in engine.degraded[0]
        assert "secret" not in engine.url
    with pytest.raises(EngineDeniedError, match="info"):
        async with Engine.open(EngineSettings(url=server.url.replace("unix://", "unix://poor:secret@")), role="test"):
            pass
    with pytest.raises(EngineDeniedError, match=r"does not accept|does not let"):
        async with Engine.open(EngineSettings(url=server.url.replace("unix://", "unix://app:wrong@")), role="test"):
            pass


async def test_a_server_that_comes_back_less_safe_is_marked_degraded(start_server: StartServer) -> None:
    server = await start_server({})
    async with Engine.open(EngineSettings(url=server.url), role="test") as engine:
        assert engine.degraded == ()
        await engine.command("CONFIG SET", "appendfsync", "everysec")
        await engine.command("CLIENT", "PAUSE", "3000", "ALL")
        await eventually(lambda: not engine.up, within=5)
        await engine.until_available(8)
        assert "appendfsync" in engine.degraded[0]
