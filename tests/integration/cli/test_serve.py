"""`hostler serve nlp`: it says when it is ready, ends in order, and lets no stranger in by mistake."""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import aiohttp
import pytest

HOSTLER = str(Path(sys.executable).parent / "hostler")


async def serve(*arguments: str, **variables: str) -> asyncio.subprocess.Process:
    env = {key: value for key, value in os.environ.items() if not key.startswith("HOSTLER_")} | variables
    return await asyncio.create_subprocess_exec(
        HOSTLER,
        "serve",
        "nlp",
        "--json",
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=env,
    )


@pytest.mark.row("002:88", "002:149")
async def test_it_is_ready_at_once_answers_and_ends_with_0_on_sigterm() -> None:
    process = await serve("--port", "0", "--provider", "keywords", "--provider", "spelling", "--preload", "keywords")
    assert process.stdout is not None
    ready = json.loads(await process.stdout.readline())
    assert ready["event"] == "ready"
    question = {"first": "маяк", "second": "МАЯК"}
    async with aiohttp.ClientSession() as http:
        async with http.post(f"{ready['url']}/providers/spelling/compare", json=question) as answer:
            assert (await answer.json())["result"]["score"] == 1.0
        async with http.get(f"{ready['url']}/providers") as answer:
            assert [row["name"] for row in (await answer.json())["providers"]] == ["keywords", "spelling"]
    process.send_signal(signal.SIGTERM)
    out, _ = await asyncio.wait_for(process.communicate(), 30)
    assert json.loads(out.splitlines()[-1]) == {"event": "stopped"}
    assert process.returncode == 0


async def test_without_its_extra_it_does_not_begin_and_says_what_to_install_or_what_goes_without(
    tmp_path: Path,
) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['gensim'] = sys.modules['dateparser'] = None\n")
    process = await serve("--port", "0", PYTHONPATH=str(tmp_path))
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 1
    error = json.loads(out)["error"]
    assert error["code"] == "missing-extra"
    assert "pip install 'hostler[nlp]'" in error["message"]
    advice = "serve the rest: --provider keywords --provider spelling"
    assert advice in err.decode()
    rest = await serve("--port", "0", *advice.split()[3:], "--preload", "keywords", PYTHONPATH=str(tmp_path))
    assert rest.stdout is not None
    assert json.loads(await rest.stdout.readline())["event"] == "ready"
    rest.send_signal(signal.SIGTERM)
    await asyncio.wait_for(rest.communicate(), 30)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--host", "0.0.0.0"), "--key-env"),
        (("--wait", "-3"), "wait"),
    ],
)
async def test_what_cannot_be_meant_is_refused_in_one_sentence(arguments: tuple[str, ...], words: str) -> None:
    process = await serve("--port", "0", *arguments)
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode in {1, 2}
    assert words in json.loads(out)["error"]["message"]
    assert err.decode().startswith("hostler: ")
