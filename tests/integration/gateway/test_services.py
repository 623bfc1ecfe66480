"""`/v1/services` over real HTTP: what workers see, what is announced, what operators say, and why."""

import msgspec
import pytest

from hostler.contracts.offer import Offer
from hostler.contracts.service import BreakerMode, Endpoint, EndpointState, Traffic
from hostler.testing.eventually import eventually

from .conftest import House

PLACE = {"id": "lamp-1", "connector": "simulation-http", "url": "http://127.0.0.1:8299"}


async def see(house: House, worker: str, **facts: object) -> None:
    """Let a worker announce how it sees the endpoint `lamp-1`."""
    record = house.record(worker)
    endpoint = Endpoint(
        id="lamp-1",
        service="simulation",
        connector="simulation-http",
        url="http://127.0.0.1:8299",
        protocol="http",
        state=EndpointState.READY,
        message="it answers",
        seen_at=record.seen_at,
        health_check="simulation-http.probe",
        slots=4.0,
    )
    offers = (Offer(kinds=("image.generate",), service="simulation", endpoint="lamp-1", models=("sd15",)),)
    seen = msgspec.structs.replace(endpoint, **facts)
    await house.registry.announce(msgspec.structs.replace(record, endpoints=(seen,), offers=offers), ttl=60.0)


@pytest.mark.row("001:215", "002:159")
async def test_an_endpoint_shows_where_it_is_what_it_has_its_load_and_its_breaker(house: House) -> None:
    await see(house, "w1", traffic=Traffic(in_flight=1, calls=8, failed=2, p50_s=0.5, p95_s=2.0))
    await see(house, "w2", traffic=Traffic(in_flight=2, calls=2, breaker=BreakerMode.OPEN, breaker_s=4.0))
    shown = (await house.ask("GET", "/v1/services/lamp-1")).json
    assert {"id", "url", "protocol", "health_check", "seen_at"} <= shown.keys()
    assert shown["capabilities"]["models"] == ["sd15"]
    assert (shown["traffic"]["in_flight"], shown["traffic"]["calls"], shown["traffic"]["failed"]) == (3, 10, 2)
    assert (shown["traffic"]["breaker"], shown["slots"]) == ("open", 4.0)
    assert [sight["worker"] for sight in shown["workers"]] == ["w1", "w2"]
    listed = (await house.ask("GET", "/v1/services?service=simulation")).json["items"]
    assert [one["id"] for one in listed] == ["lamp-1"]
    assert (await house.ask("GET", "/v1/services?service=other")).json["items"] == []


@pytest.mark.row("001:226", "000:46")
async def test_an_announced_endpoint_is_known_at_once_and_forgotten_when_it_leaves(house: House) -> None:
    first = await house.ask("POST", "/v1/services", json={**PLACE, "ttl": 30})
    again = await house.ask("POST", "/v1/services", json={**PLACE, "ttl": 30})
    assert (first.status, first.json["news"]) == (201, True)
    assert (again.status, again.json["news"]) == (200, False)
    shown = (await house.ask("GET", "/v1/services/lamp-1")).json
    assert (shown["source"], shown["state"]) == ("announced", "unknown")
    why = (await house.ask("GET", "/v1/services/lamp-1/explain")).json["endpoints"][0]
    assert not why["open"]
    assert "hostler worker --connectors simulation-http:*" in why["reasons"][0]
    assert (await house.ask("POST", "/v1/services/lamp-1/leave")).json["left"]
    assert not (await house.ask("POST", "/v1/services/lamp-1/leave")).json["left"]
    assert (await house.ask("GET", "/v1/services/lamp-1")).status == 404


async def test_an_announcement_that_cannot_be_is_refused_with_its_field(house: House) -> None:
    for wrong, field in (
        ({"url": "http://user:secret@h/"}, "url"),
        ({"url": "file:///etc"}, "url"),
        ({"id": "a/b"}, "id"),
        ({"ttl": 0.1}, "ttl"),
        ({"slots": 0}, "slots"),
        ({"colour": "red"}, "colour"),
    ):
        answer = await house.ask("POST", "/v1/services", json={**PLACE, **wrong})
        assert answer.status == 422, (wrong, answer.body)
        assert field in answer.body.decode()
    assert (await house.ask("GET", "/v1/services")).json["items"] == []


@pytest.mark.row("002:53")
async def test_an_operator_pauses_resumes_and_resets_and_it_is_shown_why(house: House) -> None:
    await see(house, "w1")
    paused = await house.ask("POST", "/v1/services/lamp-1/pause", json={"reason": "a new fan"})
    assert (paused.status, paused.json["changed"]) == (202, True)
    why = (await house.ask("GET", "/v1/services/simulation/explain")).json["endpoints"][0]
    assert (why["open"], why["reasons"]) == (False, ["an operator paused it: a new fan"])
    assert (await house.ask("POST", "/v1/services/lamp-1/resume")).json["changed"]
    assert (await house.ask("POST", "/v1/services/lamp-1/reset")).json["changed"]
    assert (await house.ask("GET", "/v1/services/lamp-1/explain")).json["endpoints"][0]["open"]


async def test_an_unknown_name_is_refused_with_the_nearest(house: House) -> None:
    await see(house, "w1")
    for path in ("/v1/services/lamp-2", "/v1/services/simulatoin/explain"):
        answer = await house.ask("GET", path)
        assert answer.status == 404
        assert "did you mean" in answer.json["detail"]
    assert (await house.ask("POST", "/v1/services/lamp-2/pause")).status == 404


@pytest.mark.row("001:226")
async def test_an_announced_endpoint_vanishes_when_its_lease_lapses(house: House) -> None:
    await house.ask("POST", "/v1/services", json={**PLACE, "ttl": 1})

    async def gone() -> bool:
        return (await house.ask("GET", "/v1/services")).json["items"] == []

    await eventually(gone, within=15.0)
