"""Shared limits on the engine."""

from collections.abc import AsyncGenerator, Generator
from datetime import datetime

import pytest

from hostler.contracts.limit import Grant
from hostler.registry.limits import EngineLimiter
from hostler.testing.bench import Clients, Server
from hostler.testing.broker_engine import HeldClock
from hostler.testing.limits import LimiterConformance, LimiterHarness, most_in_a_window, waits, want
from hostler.testing.limits_line import LineConformance
from hostler.valkeyio.client import send
from hostler.valkeyio.keys import owner_of
from hostler.valkeyio.library import Library
from hostler.valkeyio.library_text import Build

HOUR = 3600.0
DAY = 86_400.0


@pytest.fixture(scope="module")
def server() -> Generator[Server]:
    found = Server()
    found.start("--appendfsync", "no")
    yield found
    found.kill()


@pytest.fixture(autouse=True)
def no_blocking_calls() -> None:
    """Let the harness start a server where the loop runs: it is no part of what is tested."""


@pytest.fixture
async def clients(server: Server) -> AsyncGenerator[Clients]:
    await server.up()
    found = Clients(server.socket)
    await send(found.client, "FLUSHALL")
    yield found
    await found.aclose()


@pytest.fixture
async def harness(server: Server, clients: Clients) -> AsyncGenerator[LimiterHarness]:
    build = Build(clock="key")
    await Library(clients, build=build).ensure()
    clock = HeldClock(clients)
    await clock.write()
    others = Clients(server.socket)
    yield LimiterHarness(
        limiter=EngineLimiter(clients, library=Library(clients, build=build)),
        other=EngineLimiter(others, library=Library(others, build=build)),
        advance=clock.advance,
    )
    await others.aclose()


class TestEngineLimiter(LimiterConformance):
    @pytest.fixture
    async def harness(self, harness: LimiterHarness) -> LimiterHarness:
        return harness


class TestEngineLine(LineConformance):
    @pytest.fixture
    async def harness(self, harness: LimiterHarness) -> LimiterHarness:
        return harness


async def test_every_key_of_a_limit_has_an_end(harness: LimiterHarness, clients: Clients) -> None:
    await harness.limiter.take("a", [want("4 cents/day burst 4", 4, name="a"), want("in_flight 2", name="b")])
    await harness.limiter.hold("c", 9.0)
    keys: list[bytes] = list(await send(clients.client, "KEYS", "h:{reg}:lim:*"))
    assert [key[-1:] for key in sorted(keys)] == [b"a", b"b", b"c"]
    for key in keys:
        row = owner_of(key)
        assert row is not None
        assert row.lifetime == "timed"
        assert await send(clients.client, "PTTL", key) > 0
    await harness.advance(30 * DAY)
    assert await send(clients.client, "KEYS", "h:{reg}:lim:*") == []


@pytest.mark.row("003:329")
async def test_an_hourly_limit_holds_for_an_hour_and_calls_wait_instead_of_being_refused(
    harness: LimiterHarness,
) -> None:
    hourly, spent = want("5000/h burst 500", name="api"), 0.0
    times: list[datetime] = []
    while spent < 1.25 * HOUR:
        for limiter in (harness.limiter, harness.other):
            answer = await limiter.take("call", [hourly])
            if isinstance(answer, Grant):
                times.append(answer.at)
                continue
            step = max(answer.after, 60.0)
            spent += step
            await harness.advance(step)
    in_an_hour = most_in_a_window(times, HOUR)
    assert 4_900 <= in_an_hour <= 5_000


@pytest.mark.row("003:328")
async def test_a_budget_of_tokens_and_money_holds_and_who_waits_hears_of_which_and_how_long(
    harness: LimiterHarness,
) -> None:
    tokens = want("10000 tokens/min burst 4000", 2000, name="key.tokens")
    cents = want("90 cents/day burst 60", 2, name="key.cents")
    wants = [tokens, cents]
    times: list[datetime] = []
    used: list[int] = []
    for number in range(60):
        call = f"{number}"
        limiter = (harness.limiter, harness.other)[number % 2]
        answer = await limiter.take(call, wants)
        if isinstance(answer, Grant):
            times.append(answer.at)
            used.append(500 + number)
            await limiter.settle(call, wants, used={"key.tokens": 500 + number})
        else:
            assert answer.limit in {"key.tokens", "key.cents"}
            if answer.limit == "key.cents":
                break
            await harness.advance(answer.after)
    assert most_in_a_window(times, 60.0, used) <= 10_000
    assert len(times) * 2 <= 90
    assert (await waits(harness.other, "last", cents)).after > 60.0
