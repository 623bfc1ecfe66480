"""A third party judges how jobs on an OpenAI-compatible server are tried again: `llmock report` names each misdeed."""

import asyncio
import json
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from hostler.connectors.catalogue import build
from hostler.contracts.rates import RateHint
from hostler.kernel.errors import ServiceUnavailableError
from hostler.testing.environments import environment_python
from hostler.testing.eventually import eventually
from hostler.testing.fabric import Fabric

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="session")
def llmock_program() -> Path:
    """The command `llmock`, in an environment of its own that is built once into `.cache`."""
    try:
        return environment_python(ROOT / "requirements" / "llmock.txt", ROOT / ".cache").with_name("llmock")
    except ServiceUnavailableError as error:
        pytest.skip(error.message)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@asynccontextmanager
async def llmock(program: Path, *flags: str) -> AsyncGenerator[str]:
    port = free_port()
    server = await asyncio.create_subprocess_exec(
        str(program),
        "serve",
        "--port",
        str(port),
        *flags,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"

    async def answers() -> bool:
        try:
            async with aiohttp.ClientSession() as http, http.get(f"{url}/health") as answer:
                return answer.status == 200
        except aiohttp.ClientError:
            return False

    try:
        await eventually(answers, within=60, every=0.1)
        yield url
    finally:
        server.kill()
        await server.wait()


async def verdict(program: Path, url: str) -> tuple[int | None, dict[str, object]]:
    command = (str(program), "report", "--url", url, "--strict", "--json")
    report = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    out, _ = await report.communicate()
    return report.returncode, json.loads(out)


def chat(number: int, model: str = "gpt-4o") -> dict[str, object]:
    return {"model": model, "messages": [{"role": "user", "content": f"question {number}"}]}


REFUSALS = [
    {"type": "fail", "status": 429, "retry_after": 1.5},
    {"type": "fail", "status": 503, "retry_after": 1.5},
    {"type": "fail", "status": 500},
    {"type": "fail", "status": 502},
    {"type": "fail", "status": 400},
]
BREAKS = [{"type": "stream_fault", "kind": kind, "after_chunks": 2} for kind in ("truncate", "disconnect", "malformed")]


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.row("001:209", "001:198")
async def test_a_third_party_finds_no_fault_in_how_refused_and_broken_requests_are_tried_again(
    fabric: Fabric, llmock_program: Path
) -> None:
    script = [{**each, "match": {"model": "gpt-4o"}} for each in REFUSALS]
    script += [{**each, "match": {"model": "gpt-4o-mini"}} for each in BREAKS]
    async with llmock(llmock_program, "--stream-chunk-delay-ms", "50") as url:
        async with (
            aiohttp.ClientSession() as http,
            http.post(f"{url}/_llmock/scenario", json={"behaviors": script}) as made,
        ):
            assert made.status == 201, await made.text()
        async with fabric.worker(connectors=[build("openai-http", url=url, slots=8)], slots=8):
            jobs = [await fabric.submit("chat.complete", chat(number)) for number in range(5)]
            jobs += [await fabric.submit("chat.complete", chat(number, "gpt-4o-mini")) for number in range(5, 8)]
            ended = [await fabric.ended(job, within=120) for job in jobs]
        code, found = await verdict(llmock_program, url)
    ends = [job.state.value for job in ended]
    assert sorted(ends) == ["dead"] + ["succeeded"] * 7  # nobody tries again what was called wrong
    assert found["findings"] == []
    assert (code, found["passed"], found["faults_injected"]) == (0, True, 8)
    assert sum(not attempt.counted for job in ended for attempt in job.attempts) == 2


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.row("001:209")
async def test_a_third_party_that_counts_requests_per_minute_is_waited_for_as_long_as_it_says(
    fabric: Fabric, llmock_program: Path
) -> None:
    hints: list[RateHint] = []
    async with llmock(llmock_program, "--rpm", "60") as url:
        connector = build("openai-http", url=url, slots=8, on_rate_hint=hints.append)
        async with fabric.worker(connectors=[connector], slots=8):
            jobs = [await fabric.submit("chat.complete", chat(number)) for number in range(64)]
            found = [await fabric.ended(job, within=120) for job in jobs]
        code, report = await verdict(llmock_program, url)
    assert [job.state.value for job in found] == ["succeeded"] * 64
    assert not any(attempt.counted for job in found for attempt in job.attempts)
    assert (code, report["findings"]) == (0, [])
    rooms = [hint.requests for hint in hints if hint.status == 200 and hint.requests is not None]
    assert min(room.remaining for room in rooms if room.remaining is not None) == 0  # so it was said before the 429
    assert all(room.limit == 60 and room.reset is not None for room in rooms)
