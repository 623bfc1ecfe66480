"""The gateway itself: who may knock, names of requests, health, metrics, its own description."""

import asyncio
import contextlib
import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from hostler.broker.foreman import EngineForeman
from hostler.contracts.failure import Failure, FailureClass
from hostler.contracts.lease import Die
from hostler.contracts.offer import Offer
from hostler.contracts.queue import KindSpec
from hostler.gateway.serve import listen, serve, split_address
from hostler.kernel.errors import AddressInUseError, SettingsError
from hostler.kernel.settings import EngineSettings
from hostler.telemetry.catalogue import METRICS
from hostler.testing.eventually import eventually
from hostler.valkeyio.embedded import ask, server_program
from hostler.valkeyio.engine import Engine

from .conftest import KIND, House, Opening

TRACE = "0af7651916cd43dd8448eb211c80319c"


async def test_every_wrong_path_and_method_is_a_problem_with_a_request_id(house: House) -> None:
    for method, path, status, code in (
        ("GET", "/nowhere", 404, "not-found"),
        ("GET", "/v1", 404, "not-found"),
        ("DELETE", "/v1/jobs", 405, "method-not-allowed"),
        ("PATCH", "/v1/queues/default/pause", 405, "method-not-allowed"),
        ("GET", "/v1/jobs/actions", 405, "method-not-allowed"),
        ("GET", "/v1/jobs?colour=red", 422, "invalid"),
        ("GET", "/v1/jobs?limit=0", 422, "invalid"),
        ("GET", "/v1/jobs?limit=1&limit=2", 422, "invalid"),
        ("GET", "/v1/jobs?state=asleep", 422, "invalid"),
        ("GET", "/v1/jobs?label=nothing", 422, "invalid"),
        ("GET", "/v1/jobs?kind=%ff", 422, "invalid"),
        ("GET", "/v1/jobs/default.1?wait=-1", 422, "invalid"),
        ("GET", "/v1/jobs/default.1?wait=nan", 422, "invalid"),
        ("GET", "/healthz?x=1", 422, "invalid"),
    ):
        answer = await house.ask(method, path)
        assert (answer.status, answer.json["code"]) == (status, code), (method, path, answer.body)
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json["request_id"] == answer.headers["x-request-id"]
        if status == 405:
            allowed = answer.headers["allow"].split(", ")
            assert "POST" in allowed
            assert method not in allowed


