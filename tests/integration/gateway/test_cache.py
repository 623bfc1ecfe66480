"""The cache of results, as operators see it."""

import asyncio
import sys

import msgspec
import pytest
from msgspec import Raw

import hostler
from hostler.contracts.queue import CachePolicy
from hostler.contracts.result import Kept
from hostler.kernel.errors import InvalidError
from hostler.registry.results import EngineResults
from hostler.valkeyio.engine import Engine

from .conftest import KIND, House


@pytest.fixture
async def filled(engine: Engine, house: House) -> House:
    """A gateway of a fleet that drew two of eight pictures, and sang once."""
    results = EngineResults(engine)
    for n in range(8):
        await results.begin(f"draw:{n % 2}", kind="draw", job=f"q.{n % 2}", fence=1, lasts=10.0)
        await results.put(f"draw:{n % 2}", Kept(result=Raw(b"1")), kind="draw", job=f"q.{n % 2}", ttl=60.0)
    await results.put("sing:1", Kept(result=Raw(b"2")), kind="sing", job="q.9", ttl=60.0)
    return house


@pytest.mark.row("002:235")
async def test_the_hit_rate_is_shown_by_route_metrics_and_client(filled: House) -> None:
    view = (await filled.ask("GET", "/v1/cache")).json
    assert view["entries"] == 3
    assert view["kinds"][0] == {
        "kind": "draw", "hits": 6, "misses": 2, "waits": 0, "kept": 8, "hit_rate": 0.75
    }  # fmt: skip
    metrics = (await filled.ask("GET", "/metrics")).body.decode()
    assert 'hostler_cache_jobs_total{kind="draw",what="hits"} 6.0' in metrics
    assert "hostler_cache_entries 3.0" in metrics
    async with hostler.connect(filled.url) as fleet:
        assert [(row.kind, row.hit_rate) for row in (await fleet.cache.view()).kinds] == [("draw", 0.75), ("sing", 0.0)]


@pytest.mark.row("002:235")
async def test_results_are_cleared_by_prefix_by_an_operator(filled: House) -> None:
    code, said = await command("cache", "clear", "draw:", "--url", filled.url, "--json")
    assert (code, msgspec.json.decode(said)) == (0, {"dropped": 2})
    code, said = await command("cache", "show", "--url", filled.url)
    assert code == 0
    assert b"75%" in said
    assert b"1 results" in said
    async with hostler.connect(filled.url) as fleet:
        assert await fleet.cache.clear("") == 1
        with pytest.raises(InvalidError):
            await fleet.cache.clear("x" * 257)
    assert (await filled.ask("POST", "/v1/cache/clear", json={})).status == 422


async def test_a_kind_gets_a_cache_while_everything_runs(house: House) -> None:
    words = ("--kind", KIND, "--set", "cache.ttl=60", "--reason", "the same again and again", "--json")
    code, said = await command("queues", "configure", "default", *words, "--url", house.url)
    assert code == 0
    (kind,) = [row for row in msgspec.json.decode(said)["kinds"] if row["name"] == KIND]
    assert kind["cache"] == {"ttl": 60.0}
    (row,) = [row for row in await house.foreman.registry() if row.queue.name == "default"]
    assert [each.cache for each in row.kinds if each.name == KIND] == [CachePolicy(ttl=60.0)]


async def command(*words: str) -> tuple[int | None, bytes]:
    """Run `hostler` in a process of its own; return its exit code and what it said."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "hostler", *words, stdout=asyncio.subprocess.PIPE
    )
    said, _ = await process.communicate()
    return process.returncode, said
