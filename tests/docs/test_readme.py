"""What the README tells a newcomer to type works as it is written."""

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from hostler.testing.eventually import eventually

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Shell:
    """A folder and an environment, as a newcomer would have them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.started: list[subprocess.Popen[bytes]] = []
        self.env = {key: value for key, value in os.environ.items() if not key.startswith("HOSTLER_")} | {
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "HOSTLER_URL": self.url,
            "HOSTLER_GATEWAY_BIND": f"127.0.0.1:{self.port}",
        }

    def start(self, command: str) -> None:
        log = (self.folder / f"log-{len(self.started)}").open("wb")
        with log:
            self.started.append(
                subprocess.Popen(
                    ["/bin/bash", "-c", "exec " + command],
                    cwd=self.folder,
                    env=self.env,
                    stdout=log,
                    stderr=log,
                )
            )

    def run(self, command: str) -> str:
        done = subprocess.run(
            ["/bin/bash", "-c", command],
            cwd=self.folder,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=40,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}\n{self.logs()}"
        return done.stdout + done.stderr

    def logs(self) -> str:
        return "\n".join(path.read_text() for path in sorted(self.folder.glob("log-*")))

    def stop(self) -> None:
        for process in reversed(self.started):
            process.send_signal(signal.SIGTERM)
        for process in reversed(self.started):
            process.wait(30)


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    shell = Shell(tmp_path)
    try:
        yield shell
    finally:
        shell.stop()


async def answers(shell: Shell, path: str) -> bool:
    try:
        async with aiohttp.ClientSession() as http, http.get(shell.url + path) as reply:
            return (
                reply.status == 200 and "text.shout" in await reply.text() if "workers" in path else reply.status == 200
            )
    except aiohttp.ClientError:
        return False


@pytest.mark.timeout(120)
@pytest.mark.row("000:15")
async def test_the_readme_takes_a_newcomer_from_nothing_to_a_result(shell: Shell) -> None:
    handler, program = blocks("python")
    _, starting, submitting, unservable = blocks("sh")
    (shell.folder / "jobs.py").write_text(handler)
    background = [line.split("&")[0].strip() for line in starting.splitlines() if " &" in line]
    foreground = submitting.splitlines()
    shell.start(background[0])
    await eventually(lambda: answers(shell, "/readyz"), within=30)
    shell.start(background[1])
    await eventually(lambda: answers(shell, "/v1/workers"), within=30)
    shown = [await asyncio.to_thread(shell.run, command) for command in foreground]
    assert "HELLO" in shown[0]
    assert "succeeded" in shown[1]
    body = program.replace("http://127.0.0.1:7700", shell.url).replace("import hostler\n", "")
    script = "import asyncio\nimport hostler\n\nasync def main():\n" + "\n".join(
        "    " + line for line in body.strip().splitlines()
    )
    (shell.folder / "program.py").write_text(script + "\n\nasyncio.run(main())\n")
    assert "HELLO" in await asyncio.to_thread(shell.run, "python program.py")
    submit, explain = unservable.strip().splitlines()
    printed = await asyncio.to_thread(shell.run, submit)
    found = re.search(r"default\.\d+", printed)
    assert found, printed
    explained = await asyncio.to_thread(shell.run, explain.replace("<id>", found.group(0)))
    assert "tier" in explained
    assert "gold" in explained
