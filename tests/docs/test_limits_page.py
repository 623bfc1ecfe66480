"""The page on shared limits: its table and its program are true."""

import re
from collections.abc import Awaitable, Callable, Generator
from pathlib import Path
from typing import cast

import msgspec
import pytest

from hostler.dispatch.limited import rate
from hostler.kernel.settings import Settings
from hostler.policy.limits import parse
from hostler.testing.bench import Clients, Server

PAGE = (Path(__file__).resolve().parents[2] / "docs/limits.md").read_text()


@pytest.fixture
def server() -> Generator[Server]:
    found = Server()
    found.start()
    yield found
    found.kill()


def test_every_form_in_the_table_is_read_with_the_numbers_it_is_explained_by() -> None:
    rows = re.findall(r"^\| `(.+?)` \| (\d+)", PAGE, re.MULTILINE)
    assert len(rows) == 7
    for text, most in rows:
        assert parse(text, name="a").most == int(most)


def test_the_configuration_is_one_that_a_worker_takes() -> None:
    (text,) = re.findall(r"^```toml\n(.+?)^```", PAGE, re.MULTILINE | re.DOTALL)
    entry = msgspec.toml.decode(text, type=Settings).connectors["chat"]
    assert [rate(limit, "x").most for limit in entry.limits] == [3, 5000]


async def test_the_program_calls_once_and_then_says_what_it_waits_for(server: Server) -> None:
    await server.up()
    (program,) = re.findall(r"^```python\n(.+?)^```", PAGE, re.MULTILINE | re.DOTALL)
    names: dict[str, object] = {}
    exec(program, names)
    call = cast("Callable[[Clients], Awaitable[str]]", names["call"])
    clients = Clients(server.socket)
    assert await call(clients) == "called"
    assert re.fullmatch(r"api\.calls: again in 0\.\d\d s", await call(clients))
    await clients.aclose()
