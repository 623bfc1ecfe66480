"""The simulated Ollama is judged by Ollama's own client, and run as the command that users type."""

import asyncio
import json
import sys
from collections.abc import AsyncGenerator
from pathlib import Path

import aiohttp
import httpx
import ollama
import pytest
from msgspec import structs

from hostler.testing.eventually import eventually
from hostler.testing.sims.ollama import OllamaHTTPService
from hostler.testing.sims.ollama_knobs import OllamaKnobs, Trouble

QUICK = OllamaKnobs(load=0.05, first_token=0.001, token=0.001, tokens=6, pull=0.02)
HELLO = [{"role": "user", "content": "Where is the lighthouse?"}]


@pytest.fixture
async def server() -> AsyncGenerator[OllamaHTTPService]:
    async with OllamaHTTPService(QUICK) as service:
        yield service


@pytest.fixture
async def client(server: OllamaHTTPService) -> AsyncGenerator[ollama.AsyncClient]:
    found = ollama.AsyncClient(host=server.url, trust_env=False)
    yield found
    await found.close()


@pytest.mark.row("002:84")
async def test_the_official_client_chats_and_sees_the_load_that_came_first(client: ollama.AsyncClient) -> None:
    stream = await client.chat("sim-chat", HELLO, stream=True)  # pyright: ignore[reportUnknownMemberType] - the client's own gap
    parts = [part async for part in stream]
    whole = await client.chat("sim-chat", HELLO, think=True)  # pyright: ignore[reportUnknownMemberType] - as above
    assert [part.done for part in parts] == [False] * 6 + [True]
    assert "".join(part.message.content or "" for part in parts) == whole.message.content != ""
    assert whole.message.thinking
    last = parts[-1]
    assert (last.done_reason, last.eval_count, last.model) == ("stop", 6, "sim-chat")
    assert (last.load_duration or 0) >= 50_000_000 > (whole.load_duration or 0)
    assert (last.total_duration or 0) > (last.load_duration or 0)


async def test_the_official_client_calls_tools_generates_and_embeds(client: ollama.AsyncClient) -> None:
    def weather(city: str) -> str:
        """Tell the weather."""
        return city

    asked = await client.chat("sim-chat", HELLO, tools=[weather])  # pyright: ignore[reportUnknownMemberType] - as above
    assert asked.message.tool_calls
    call = asked.message.tool_calls[0].function
    assert (call.name, call.arguments) == ("weather", {"city": "sim"})
    said = await client.chat("sim-chat", HELLO, format="json")  # pyright: ignore[reportUnknownMemberType] - as above
    assert "answer" in json.loads(said.message.content or "")
    short = await client.generate("sim-chat", "Once", options={"num_predict": 3})
    assert (short.done_reason, len((short.response or "").split())) == ("length", 3)
    vectors = (await client.embed("sim-embed", ["a", "b", "a"], dimensions=8)).embeddings
    assert len(vectors) == 3
    assert {len(vector) for vector in vectors} == {8}
    assert list(vectors[0]) == list(vectors[2]) != list(vectors[1])


async def test_the_official_client_pulls_copies_shows_and_deletes_models(client: ollama.AsyncClient) -> None:
    progress = [part async for part in await client.pull("sim-extra", stream=True)]
    layers = [part for part in progress if part.digest]
    assert (progress[0].status, progress[-1].status) == ("pulling manifest", "success")
    assert len({part.digest for part in layers}) == 2
    assert layers[-1].completed == layers[-1].total
    await client.copy("sim-extra", "mine")
    await client.delete("sim-extra")
    names = {model.model for model in (await client.list()).models}
    assert names == {"sim-chat:latest", "sim-large:latest", "sim-embed:latest", "mine:latest"}
    assert (await client.show("sim-embed")).capabilities == ["embedding"]
    assert (await client.pull("mine")).status == "success"


async def test_the_official_client_sees_models_come_and_go_in_memory(
    client: ollama.AsyncClient, server: OllamaHTTPService
) -> None:
    async def held() -> list[str]:
        return [model.model or "" for model in (await client.ps()).models]

    assert (await client.generate("sim-chat")).done_reason == "load"
    assert await held() == ["sim-chat:latest"]
    await client.generate("sim-large", keep_alive="2h")
    assert await held() == ["sim-chat:latest", "sim-large:latest"]
    await client.embed("sim-embed", "a", keep_alive=-1)  # three do not fit: the one that would go first goes
    rows = (await client.ps()).models
    assert [row.model for row in rows] == ["sim-large:latest", "sim-embed:latest"]
    assert all(row.size_vram == 400_000_000 and row.expires_at for row in rows)
    assert (await client.generate("sim-large", keep_alive=0)).done_reason == "unload"
    assert await held() == ["sim-embed:latest"]
    server.knobs = structs.replace(server.knobs, keep_alive=0.02)
    await client.generate("sim-chat")
    await eventually(lambda: _is_held(client, ["sim-embed:latest"]))


async def _is_held(client: ollama.AsyncClient, names: list[str]) -> bool:
    return [model.model for model in (await client.ps()).models] == names


@pytest.mark.parametrize(
    ("trouble", "status"), [("server_error", 500), ("server_busy", 503), ("out_of_memory", 500), ("error_line", -1)]
)
async def test_the_official_client_is_told_of_each_trouble_as_the_real_server_would(
    client: ollama.AsyncClient, server: OllamaHTTPService, trouble: Trouble, status: int
) -> None:
    server.knobs = structs.replace(server.knobs, failures={trouble: 1.0})
    with pytest.raises(ollama.ResponseError) as caught:
        _ = [part async for part in await client.generate("sim-chat", "Once", stream=True)]
    assert caught.value.status_code == status
    assert caught.value.error


async def test_the_official_client_is_refused_what_a_model_cannot_do(client: ollama.AsyncClient) -> None:
    with pytest.raises(ollama.ResponseError) as absent:
        await client.generate("nobody", "Once")
    with pytest.raises(ollama.ResponseError) as mute:
        await client.generate("sim-embed", "Once")
    with pytest.raises(ollama.ResponseError) as nowhere:
        await client.pull("nobody")
    assert (absent.value.status_code, mute.value.status_code, nowhere.value.status_code) == (404, 400, 500)


async def test_a_broken_connection_is_the_official_clients_own_error(
    client: ollama.AsyncClient, server: OllamaHTTPService
) -> None:
    server.knobs = structs.replace(server.knobs, failures={"cut": 1.0})
    with pytest.raises(httpx.HTTPError):
        _ = [part async for part in await client.generate("sim-chat", "Once", stream=True)]


async def test_the_command_runs_it_with_the_knobs_that_were_typed(tmp_path: Path) -> None:
    program = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "hostler", "sim", "ollama", "--port", "0", "--json", "--tokens", "3", "--load", "0"),
        *("--model", "mine", "--fail", "unended=0", "--effects", str(tmp_path / "effects.ndjson"), "--tether"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert program.stdin is not None
    assert program.stdout is not None
    try:
        async with asyncio.timeout(20):
            url = json.loads(await program.stdout.readline())["url"]
        client = ollama.AsyncClient(host=url, trust_env=False)
        assert (await client.generate("mine", "Once")).eval_count == 3
        await client.close()
        async with aiohttp.ClientSession() as http, http.get(f"{url}/sim/effects") as answer:
            effects = [effect["type"] for effect in (await answer.json())["effects"]]
        assert effects == ["started", "finished"]
        assert len((tmp_path / "effects.ndjson").read_bytes().splitlines()) == 2
    finally:
        program.stdin.close()
        async with asyncio.timeout(10):
            await program.wait()
    assert program.returncode == 0
