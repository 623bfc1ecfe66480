"""Same requests at once: one is sent, and nobody suffers for it, whatever becomes of that one."""

import asyncio
from collections.abc import AsyncGenerator, Mapping

import pytest
from aiohttp import web

from hostler.connectors.faults import ServiceFaultError
from hostler.connectors.transports.http import Answer, HttpTransport, StreamedAnswer
from hostler.connectors.transports.http_cache import Asked, HttpCache
from hostler.kernel.settings import HttpSettings
from hostler.testing.eventually import eventually

GOOD = {"Cache-Control": "max-age=60", "ETag": '"a"'}
LIMIT = 100_000


class Gate:
    """A server that answers when it is let, and a cache before it whose clock the test moves."""

    def __init__(self) -> None:
        self.http: HttpTransport | None = None
        self.now = 0.0
        self.cache = HttpCache(LIMIT, monotonic=lambda: self.now)
        self.came = 0
        self.open = asyncio.Event()
        self.status = 200
        self.headers = GOOD
        self.cut = False

    async def serve(self, request: web.Request) -> web.StreamResponse:
        self.came += 1
        number = self.came
        await self.open.wait()
        if self.cut:
            whole = web.StreamResponse(headers={**self.headers, "Content-Length": "1000"})
            await whole.prepare(request)
            await whole.write(b"half of it")
            assert request.transport is not None
            request.transport.close()
            return whole
        return web.Response(status=self.status, headers=self.headers, text="" if self.status == 304 else str(number))

    async def get(self, path: str = "/x", *, patience: float | None = None, **headers: str) -> Answer:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        http = self.http
        assert http is not None

        def send(more: Mapping[str, str]) -> StreamedAnswer:
            return http.stream("GET", path, headers={**named, **more}, first_byte=10, silence=10)

        return await self.cache.get(Asked(path=path, headers=named), send, assumed=0.0, patience=patience)

    def ask(self, *, patience: float | None = None) -> "asyncio.Task[Answer]":
        return asyncio.create_task(self.get(patience=patience))


@pytest.fixture
async def gate() -> AsyncGenerator[Gate]:
    gate = Gate()
    app = web.Application()
    app.router.add_get("/{tail:.*}", gate.serve)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        async with HttpTransport(url, settings=HttpSettings()) as gate.http:
            yield gate
    finally:
        gate.open.set()
        await runner.cleanup()


async def bodies(*tasks: "asyncio.Task[Answer]") -> list[str]:
    return [answer.body.decode() for answer in await asyncio.gather(*tasks)]


@pytest.mark.row("002:234")
async def test_same_requests_at_once_are_one(gate: Gate) -> None:
    tasks = [gate.ask() for _ in range(20)]
    await eventually(lambda: gate.came)
    gate.open.set()
    assert await bodies(*tasks) == ["1"] * 20
    assert gate.came == 1


async def test_one_that_is_cancelled_hands_its_place_to_the_next(gate: Gate) -> None:
    first, *others = [gate.ask() for _ in range(5)]
    await eventually(lambda: gate.came == 1)
    first.cancel()
    await eventually(lambda: gate.came == 2)
    gate.open.set()
    assert await bodies(*others) == ["2"] * 4


@pytest.mark.parametrize(("status", "headers"), [(500, GOOD), (200, {"Cache-Control": "no-store"}), (404, GOOD)])
async def test_each_goes_itself_when_the_first_brings_what_is_not_for_others(
    gate: Gate, status: int, headers: dict[str, str]
) -> None:
    gate.status, gate.headers = status, headers
    tasks = [gate.ask() for _ in range(5)]
    await eventually(lambda: gate.came)
    gate.open.set()
    assert sorted(await bodies(*tasks)) == ["1", "2", "3", "4", "5"]
    assert gate.cache.size == 0


async def test_nobody_waits_for_one_whose_answers_were_for_one_asker_each(gate: Gate) -> None:
    gate.headers = {}
    gate.open.set()
    await gate.get()
    gate.open.clear()
    tasks = [gate.ask() for _ in range(5)]
    await eventually(lambda: gate.came == 6)
    gate.open.set()
    await asyncio.gather(*tasks)


async def test_one_waits_for_another_no_longer_than_it_may(gate: Gate) -> None:
    tasks = [gate.ask(), gate.ask(patience=0.01)]
    await eventually(lambda: gate.came == 2)
    gate.open.set()
    assert await bodies(*tasks) == ["1", "2"]


async def test_half_an_answer_is_kept_by_nobody(gate: Gate) -> None:
    gate.cut = True
    gate.open.set()
    with pytest.raises(ServiceFaultError):
        await gate.get()
    gate.cut = False
    assert (await gate.get()).body == b"2"


async def test_what_was_asked_before_a_change_is_not_shared_after_it(gate: Gate) -> None:
    before = gate.ask()
    await eventually(lambda: gate.came == 1)
    gate.cache.changed("/x")
    after = gate.ask()
    await eventually(lambda: gate.came == 2)
    gate.open.set()
    assert await bodies(before, after) == ["1", "2"]


async def test_what_was_asked_before_a_change_is_not_kept(gate: Gate) -> None:
    before = gate.ask()
    await eventually(lambda: gate.came == 1)
    gate.cache.changed("/x")
    gate.open.set()
    assert await bodies(before) == ["1"]
    assert [(await gate.get()).body for _ in range(2)] == [b"2", b"2"]


async def test_an_answer_is_given_again_until_its_time_is_over(gate: Gate) -> None:
    gate.open.set()
    found: list[bytes] = []
    for gate.now in (0.0, 50.0, 61.0, 100.0):
        found.append((await gate.get()).body)
    assert found == [b"1", b"1", b"2", b"2"]


async def test_a_304_of_another_answer_is_a_fault_and_ends_the_one_that_is_kept(gate: Gate) -> None:
    gate.open.set()
    await gate.get()
    gate.now, gate.status, gate.headers = 61.0, 304, {"ETag": '"b"'}
    with pytest.raises(ServiceFaultError):
        await gate.get()
    assert gate.cache.size == 0


async def test_a_request_with_conditions_of_its_own_goes_to_the_service(gate: Gate) -> None:
    gate.open.set()
    await gate.get(Cache_Control="no-cache")
    await gate.get(Cache_Control="no-cache")
    assert (gate.came, gate.cache.size) == (2, 0)


async def test_what_is_kept_never_takes_more_than_its_bytes(gate: Gate) -> None:
    gate.open.set()
    for number in range(200):
        await gate.get(f"/{number}")
        assert 0 < gate.cache.size <= LIMIT
    came = gate.came
    await gate.get("/199")
    assert gate.came == came
    await gate.get("/0")
    assert gate.came == came + 1
