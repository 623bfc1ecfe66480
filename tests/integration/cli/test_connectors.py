"""`hostler connectors`: what there is, and what one makes of a live service."""

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hostler.connectors.catalogue import INSTALLED
from hostler.testing.connectors_check import NEEDS, SUPPORTS, all_promises

from .conftest import Ran, Shell

PAGE = Path(__file__).parents[3] / "docs" / "connectors" / "http-json.md"
PAINT = ("--kind", "lighthouse.paint", "--payload", '{"prompt": "a ship"}')


async def check(shell: Shell, *arguments: str, **environment: str) -> Ran:
    """Check a connector with the lighthouse of the page as an entry of the settings."""
    (shell.folder / "hostler.toml").write_text(PAGE.read_text().partition("```toml\n")[2].partition("```")[0])
    return await asyncio.to_thread(shell.run, "connectors", "check", *arguments, within=120, **environment)


@pytest.mark.row("002:113", "000:41")
def test_list_shows_class_kinds_and_package_and_why_one_is_broken(shell: Shell) -> None:
    metadata = shell.folder / "dusk-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: dusk\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[hostler.connectors]\ndusk-http = absent_module:DuskHttpConnector\n")
    ran = shell.run("connectors", "list", "--json", PYTHONPATH=str(shell.folder))
    rows = {row["name"]: row for row in ran.last["items"]}
    assert ran.code == 0
    assert set(rows) == {*INSTALLED.names(), "dusk-http"}
    assert rows["simulation-http"] == {
        "name": "simulation-http",
        "class": "hostler.connectors.services.simulation.simulation_http:SimulationHttpConnector",
        "kinds": ["image.generate", "sim.echo"],
        "source": "hostler",
        "broken": None,
    }
    assert all(row["kinds"] or name in {"http-json", "process", "dusk-http"} for name, row in rows.items())
    assert rows["dusk-http"]["source"] == "dusk"
    assert "No module named 'absent_module'" in rows["dusk-http"]["broken"]
    shown = shell.run("connectors", "list", PYTHONPATH=str(shell.folder)).out
    assert "broken: ModuleNotFoundError" in shown
    assert "by its options" in shown


def test_list_shows_what_an_absent_extra_keeps_from_working_and_all_the_rest(shell: Shell) -> None:
    (shell.folder / "sitecustomize.py").write_text(
        "import sys\nsys.modules['grpc'] = sys.modules['google.protobuf'] = None\n"
    )
    ran = shell.run("connectors", "list", "--json", PYTHONPATH=str(shell.folder))
    assert ran.code == 0, ran.err
    rows = {row["name"]: row for row in ran.last["items"]}
    assert {name for name, row in rows.items() if row["broken"]} == {"inference-grpc", "simulation-grpc"}
    assert "pip install 'hostler[grpc]'" in rows["simulation-grpc"]["broken"]
    assert rows["simulation-http"]["kinds"] == ["image.generate", "sim.echo"]


@pytest.mark.timeout(180)
@pytest.mark.row("002:281")
async def test_check_puts_the_promises_to_a_live_service(shell: Shell, lighthouse: Any) -> None:
    slow = ("--slow", '{"prompt": "a ship", "seconds": 20}', "--wrong", '{"prompt": ""}')
    ran = await check(shell, "lighthouse", lighthouse.url, *PAINT, *slow, "--json")
    assert ran.code == 0, ran.out
    assert ran.last["probe"]["state"] == "ready"
    assert ran.last["capabilities"]["models"] == ["oil", "ink"]
    assert ran.last["end"]["result"]["of"] == "a ship"
    assert ran.last["supports"] == dict.fromkeys(SUPPORTS, "kept")
    assert [row["outcome"] for row in ran.last["promises"]] == ["kept"] * len(NEEDS)
    assert (await lighthouse.get("/counts"))["busy"] == 0


async def test_check_finds_the_promise_that_a_service_breaks_and_exits_1(shell: Shell, lighthouse: Any) -> None:
    await lighthouse.put("/moods", {"empty": True})
    ran = await check(shell, "lighthouse", lighthouse.url, "--kind", "lighthouse.embed", "--payload", '{"text": "x"}')
    assert ran.code == 1
    assert "broken   work ends in exactly one end after progress that only rises" in ran.out
    assert "gives no result at /vector" in ran.out
    assert "supports: probe kept, capabilities kept, work broken" in ran.out


async def test_check_without_work_only_looks(shell: Shell, lighthouse: Any) -> None:
    ran = await check(shell, "lighthouse", lighthouse.url)
    assert ran.code == 0, ran.out
    assert "lighthouse" in ran.out
    assert ran.out.count("untried") == len(NEEDS) - 2 + len(SUPPORTS) - 2
    assert (await lighthouse.get("/counts"))["executed"] == 0


async def test_check_of_nobody_and_of_nonsense_says_so(shell: Shell) -> None:
    nobody = await check(shell, "lighthouse", "http://127.0.0.1:9", "--json")
    assert (nobody.code, nobody.last["probe"]["state"], nobody.last["outcome"]) == (1, "unhealthy", "bad")
    asked = await check(shell, "lighthouse", "http://127.0.0.1:9", *PAINT)
    assert asked.code == 1
    assert "the service is unhealthy, so nothing is asked of it: start it, or correct the URL" in asked.out
    assert "AssertionError" not in asked.out
    assert "broken " not in asked.out
    unknown = await check(shell, "lighthose", "http://127.0.0.1:9")
    assert unknown.code == 1
    assert "unknown connector 'lighthose'" in unknown.err
    for wrong in (("simulation-http",), ("lighthouse", "--payload", "{"), ("lighthouse", "--options", "[]")):
        assert (await check(shell, *wrong)).code == 2


def test_check_knows_every_promise_that_needs_no_hold_on_the_service() -> None:
    held = {
        "test_the_same_job_and_fence_runs_once",
        "test_work_that_stops_moving_ends_as_timeout",
        "test_a_completion_that_is_never_announced_is_found",
        "test_a_stream_that_is_cut_is_no_success_and_runs_nothing_twice",
        "test_a_sick_endpoint_touches_no_work",
        "test_no_room_is_overload_with_a_time_to_come_back",
    }
    assert all_promises() == {*NEEDS, *held}


def test_check_needs_no_test_runner() -> None:
    program = "import sys; sys.modules['pytest'] = None; import hostler.testing.connectors_check"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