async def test_a_request_keeps_its_id_and_trace_or_gets_new_ones(house: House) -> None:
    answer = await house.ask(
        "GET", "/healthz", headers={"X-Request-ID": "abc-1", "traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}
    )
    assert answer.headers["x-request-id"] == "abc-1"
    found = re.fullmatch(r"00-([0-9a-f]{32})-([0-9a-f]{16})-01", answer.headers["traceparent"])
    assert found is not None
    assert (found[1], found[2] != "b7ad6b7169203331") == (TRACE, True)
    for unfit in ("a b", "x" * 129, "ü"):
        headers = {"X-Request-ID": unfit, "traceparent": f"00-{'0' * 32}-b7ad6b7169203331-01"}
        answer = await house.ask("GET", "/healthz", headers=headers)
        assert re.fullmatch("[0-9a-f]{32}", answer.headers["x-request-id"])
        assert TRACE not in answer.headers["traceparent"]


async def test_an_operation_id_that_cannot_be_one_is_refused(house: House) -> None:
    for unfit in ("", "a b", "x" * 129):
        answer = await house.ask("POST", "/v1/jobs", json={"kind": KIND}, headers={"Operation-Id": unfit})
        assert (answer.status, answer.json["field"]) == (422, "header.Operation-Id")


async def test_a_page_of_another_origin_can_neither_read_nor_change(house: House) -> None:
    for host in ("evil.example", "127.0.0.1.evil.example", "evil.example:7700", "10.0.0.1", "user@localhost", ""):
        answer = await house.ask("GET", "/v1/jobs", headers={"Host": host})
        assert (answer.status, answer.json["code"]) == (421, "wrong-host"), host
    for host in ("localhost", "localhost:7700", "127.0.0.1:80", "[::1]:7700", "LOCALHOST."):
        assert (await house.ask("GET", "/v1/jobs", headers={"Host": host})).status == 200, host
    for headers in ({"Origin": "http://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}):
        answer = await house.ask("POST", "/v1/queues/default/pause", headers=headers)
        assert (answer.status, answer.json["code"]) == (403, "foreign-origin")
        assert "access-control-allow-origin" not in answer.headers
    assert (await house.foreman.stats("default")).paused is False
    own = await house.ask("POST", "/v1/queues/default/pause", headers={"Origin": house.url})
    assert own.status == 200


async def test_only_loopback_addresses_are_bound_and_a_port_in_use_is_one_clear_error(house: House) -> None:
    for bind in ("0.0.0.0:0", "[::]:0", "10.1.2.3:80", "example.com:80", "localhost.example.com:80"):
        with pytest.raises(SettingsError, match="loopback") as refused:
            listen(bind)
        assert refused.value.facts["field"] == "gateway.bind"
    for bind in ("nonsense", "127.0.0.1", "127.0.0.1:99999", ":80"):
        with pytest.raises(SettingsError, match="HOST:PORT"):
            split_address(bind)
    taken = house.url.removeprefix("http://")
    with pytest.raises(AddressInUseError, match=f"{taken} is in use"):
        listen(taken)
    for bind in ("localhost:0", "127.0.0.2:0"):
        with contextlib.closing(listen(bind)) as sock:
            assert sock.getsockname()[1] > 0


async def test_health_and_the_front_page_answer(house: House) -> None:
    assert (await house.ask("GET", "/healthz")).json["status"] == "alive"
    ready = await house.ask("GET", "/readyz")
    assert (ready.status, ready.json["status"]) == (200, "ready")
    page = await house.ask("GET", "/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    for link in re.findall(r'href="([^"]+)"', page.body.decode()):
        assert (await house.ask("GET", link)).status == 200, link


@pytest.fixture
def own_server() -> Iterator[tuple[Path, list[str]]]:
    with tempfile.TemporaryDirectory(prefix="h", dir="/tmp") as folder:
        path = Path(folder) / "s"
        options = {"port": "0", "unixsocket": str(path), "dir": folder, "save": "", "loglevel": "warning"}
        options |= {"appendonly": "yes", "appendfsync": "always", "maxmemory-policy": "noeviction"}
        yield path, [str(server_program()), *(word for name, value in options.items() for word in (f"--{name}", value))]


async def started(path: Path, words: list[str]) -> subprocess.Popen[bytes]:
    server = subprocess.Popen(words, stdout=subprocess.DEVNULL)

    async def up() -> bool:
        return await ask(path) == "ready"

    await eventually(up, within=20)
    return server


@pytest.mark.row("003:213")
async def test_a_gateway_without_its_engine_is_alive_not_ready_and_comes_back(
    own_server: tuple[Path, list[str]], opening: Opening
) -> None:
    path, words = own_server
    server = await started(path, words)
    try:
        async with Engine.open(EngineSettings(url=f"unix://{path}"), role="test") as engine:
            await EngineForeman(engine).declare_kind(KindSpec(name=KIND))
            async with opening(engine) as house:
                job_id = await house.submit()
                server.kill()
                server.wait()
                unready = await house.ask("GET", "/readyz")
                assert (unready.status, unready.json["retry"]) == (503, "later")
                assert int(unready.headers["retry-after"]) >= 1
                assert (await house.ask("GET", "/healthz")).status == 200
                refused = await house.ask("POST", "/v1/jobs", json={"kind": KIND})
                assert (refused.status, refused.json["retry"]) == (503, "later")
                assert b"hostler_engine_up 0.0" in (await house.ask("GET", "/metrics")).body
                poll = asyncio.create_task(house.ask("GET", f"/v1/jobs/{job_id}"))
                assert (await poll).status == 503
                server = await started(path, words)

                async def ready() -> bool:
                    return (await house.ask("GET", "/readyz")).status == 200

                await eventually(ready, within=10)
                waiting = asyncio.create_task(house.ask("GET", f"/v1/jobs/{job_id}?wait=20"))
                await house.finish(await house.claim())
                async with asyncio.timeout(10):
                    assert (await waiting).json["state"] == "succeeded"
    finally:
        server.kill()
        server.wait()


async def samples(house: House) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    text = (await house.ask("GET", "/metrics")).body.decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.mark.row("002:200", "002:242", "003:312")
async def test_metrics_count_every_job_that_ends_with_its_service_and_outcome(house: House) -> None:
    for outcome in (None, None, Die(failure=Failure(class_=FailureClass.REFUSED, message="no"))):
        await house.submit()
        await house.finish(await house.claim(), outcome)
    cancelled = await house.submit()
    await house.ask("POST", f"/v1/jobs/{cancelled}/cancel")
    await house.submit()

    async def counted() -> bool:
        found = await samples(house)
        assert found["jobs_total", (("service", "echo"), ("status", "completed"))] == 2
        assert found["jobs_total", (("service", "echo"), ("status", "failed"))] == 1
        assert found["jobs_total", (("service", "echo"), ("status", "cancelled"))] == 1
        assert found["job_duration_seconds_count", (("service", "echo"), ("success", "true"))] == 2
        assert found["job_duration_seconds_count", (("service", "echo"), ("success", "false"))] == 1
        assert found["service_health", (("service", "echo"),)] == 1
        assert found["hostler_queue_jobs", (("queue", "default"), ("state", "ready"))] == 1
        assert found["hostler_queue_jobs_total", (("queue", "default"), ("what", "submitted"))] == 5
        assert found["hostler_workers", (("state", "ready"),)] == 1
        assert found["hostler_engine_up", ()] == 1
        return True

    await eventually(counted)


@pytest.mark.row("001:364")
async def test_a_service_is_unhealthy_when_no_endpoint_of_it_is(house: House) -> None:
    house.offers = (Offer(kinds=(KIND,), service="echo", healthy=False),)
    await house.announce()
    assert (await samples(house))["service_health", (("service", "echo"),)] == 0


@pytest.mark.row("002:242")
async def test_every_exported_series_is_in_the_catalogue_with_its_labels(house: House) -> None:
    await house.submit()
    await house.finish(await house.claim())
    text = (await house.ask("GET", "/metrics")).body.decode()
    rows = {spec.name.removesuffix("_total"): spec for spec in METRICS}
    families = {family.name: family for family in text_string_to_metric_families(text)}
    families = {name: family for name, family in families.items() if not name.endswith("_created")}
    assert set(families) <= set(rows)
    for name, family in families.items():
        assert family.documentation == rows[name].about
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == set(rows[name].labels)


async def test_the_description_has_every_route_and_every_answer_that_was_seen(house: House) -> None:
    document: dict[str, Any] = (await house.ask("GET", "/v1/openapi.json")).json
    assert document["openapi"] == "3.1.0"
    references = re.findall(r'"#/components/(\w+)/([\w.-]+)"', msgspec.json.encode(document).decode())
    assert references
    for part, name in references:
        assert name in document["components"][part], (part, name)
    ids = [operation["operationId"] for path in document["paths"].values() for operation in path.values()]
    assert len(ids) == len(set(ids))
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            assert {"421", "500"} <= set(operation["responses"]), (method, path)
            for status, response in operation["responses"].items():
                if status >= "400" and method != "head":
                    assert list(response["content"]) == ["application/problem+json"]


async def test_serving_on_an_address_in_use_starts_nothing(house: House) -> None:
    before = len(asyncio.all_tasks())
    with pytest.raises(AddressInUseError):
        await serve(house.app, house.url.removeprefix("http://"))
    assert len(asyncio.all_tasks()) == before
