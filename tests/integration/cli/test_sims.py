"""The commands that run simulated services, driven from outside."""

import asyncio
import json
import signal
from typing import Any, Protocol

import pytest

from hostler.connectors.catalogue import build
from hostler.contracts.service import Failed, Finished
from hostler.testing.connectors import Work, call_of, steps_of
from hostler.testing.sims.comfyui_workflows import text_to_image
from hostler.testing.sims.effects import read_effects


class Shell(Protocol):
    folder: Any
    environment: dict[str, str]

    def command(self, *arguments: str) -> list[str]: ...

    def run(self, *arguments: str) -> Any: ...


@pytest.mark.row("000:20")
async def test_hostler_sim_websocket_serves_with_its_knobs_and_its_log_until_it_is_told_to_stop(shell: Shell) -> None:
    path = shell.folder / "effects.ndjson"
    child = await asyncio.create_subprocess_exec(
        *shell.command(
            "sim", "websocket", "--port", "0", "--effects", str(path), "--fail", "out_of_memory=1", "--json"
        ),
        env=shell.environment,
        stdout=asyncio.subprocess.PIPE,
    )
    assert child.stdout is not None
    try:
        ready = json.loads(await child.stdout.readline())
        assert ready["url"].startswith("ws://127.0.0.1:")
        async with build("simulation-websocket", url=ready["url"]) as connector:
            work = Work(kind="image.generate", payload={"prompt": "a lighthouse", "duration": 0.05})
            end = (await steps_of(connector, call_of(work)))[-1]
        assert isinstance(end, Failed)
        assert end.failure.label == "out_of_memory"
        child.send_signal(signal.SIGTERM)
        stopped = json.loads(await child.stdout.readline())
        assert await asyncio.wait_for(child.wait(), 20) == 0
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    assert stopped == {"event": "stopped", "effects": 2}
    assert [effect.type for effect in read_effects(path)] == ["started", "failed"]


def test_knobs_that_make_no_sense_are_refused_by_the_command_that_was_typed(shell: Shell) -> None:
    for name in ("http", "websocket"):
        ran = shell.run("sim", name, "--slots", "0")
        assert ran.code != 0
        assert f"hostler sim {name}" in ran.err


@pytest.mark.row("001:206")
async def test_hostler_sim_comfyui_serves_the_dialect_that_it_is_told_until_it_is_told_to_stop(shell: Shell) -> None:
    path = shell.folder / "effects.ndjson"
    arguments = ("--port", "0", "--effects", str(path), "--dialect", "old", "--duration", "0.05", "--json")
    child = await asyncio.create_subprocess_exec(
        *shell.command("sim", "comfyui", *arguments), env=shell.environment, stdout=asyncio.subprocess.PIPE
    )
    assert child.stdout is not None
    try:
        ready = json.loads(await child.stdout.readline())
        async with build("comfyui-http", url=ready["url"], options={"poll": 0.1}) as connector:
            assert (await connector.probe()).version == "v0.2.3-12-g1a2b3c4"
            work = Work(kind="comfyui.workflow", payload={"workflow": text_to_image()})
            end = (await steps_of(connector, call_of(work)))[-1]
        assert isinstance(end, Finished)
        child.send_signal(signal.SIGTERM)
        stopped = json.loads(await child.stdout.readline())
        assert await asyncio.wait_for(child.wait(), 20) == 0
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    assert stopped == {"event": "stopped", "effects": 2}
    assert [effect.type for effect in read_effects(path)] == ["started", "finished"]
