"""The page on shared limits: its table and its program are true."""

import re
from collections.abc import Awaitable, Callable, Generator
from pathlib import Path
from typing import cast

import msgspec
import pytest

from hostler.connectors.catalogue import build
from hostler.dispatch.account import Account
from hostler.kernel.settings import Settings
from hostler.policy.limits import parse
from hostler.testing.bench import Clients, Server
from hostler.testing.connectors_house import Work, call_of

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
    connector = build(entry.connector, url=entry.url or "")
    call = call_of(Work(kind="chat.complete", payload={"model": "small", "messages": [{"role": "user"}]}))
    wants = Account(connector, entry.limits, entry.price).wants(call)
    assert [(want.limit.most, want.limit.unit, narrow) for want, narrow in wants] == [
        (3, None, False),
        (5000, None, False),
        (60, None, True),
        (100_000, "tokens", True),
        (500_000, "millicents", False),
        (2, None, True),
    ]


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
