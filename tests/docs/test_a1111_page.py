"""What the page about A1111 tells a reader to type works as it is written."""

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import aiohttp
import pytest

from hostler.connectors.catalogue import build
from hostler.testing.eventually import eventually

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/connectors/a1111.md").read_text()
BIN = Path(sys.executable).parent


def block(language: str) -> str:
    (found,) = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return found


def test_the_settings_on_the_page_are_settings() -> None:
    entry = tomllib.loads(block("toml"))["connectors"]["studio"]
    build(entry["connector"], url=entry["url"], options=entry["options"])


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[str, dict[str, str]], None]]:
    """Starts a command of the page, which ends with the test."""
    started: list[subprocess.Popen[bytes]] = []

    def start(command: str, environment: dict[str, str]) -> None:
        with (tmp_path / f"log-{len(started)}").open("wb") as log:
            words = ["/bin/bash", "-c", f"exec {command}"]
            started.append(subprocess.Popen(words, cwd=tmp_path, env=environment, stdout=log, stderr=log))

    yield start
    for process in reversed(started):
        process.send_signal(signal.SIGTERM)
    for process in reversed(started):
        process.wait(30)


@pytest.mark.long
async def test_the_commands_on_the_page_make_a_picture(
    tmp_path: Path, start: Callable[[str, dict[str, str]], None]
) -> None:
    gateway, server = free_ports(2)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HOSTLER_")} | {
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "HOSTLER_URL": f"http://127.0.0.1:{gateway}",
        "HOSTLER_GATEWAY_BIND": f"127.0.0.1:{gateway}",
        "STUDIO_LOGIN": "ada:secret",
    }
    (tmp_path / "hostler.toml").write_text(block("toml").replace("7860", str(server)))
    simulate, run, submit = block("sh").replace("7860", str(server)).strip().splitlines()
    start(simulate.removesuffix(" &"), environment)
    start(run.removesuffix(" &"), environment)

    async def ready() -> bool:
        try:
            async with aiohttp.ClientSession() as http, http.get(f"http://127.0.0.1:{gateway}/readyz") as answer:
                return answer.status == 200
        except aiohttp.ClientError:
            return False

    await eventually(ready, within=60)
    done = await asyncio.to_thread(
        subprocess.run, ["/bin/bash", "-c", submit], cwd=tmp_path, env=environment, capture_output=True, timeout=60
    )
    assert done.returncode == 0, done
    assert b'"media_type":"image/png"' in done.stdout.replace(b" ", b"")
