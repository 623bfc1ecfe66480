"""The connector for any command keeps every promise of the port, with a process for each job and with one for many."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hostler.connectors.catalogue import build
from hostler.ports.connector import Connector
from hostler.testing.connectors import ConnectorConformance, ConnectorHarness, Hook, Work

ECHOER = Path(__file__).parents[1] / "services" / "echoer.py"
PAYLOAD = {"type": "object", "properties": {"steps": {"type": "integer"}}}


def runs(number: str) -> bool:
    """Whether a process is there and has not ended (a zombie has)."""
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def harness_of(folder: Path, *, served: bool) -> ConnectorHarness:
    begun, moods, health = folder / "begun", folder / "moods", folder / "sick"

    def connector(*command: str) -> Connector:
        options: dict[str, Any] = {
            "command": command,
            "served": served,
            "kinds": [{"name": "echo.do", "payload": PAYLOAD}],
            "environment": {"TRACES": str(folder), "MOODS": str(moods)},
            "grace": 0.5,
            "health": ["test", "!", "-e", str(health)],
        }
        return build("process", url="process:///echo", options=options)

    def mood(write: Callable[[], Any]) -> Hook:
        async def hook() -> None:
            write()

        return hook

    def turn(**change: Any) -> Hook:
        return mood(lambda: moods.write_text(json.dumps(change)))

    async def executed() -> int:
        return len(begun.read_text().splitlines()) if begun.exists() else 0

    async def busy() -> int:
        return 0 if served else sum(map(runs, begun.read_text().split())) if begun.exists() else 0

    return ConnectorHarness(
        build=lambda: connector(sys.executable, "-I", "-S", str(ECHOER)),
        unreachable=lambda: connector("/no/such/program"),
        quick=Work(kind="echo.do", payload={}),
        slow=Work(kind="echo.do", payload={"steps": 400, "slow": 0.05}),
        wrong=Work(kind="echo.do", payload={"steps": "many"}),
        remembers=False,
        executed=executed,
        busy=busy,
        cut=turn(die=True),
        hang=turn(hang=True),
        sick=mood(health.touch),
        full=turn(error={"class": "overloaded", "message": "no room", "retry_after": 3.0}),
    )


@pytest.mark.row("000:47", "001:290", "002:149")
class TestProcessConnector(ConnectorConformance):
    cycles = 5

    @pytest.fixture
    async def harness(self, tmp_path: Path) -> ConnectorHarness:
        return harness_of(tmp_path, served=False)


class TestServedProcessConnector(ConnectorConformance):
    cycles = 5

    @pytest.fixture
    async def harness(self, tmp_path: Path) -> ConnectorHarness:
        return harness_of(tmp_path, served=True)
