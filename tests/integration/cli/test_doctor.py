"""`hostler doctor`, `backup` and `restore` on real folders and engines."""

import asyncio
import socket

import pytest

from hostler.kernel.settings import EngineSettings
from hostler.valkeyio.engine import Engine
from hostler.valkeyio.library import Library
from hostler.valkeyio.library_text import Build

from .conftest import Ran, Shell


def findings(ran: Ran) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in ran.lines:
        if "check" in line:
            found.setdefault(line["check"], []).append(line["level"])
    return found


@pytest.mark.row("001:91", "000:53")
def test_doctor_lists_every_setting_with_its_source_and_checks_the_engine(shell: Shell) -> None:
    (shell.folder / "hostler.toml").write_text("[gateway]\nbind = '127.0.0.1:0'\n")
    assert shell.run("backup", "--data", "d", "a.tar").code == 0
    ran = shell.run("doctor", "--data", "d", "--json", HOSTLER_WORKER_SLOTS="3", HOSTLER_KEY="tell-nobody")
    settings = {row["name"]: row for row in ran.lines[0]["settings"]}
    assert settings["gateway.bind"]["source"] == "hostler.toml"
    assert settings["worker.slots"] == {"name": "worker.slots", "value": 3, "source": "HOSTLER_WORKER_SLOTS"}
    assert settings["engine.data"]["source"] == "--data"
    assert settings["worker.ttl"]["source"] == "default"
    assert "tell-nobody" not in ran.out
    found = findings(ran)
    assert found["engine"] == ["ok"]
    assert found["clock"] == ["ok"]
    assert found["library"] == ["ok"]
    assert (ran.code, ran.last) == (0, {"outcome": "ok", "bad": 0})


@pytest.mark.row("000:53")
def test_doctor_fails_on_an_open_address_a_taken_port_and_a_service_that_does_not_answer(shell: Shell) -> None:
    with socket.socket() as taken, socket.socket() as silent:
        for each in (taken, silent):
            each.bind(("127.0.0.1", 0))
        taken.listen()
        port, dead = taken.getsockname()[1], silent.getsockname()[1]
        (shell.folder / "hostler.toml").write_text(
            f"[connectors.studio]\nconnector = 'simulation-http'\nurl = 'http://127.0.0.1:{dead}'\n"
        )
        ran = shell.run("doctor", "--json", HOSTLER_GATEWAY_BIND=f"0.0.0.0:{port}")
    found = findings(ran)
    assert ran.code == 1
    assert found["bind"] == ["bad"]
    assert found["gateway"] == ["bad"]
    assert found["endpoint"] == ["bad"]
    assert ran.last == {"outcome": "bad", "bad": 3}
    assert all(line["advice"] for line in ran.lines if line.get("level") == "bad")


def test_a_backup_becomes_a_new_folder_and_nothing_is_ever_overwritten(shell: Shell) -> None:
    assert shell.run("backup", "--data", "d", "a.tar").code == 0
    again = shell.run("backup", "--data", "d", "a.tar")
    assert (again.code, "never overwrites" in again.err) == (1, True)
    restored = shell.run("restore", "a.tar", "e", "--json")
    assert (restored.code, restored.last["folder"]) == (0, "e")
    assert shell.run("restore", "a.tar", "e").code == 1
    assert shell.run("restore", "missing.tar", "f").code == 1
    assert findings(shell.run("doctor", "--data", "e", "--json"))["engine"] == ["ok"]


def test_doctor_puts_this_versions_functions_into_a_folder_of_another_version_only_when_told(shell: Shell) -> None:
    async def of_another_version() -> None:
        async with Engine.open(EngineSettings(data=str(shell.folder / "d")), role="test") as engine:
            await Library(engine, build=Build(clock="key")).replace()

    asyncio.run(of_another_version())
    refused = shell.run("doctor", "--data", "d", "--json", HOSTLER_GATEWAY_BIND="127.0.0.1:0")
    assert (refused.code, findings(refused)["library"]) == (1, ["bad"])
    told = shell.run("doctor", "--replace-library", "--data", "d", "--json", HOSTLER_GATEWAY_BIND="127.0.0.1:0")
    assert (told.code, findings(told)["library"]) == (0, ["ok"])
