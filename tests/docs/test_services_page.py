"""What the page about services tells a reader to type works as it is written."""

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostler.cli.config import load
from hostler.contracts.queue import Retention
from hostler.kernel.settings import Settings
from hostler.kernel.sources import Sources, Text, read_settings
from hostler.kernel.spec import CONVENTIONAL_PORTS
from hostler.policy.affinity import LABEL
from hostler.testing.eventually import eventually

PAGE = (Path(__file__).resolve().parents[2] / "docs/services.md").read_text()
BIN = Path(sys.executable).parent


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_the_settings_on_the_page_are_settings() -> None:
    pool, _ = blocks("toml")
    reading = read_settings(Sources(file=Text(name="hostler.toml", text=pool), environment={}, flags={}))
    assert reading.problems == ()
    assert reading.settings.connectors["pool"].dns == tomllib.loads(pool)["connectors"]["pool"]["dns"]


def test_the_kind_on_the_page_says_where_its_payloads_name_their_session(tmp_path: Path) -> None:
    _, kinds = blocks("toml")
    file = tmp_path / "hostler.toml"
    file.write_text(kinds)
    (kind,) = load({}, config=str(file)).kinds
    assert kind.affinity == ("/style", "/seed")
    assert f"`{LABEL}`" in PAGE
    assert Retention().affinity == 30 * 60


@pytest.mark.row("002:82")
def test_the_one_table_of_ports_is_what_the_code_goes_by() -> None:
    table = dict(re.findall(r"^\| `?([\w -]+?)`? \| (\d+) \|$", PAGE, re.MULTILINE))
    gateway = Settings().gateway.bind.rpartition(":")[2]
    assert table == {"the gateway": gateway, **{name: str(port) for name, port in CONVENTIONAL_PORTS.items()}}


class Typist:
    """Types the commands of the page in one folder, on ports that are free."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        gateway, service = free_port(), free_port()
        self._swap = {"8477": str(service)}
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("HOSTLER_")}
        self.environment |= {
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "HOSTLER_URL": f"http://127.0.0.1:{gateway}",
            "HOSTLER_GATEWAY_BIND": f"127.0.0.1:{gateway}",
        }
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def words(self, command: str) -> list[str]:
        for written, real in self._swap.items():
            command = command.replace(written, real)
        return shlex.split(command)

    def start(self, name: str, command: str) -> None:
        with (self.folder / f"{name}.log").open("wb") as log:
            self.running[name] = subprocess.Popen(
                self.words(command), cwd=self.folder, env=self.environment, stdout=log, stderr=log
            )

    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.words(command),
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()


@pytest.fixture
def typist() -> Iterator[Typist]:
    """The folder has a short path: it holds the engine's socket."""
    with tempfile.TemporaryDirectory(prefix="hsvc", dir="/tmp") as folder:
        found = Typist(Path(folder))
        yield found
        for process in reversed(found.running.values()):
            process.send_signal(signal.SIGTERM)
        for process in reversed(found.running.values()):
            process.wait(60)


@pytest.mark.timeout(180)
@pytest.mark.row("000:46", "001:226", "001:217")
async def test_the_commands_of_the_page_register_a_service_that_gets_a_job_and_leaves_when_it_is_killed(
    typist: Typist,
) -> None:
    up, sim, register, submit, list_, explain = "".join(blocks("bash")).strip().splitlines()
    typist.start("up", up)
    await eventually(lambda: "ready:" in typist.log("up"), within=60.0)
    typist.start("sim", sim)
    typist.start("register", register)
    await eventually(lambda: "lamp is announced" in typist.log("register"), within=60.0)
    done = typist.run(submit)
    assert done.returncode == 0, (done, typist.log("up"))
    assert "lamp" in typist.run(list_).stdout
    assert "lamp gets jobs: ready; it was announced" in typist.run(explain).stdout
    killed = typist.running.pop("sim")
    killed.kill()
    killed.wait(30)

    def gone() -> bool:
        return json.loads(typist.run(f"{list_} --json").stdout)["items"] == []

    await eventually(gone, within=30.0, every=0.5)
    assert "lamp is not announced" in typist.log("register")
