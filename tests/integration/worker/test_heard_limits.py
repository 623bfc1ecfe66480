"""What a service says of its own limits, heard by one worker and kept by all."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web

from hostler.connectors.catalogue import build
from hostler.contracts.limit import LimitKind
from hostler.contracts.rates import RateHint, Room
from hostler.dispatch.account import Account
from hostler.dispatch.gauge import COOLEST
from hostler.dispatch.hints import Hints
from hostler.dispatch.limited import Limited
from hostler.kernel.settings import PriceSettings
from hostler.policy.limits import gate
from hostler.registry.limits import EngineLimiter
from hostler.testing.bench import Clients
from hostler.testing.eventually import eventually
from hostler.testing.fabric import Fabric

CHAT = {"model": "small", "messages": [{"role": "user", "content": "hello"}], "stream": False, "max_tokens": 100}


@dataclass
class Counted:
    """A chat service that allows so many calls in each second, says so with each answer, and counts tokens."""

    most: int = 1_000_000
    window: float = 1.0
    served: list[str] = field(default_factory=list[str])
    refused: int = 0
    left: dict[int, int] = field(default_factory=dict[int, int])
    both: asyncio.Barrier | None = None
    """The first calls wait here for one another."""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if self.both is not None and len(self.served) < self.both.parties:
            await self.both.wait()
        now = asyncio.get_running_loop().time()
        turn, reset = int(now / self.window), self.window - now % self.window
        left = self.left[turn] = self.left.get(turn, self.most) - 1
        headers = {
            "x-ratelimit-limit-requests": str(self.most),
            "x-ratelimit-remaining-requests": str(max(0, left)),
            "x-ratelimit-reset-requests": f"{reset:.3f}s",
        }
        if left < 0:
            self.refused += 1
            return web.json_response({"error": {"message": "slow down"}}, status=429, headers=headers)
        self.served.append(request.headers.get("authorization", ""))
        body: dict[str, Any] = {
            "id": "c1",
            "model": "small",
            "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10},
        }
        return web.json_response(body, headers=headers)

    async def models(self, _request: web.Request) -> web.StreamResponse:
        return web.json_response({"object": "list", "data": [{"id": "small", "object": "model"}]})


@asynccontextmanager
async def listening(service: Counted) -> AsyncGenerator[str]:
    app = web.Application()
    app.add_routes([web.post("/v1/chat/completions", service.answer), web.get("/v1/models", service.models)])
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        yield f"http://{host}:{port}"
    finally:
        await runner.cleanup()


def chat(
    url: str, limiter: EngineLimiter, limits: Sequence[str] = (), *, who: str = "", price: PriceSettings | None = None
) -> Limited:
    hints = Hints(limiter)
    connector = build("openai-http", url=url, slots=2, api_key=who or None, on_rate_hint=hints.hear)
    return Limited(connector, limiter, Account(connector, limits, price), hints=hints)


@pytest.mark.row("003:330")
async def test_two_workers_slow_down_by_what_the_headers_say_and_never_see_a_429(
    fabric: Fabric, clients: Clients
) -> None:
    service = Counted(most=10, both=asyncio.Barrier(2))
    async with listening(service) as url, AsyncExitStack() as stack:
        for who in ("one", "two"):
            limited = chat(url, EngineLimiter(clients), ["1000/s burst 100"], who=who)
            await stack.enter_async_context(fabric.worker(connectors=[limited], slots=1))
        jobs = [await fabric.submit("chat.complete", CHAT) for _ in range(30)]
        ended = [await fabric.ended(job, within=60.0) for job in jobs]
    assert {job.state for job in ended} == {"succeeded"}
    assert (len(service.served), service.refused) == (30, 0)
    assert set(service.served) == {"Bearer one", "Bearer two"}


@pytest.mark.row("003:330")
async def test_without_a_limit_of_its_own_an_endpoint_that_asked_for_a_pause_is_left_alone_by_all_until_it_is_lifted(
    fabric: Fabric, clients: Clients
) -> None:
    service = Counted(most=1, window=1e8)  # whenever it begins, there is much of it left
    limiter = EngineLimiter(clients)
    async with listening(service) as url, AsyncExitStack() as stack:
        for _ in range(2):
            await stack.enter_async_context(
                fabric.worker(connectors=[chat(url, limiter)], slots=1, limiter=EngineLimiter(clients))
            )
        first = await fabric.submit("chat.complete", CHAT)
        assert (await fabric.ended(first)).state == "succeeded"
        (held,) = await limiter.list()

        async def cooled() -> bool:
            workers = await fabric.ports.registry.workers()
            return all((worker.endpoints[0].traffic.cooled_s or 0.0) > 60.0 for worker in workers)

        await eventually(cooled, within=10.0)
        second = await fabric.submit("chat.complete", CHAT)
        service.most, service.left = 1_000_000, {}
        assert (await fabric.get(second)).state == "ready"
        assert await limiter.lift(held.name)
        assert (await fabric.ended(second)).state == "succeeded"
    assert service.refused == 0


async def test_tokens_and_cents_are_reserved_as_expected_and_settled_as_the_service_counted_them(
    fabric: Fabric, clients: Clients
) -> None:
    limiter = EngineLimiter(clients)
    limits = ["1000 tokens/h burst 500 per model", "100 cents/day burst 90 per tenant", "in_flight 3 per model"]
    async with listening(Counted()) as url:
        limited = chat(url, limiter, limits, price=PriceSettings(call=2, input=1_000_000, output=2_000_000))
        async with fabric.worker(connectors=[limited], slots=1):
            job = await fabric.submit("chat.complete", CHAT, tenant="blue")
            assert (await fabric.ended(job)).state == "succeeded"
        tokens, cents = await limiter.list()
    assert (cents.name, cents.unit, cents.most) == (
        "openai|tenant=blue|100_cents/day_burst_90_per_tenant",
        "cents",
        100,
    )
    assert cents.left == pytest.approx(90 - (2 + 7 + 6), abs=0.01)
    assert (tokens.name, tokens.unit, tokens.left) == (
        "openai|model=small|1000_tokens/h_burst_500_per_model",
        "tokens",
        490,
    )


async def test_a_call_that_the_service_refused_has_used_nothing(fabric: Fabric, clients: Clients) -> None:
    limiter = EngineLimiter(clients)
    async with listening(Counted(most=0, window=1e8)) as url:  # whenever it begins, there is much of it left
        limited = chat(url, limiter, ["1000 tokens/h"])
        async with fabric.worker(connectors=[limited], slots=1):
            job = await fabric.submit("chat.complete", CHAT)

            async def refused() -> bool:
                return bool((await fabric.get(job)).attempts)

            await eventually(refused, within=10.0)
    assert [one.name for one in await limiter.list()] == [gate(limited.endpoint).name]
    assert gate(limited.endpoint).kind is LimitKind.RATE


async def test_one_word_of_a_service_holds_its_endpoint_for_some_minutes_at_most(clients: Clients) -> None:
    limiter = EngineLimiter(clients)
    hints = Hints(limiter)
    hints.gate = gate("e1").name
    hints.hear(RateHint(status=200, retry_after=86_400.0))
    hints.hear(RateHint(status=429, retry_after=86_400.0))
    hints.hear(RateHint(status=200, requests=Room(limit=10, remaining=0, reset=86_400.0)))

    async def told() -> bool:
        return bool(await limiter.list())

    await eventually(told)
    await hints.tell(86_400.0)
    (held,) = await limiter.list()
    assert COOLEST - 60.0 < held.held_s <= COOLEST
