"""What the page about language tells to type works as it is written."""

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Generator
from pathlib import Path

import aiohttp
import pytest

from hostler.connectors.services.nlp.nlp_http import PAYLOADS
from hostler.testing.eventually import eventually

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "connectors" / "nlp.md").read_text(encoding="utf-8")
BIN = Path(sys.executable).parent


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_the_table_of_kinds_names_the_fields_that_they_take() -> None:
    rows = dict(re.findall(r"^\| `nlp\.(\w+)` \| (.*?) \|", PAGE, re.MULTILINE))
    taken = {verb: set(re.findall(r"`(\w+)`", row)) for verb, row in rows.items()}
    assert taken == {verb: set(payload.__struct_fields__) for verb, payload in PAYLOADS.items()}


Background = Callable[[str], None]


@pytest.fixture
def environment() -> dict[str, str]:
    gateway = free_port()
    return {key: value for key, value in os.environ.items() if not key.startswith("HOSTLER_")} | {
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "HOSTLER_URL": f"http://127.0.0.1:{gateway}",
        "HOSTLER_GATEWAY_BIND": f"127.0.0.1:{gateway}",
    }


@pytest.fixture
def background(tmp_path: Path, environment: dict[str, str]) -> Generator[Background]:
    started: list[subprocess.Popen[bytes]] = []

    def start(command: str) -> None:
        words = ["/bin/bash", "-c", f"exec {command}"]
        with (tmp_path / f"log-{len(started)}").open("wb") as log:
            started.append(subprocess.Popen(words, cwd=tmp_path, env=environment, stdout=log, stderr=log))

    yield start
    for process in reversed(started):
        process.send_signal(signal.SIGTERM)
    for process in reversed(started):
        assert process.wait(30) == 0


async def holds(url: str, word: str) -> bool:
    try:
        async with aiohttp.ClientSession() as http, http.get(url) as answer:
            return answer.status == 200 and word in await answer.text()
    except aiohttp.ClientError:
        return False


def waits_for(url: str, word: str) -> Callable[[], Awaitable[bool]]:
    return lambda: holds(url, word)


@pytest.mark.timeout(170)
@pytest.mark.row("002:83", "002:180")
async def test_the_page_about_language_leads_to_two_results(
    tmp_path: Path, environment: dict[str, str], background: Background
) -> None:
    port = str(free_port())
    serving, using = (block.replace("8001", port) for block in blocks("sh"))
    (settings,) = blocks("toml")
    (tmp_path / "hostler.toml").write_text(settings.replace("8001", port), encoding="utf-8")
    up, *submits = using.strip().splitlines()
    background(serving.split("&")[0])
    await eventually(waits_for(f"http://127.0.0.1:{port}/readyz", "keywords"), within=60)
    background(up.split("&")[0])
    await eventually(waits_for(f"{environment['HOSTLER_URL']}/v1/workers", "nlp.analyze"), within=60)
    said: list[str] = []
    for submit in submits:
        words = ["/bin/bash", "-c", f"{submit} --json"]
        done = await asyncio.to_thread(
            subprocess.run,
            words,
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        said.append(done.stdout)
    assert "kalte Wasser" in said[0]
    assert '"score"' in said[1]
