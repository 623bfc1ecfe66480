"""The limits that all processes share, as operators see and lift them."""

import asyncio
import sys

import msgspec
import pytest

import hostler
from hostler.contracts.limit import Grant, Wait, Want
from hostler.kernel.errors import InvalidError
from hostler.policy.limits import parse
from hostler.registry.limits import EngineLimiter
from hostler.valkeyio.engine import Engine
from hostler.valkeyio.keys import registry_key

from .conftest import House

RATE = Want(limit=parse("10/h burst 4", name="chat@here|10/h"))
PLACES = Want(limit=parse("in_flight 3", name="chat@here|in_flight_3"))


@pytest.fixture
async def limiter(engine: Engine) -> EngineLimiter:
    """A limiter under which one call goes on, and whose endpoint asked for an hour."""
    found = EngineLimiter(engine)
    assert isinstance(await found.take("one", [RATE, PLACES]), Grant)
    await found.hold("chat@here", 3600.0)
    return found


async def test_limits_are_listed_with_what_is_left_and_until_when(house: House, limiter: EngineLimiter) -> None:
    items = (await house.ask("GET", "/v1/limits")).json["items"]
    assert [one["name"] for one in items] == ["chat@here", "chat@here|10/h", "chat@here|in_flight_3"]
    gate, rate, places = items
    assert 3590 < gate["held_s"] <= 3600
    assert (rate["text"], rate["most"], rate["left"], rate["per"]) == ("10/h burst 4", 10, 3, 3600.0)
    assert (places["text"], places["left"], places["leases"]) == ("in_flight 3", 2, 1)
    page = (await house.ask("GET", "/v1/limits?limit=2")).json
    assert ([one["name"] for one in page["items"]], page["next"]) == (
        ["chat@here", "chat@here|10/h"],
        "chat@here|10/h",
    )
    async with hostler.connect(house.url) as fleet:
        assert [one.name for one in await fleet.limits.list()] == [one["name"] for one in items]
    code, said = await command("limits", "list", "--url", house.url)
    assert code == 0
    assert "3 calls" in said
    await limiter.settle("one", [RATE, PLACES])
    assert "in_flight" not in (await command("limits", "list", "--url", house.url))[1]


async def test_an_operator_lifts_a_hold_by_its_name_and_an_event_says_why(
    house: House, limiter: EngineLimiter, engine: Engine
) -> None:
    gate = Want(limit=parse("1/s", name="chat@here"), units=0)
    assert isinstance(await limiter.take("two", [gate]), Wait)
    words = ("limits", "lift", "chat@here", "--url", house.url)
    code, said = await command(*words, "--reason", "they doubled our quota", "--json")
    assert (code, msgspec.json.decode(said)) == (0, {"lifted": True})
    assert isinstance(await limiter.take("two", [gate]), Grant)
    assert (await command(*words))[0] == 1
    entries = await engine.command("XRANGE", registry_key("ev"), "-", "+")
    events = [event for _, fields in entries for event in msgspec.msgpack.decode(fields[b"e"])[1]]
    assert [event[5] for event in events if event[0] == "limit"] == [
        {"limit": "chat@here", "to": "lifted", "reason": "they doubled our quota"}
    ]


async def test_programs_lift_too_and_what_no_limit_is_called_is_refused(house: House, limiter: EngineLimiter) -> None:
    def lift() -> list[bool]:
        with hostler.connect_sync(house.url) as fleet:
            assert fleet.limits.list()[0].name == "chat@here"
            return [fleet.limits.lift("chat@here", reason="enough"), fleet.limits.lift("chat@here")]

    assert await asyncio.to_thread(lift) == [True, False]
    async with hostler.connect(house.url) as fleet:
        with pytest.raises(InvalidError):
            await fleet.limits.lift("no such name")
    assert (await house.ask("POST", "/v1/limits/lift", json={})).status == 422
    assert [one.leases for one in await limiter.list()] == [0, 1]


async def command(*words: str) -> tuple[int | None, str]:
    """Run `hostler` in a process of its own; return its exit code and what it said."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "hostler", *words, stdout=asyncio.subprocess.PIPE
    )
    said, _ = await process.communicate()
    return process.returncode, said.decode()
