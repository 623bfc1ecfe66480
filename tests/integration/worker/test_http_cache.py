"""What a service allows to be given again is asked for once: jobs through a worker, against a server that counts."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any

import pytest
from aiohttp import web

from hostler.connectors.catalogue import build
from hostler.contracts.failure import FailureClass
from hostler.contracts.limit import Grant, Wait, Want
from hostler.contracts.queue import KindSpec, RetryPolicy
from hostler.dispatch.account import Account
from hostler.dispatch.limited import Limited
from hostler.kernel.units import Json
from hostler.ports.connector import Connector
from hostler.registry.limits import EngineLimiter
from hostler.testing.bench import Clients
from hostler.testing.eventually import eventually
from hostler.testing.fabric import Fabric

KIND = "shelf.read"


class Shelf:
    """Answers each call with what `say` makes of it, and remembers the calls."""

    def __init__(self) -> None:
        self.url = ""
        self.calls: list[web.Request] = []
        self.whole = 0
        """Answers with a body."""
        self.headers: dict[str, str] = {}
        self.status = 200
        self.padding = ""
        self.answer: Json = None
        """What every call is answered with; the number of the call unless set."""

    async def say(self, request: web.Request) -> web.Response:
        self.calls.append(request)
        if request.path == "/health":
            self.calls.pop()
            return web.Response(text="well")
        asked = request.headers.get("If-None-Match")
        if self.status == 200 and asked is not None and asked == self.headers.get("ETag"):
            return web.Response(status=304, headers=self.headers)
        self.whole += 1
        value = {"call": len(self.calls), "padding": self.padding} if self.answer is None else self.answer
        return web.json_response(value, status=self.status, headers=self.headers)


class Counting(EngineLimiter):
    """A limiter that counts how often it was asked."""

    asked = 0

    async def take(self, call: str, wants: Sequence[Want], **options: Any) -> Grant | Wait:
        self.asked += 1
        return await super().take(call, wants, **options)


@pytest.fixture
async def shelf() -> AsyncGenerator[Shelf]:
    shelf = Shelf()
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", shelf.say)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    shelf.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield shelf
    finally:
        await runner.cleanup()


Wired = Callable[..., Connector]


@pytest.fixture
def wired(shelf: Shelf) -> Wired:
    def make(
        *more: dict[str, Any], headers: dict[str, str] | None = None, size: int = 8_388_608, **kind: Any
    ) -> Connector:
        submit = {"method": "GET", "path": "/books/{payload/book}", "headers": headers or {}}
        options: dict[str, Any] = {
            "kinds": [{"name": KIND, "submit": submit, **kind}, *more],
            "errors": {"said": "/no"},
            "http_cache_size": size,
        }
        return build("http-json", url=shelf.url, options=options)

    return make


async def asked(fabric: Fabric, connector: Connector, *payloads: object, kind: str = KIND) -> list[Any]:
    """Run these jobs one after another, on one worker, and return their results."""
    async with fabric.worker(connectors=[connector]):
        return [await fabric.result(await fabric.submit(kind, payload)) for payload in payloads]


async def asked_at_once(fabric: Fabric, connector: Connector, number: int) -> list[Any]:
    """Run as many equal jobs at once."""
    async with fabric.worker(connectors=[connector], slots=number):
        jobs = [await fabric.submit(KIND, {"book": 7}) for _ in range(number)]
        return await asyncio.gather(*(fabric.result(job, within=60) for job in jobs))


ONE = {"book": 7}


@pytest.mark.row("002:234")
@pytest.mark.parametrize(
    ("headers", "kind"),
    [
        ({"ETag": '"a"', "Cache-Control": "max-age=3600"}, {}),
        ({"ETag": '"a"'}, {"http_cache": {"assume_fresh": 3600.0}}),
    ],
    ids=["as the service says", "as the operator says where the service does not"],
)
async def test_a_hundred_jobs_cost_one_call_where_the_answer_may_be_given_again(
    fabric: Fabric, shelf: Shelf, wired: Wired, headers: dict[str, str], kind: dict[str, Any]
) -> None:
    shelf.headers = headers
    results = await asked_at_once(fabric, wired(headers={"X-Request-Id": "{job}"}, **kind), 100)
    assert len(shelf.calls) == 1
    assert results == [{"call": 1, "padding": ""}] * 100


@pytest.mark.row("002:234")
@pytest.mark.parametrize("said", ["no-store", "No-Store, max-age=3600"])
async def test_what_must_not_be_stored_is_asked_for_by_each_of_a_hundred_jobs(
    fabric: Fabric, shelf: Shelf, wired: Wired, said: str
) -> None:
    shelf.headers = {"ETag": '"a"', "Cache-Control": said}
    results = await asked_at_once(fabric, wired(http_cache={"assume_fresh": 3600.0}), 100)
    assert sorted(result["call"] for result in results) == list(range(1, 101))
    assert not any("If-None-Match" in call.headers for call in shelf.calls)


@pytest.mark.row("002:234")
@pytest.mark.row("002:234")
async def test_what_the_service_was_not_asked_for_is_no_call_of_it_to_a_limit_a_breaker_or_a_measure_of_its_speed(
    fabric: Fabric, shelf: Shelf, wired: Wired, clients: Clients
) -> None:
    shelf.headers = {"Cache-Control": "max-age=3600"}
    connector, limiter = wired(), Counting(clients)
    limited = Limited(connector, limiter, Account(connector, ["100/s per tenant"]))
    async with fabric.worker(connectors=[limited]):
        for _ in range(12):
            await fabric.result(await fabric.submit(KIND, ONE))
        over = (await fabric.get(await fabric.submit(KIND, ONE))).created_at

        async def seen() -> bool:
            (worker,) = await fabric.ports.registry.workers()
            return worker.seen_at > over

        await eventually(seen, within=30.0)
        (worker,) = await fabric.ports.registry.workers()
    assert (len(shelf.calls), limiter.asked) == (1, 1)
    assert worker.endpoints[0].traffic.calls == 1


async def test_an_etag_alone_costs_each_job_a_question_and_only_the_first_a_body(
    fabric: Fabric, shelf: Shelf, wired: Wired
) -> None:
    shelf.headers = {"ETag": '"a"'}
    results = await asked(fabric, wired(), *[ONE] * 20)
    assert (len(shelf.calls), shelf.whole) == (20, 1)
    assert [result["call"] for result in results] == [1] * 20


async def test_an_answer_that_says_nothing_of_being_given_again_is_not(
    fabric: Fabric, shelf: Shelf, wired: Wired
) -> None:
    await asked_at_once(fabric, wired(), 10)
    assert len(shelf.calls) == 10


async def test_caching_can_be_switched_off(fabric: Fabric, shelf: Shelf, wired: Wired) -> None:
    shelf.headers = {"ETag": '"a"', "Cache-Control": "max-age=3600"}
    await asked(fabric, wired(http_cache={"enabled": False}), ONE, ONE)
    assert (len(shelf.calls), shelf.whole) == (2, 2)


@pytest.mark.parametrize(("vary", "calls"), [("X-Asker", 2), ("Accept, x-asker", 2), ("Accept", 1), ("*", 2)])
async def test_an_answer_that_varies_by_a_header_is_for_those_who_send_the_same(
    fabric: Fabric, shelf: Shelf, wired: Wired, vary: str, calls: int
) -> None:
    shelf.headers = {"Cache-Control": "max-age=3600", "Vary": vary}
    await asked(fabric, wired(headers={"X-Asker": "{job}"}), ONE, ONE)
    assert len(shelf.calls) == calls


async def test_a_header_of_the_payload_is_part_of_what_is_asked_whatever_the_answer_says(
    fabric: Fabric, shelf: Shelf, wired: Wired
) -> None:
    shelf.headers = {"Cache-Control": "max-age=3600"}
    connector = wired(headers={"X-Api-Key": "{payload/key}"})
    payloads = [{**ONE, "key": key} for key in ("hers", "his", "hers")]
    results = await asked(fabric, connector, *payloads)
    assert [result["call"] for result in results] == [1, 2, 1]


async def test_a_stale_answer_is_asked_about_and_a_304_renews_it(fabric: Fabric, shelf: Shelf, wired: Wired) -> None:
    shelf.headers = {"ETag": '"a"', "Cache-Control": "max-age=60", "Age": "61"}
    async with fabric.worker(connectors=[wired()]):
        first = await fabric.result(await fabric.submit(KIND, ONE))
        del shelf.headers["Age"]
        for _ in range(3):
            assert await fabric.result(await fabric.submit(KIND, ONE)) == first
    assert [call.headers.get("If-None-Match") for call in shelf.calls] == [None, '"a"']
    assert shelf.whole == 1


async def test_a_changed_answer_takes_the_place_of_a_stale_one(fabric: Fabric, shelf: Shelf, wired: Wired) -> None:
    shelf.headers = {"ETag": '"a"', "Cache-Control": "max-age=0"}
    async with fabric.worker(connectors=[wired()]):
        await fabric.result(await fabric.submit(KIND, ONE))
        shelf.headers = {"ETag": '"b"', "Cache-Control": "max-age=60"}
        found = [await fabric.result(await fabric.submit(KIND, ONE)) for _ in range(2)]
    assert [one["call"] for one in found] == [2, 2]
    assert [call.headers.get("If-None-Match") for call in shelf.calls] == [None, '"a"']


async def test_a_service_that_fails_when_it_is_asked_about_a_stale_answer_is_a_failure(
    fabric: Fabric, shelf: Shelf, wired: Wired
) -> None:
    await fabric.ports.foreman.declare_kind(KindSpec(name=KIND, queue="default", retry=RetryPolicy(attempts=1)))
    shelf.headers = {"ETag": '"a"', "Cache-Control": "max-age=60, stale-if-error=600", "Age": "61"}
    async with fabric.worker(connectors=[wired()]):
        await fabric.result(await fabric.submit(KIND, ONE))
        shelf.status = 500
        job = await fabric.ended(await fabric.submit(KIND, ONE))
    assert (job.state, job.error and job.error.class_) == ("dead", FailureClass.TRANSIENT)


async def test_an_answer_that_is_no_success_is_not_given_again(fabric: Fabric, shelf: Shelf, wired: Wired) -> None:
    await fabric.ports.foreman.declare_kind(KindSpec(name=KIND, queue="default", retry=RetryPolicy(attempts=1)))
    shelf.headers = {"Cache-Control": "max-age=3600"}
    shelf.answer = {"no": "out of sorts"}
    async with fabric.worker(connectors=[wired()]):
        assert (await fabric.ended(await fabric.submit(KIND, ONE))).state == "dead"
        shelf.answer = {"well": True}
        assert await fabric.result(await fabric.submit(KIND, ONE)) == {"well": True}


async def test_a_request_that_changes_something_ends_what_is_kept_of_its_path(
    fabric: Fabric, shelf: Shelf, wired: Wired
) -> None:
    shelf.headers = {"Cache-Control": "max-age=3600"}
    write = {"name": "shelf.write", "submit": {"method": "PUT", "path": "/books/{payload/book}"}}
    async with fabric.worker(connectors=[wired(write)]):
        for kind, book in [(KIND, 7), (KIND, 8), ("shelf.write", 7), (KIND, 7), (KIND, 8)]:
            await fabric.result(await fabric.submit(kind, {"book": book}))
    assert [(call.method, call.path) for call in shelf.calls] == [
        ("GET", "/books/7"),
        ("GET", "/books/8"),
        ("PUT", "/books/7"),
        ("GET", "/books/7"),
    ]


async def test_what_is_kept_is_bounded_in_bytes(fabric: Fabric, shelf: Shelf, wired: Wired) -> None:
    shelf.headers = {"Cache-Control": "max-age=3600"}
    shelf.padding = "x" * 10_000
    books = [{"book": number} for number in (1, 2, 3, 1, 4, 1, 2)]
    results = await asked(fabric, wired(size=40_000), *books)
    assert [result["call"] for result in results] == [1, 2, 3, 1, 4, 1, 5]
