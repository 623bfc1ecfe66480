"""The executable promises of the cache of results."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import pytest
from msgspec import Raw

from hostler.contracts.job import INLINE_LIMIT, BlobRef
from hostler.contracts.result import CacheStats, Flight, Kept, Taken
from hostler.kernel.errors import InvalidError
from hostler.ports.results import Results

KEY, KIND = "draw:1", "draw"
FIRST, SECOND = Kept(result=Raw(b'{"n":1}')), Kept(ref=BlobRef(sha256="0" * 64, size=300_000))


@dataclass(frozen=True, kw_only=True)
class ResultsHarness:
    """A cache whose clock the test holds."""

    results: Results
    small: Results
    """The same, with room for three results only."""
    advance: Callable[[float], Awaitable[None]]

    async def begin(self, job: str, fence: int = 1, key: str = KEY) -> Kept | Flight | Taken:
        """Ask for a result, or for a flight of ten seconds."""
        return await self.results.begin(key, kind=KIND, job=job, fence=fence, lasts=10.0)

    async def put(self, kept: Kept, *, job: str = "a", key: str = KEY, ttl: float = 60.0) -> None:
        """Keep a result."""
        await self.results.put(key, kept, kind=KIND, job=job, ttl=ttl)

    async def found(self, key: str = KEY) -> Kept | None:
        """Return what is kept."""
        return await self.results.look(key, kind=KIND)


class ResultsConformance:
    """Subclass it, override `harness`, and every promise is a test; nothing is kept yet."""

    @pytest.fixture
    async def harness(self) -> ResultsHarness:
        """Return (or yield) the cache under test."""
        raise NotImplementedError("override the fixture `harness`")

    @pytest.mark.parametrize("kept", [FIRST, SECOND], ids=["inline", "by reference"])
    async def test_a_result_answers_until_its_time_is_over(self, harness: ResultsHarness, kept: Kept) -> None:
        await harness.put(kept, ttl=30.0)
        assert await harness.begin("b") == kept
        assert await harness.found() == kept
        await harness.advance(30.5)
        assert await harness.found() is None
        assert await harness.begin("b") == Flight()

    async def test_of_many_jobs_that_ask_at_once_one_gets_the_flight(self, harness: ResultsHarness) -> None:
        answers = await asyncio.gather(*(harness.begin(f"job {n}") for n in range(20)))
        assert sum(isinstance(answer, Flight) for answer in answers) == 1
        assert sum(isinstance(answer, Taken) and 0 < answer.left <= 10 for answer in answers) == 19

    async def test_flights_of_other_keys_do_not_touch_each_other(self, harness: ResultsHarness) -> None:
        assert await harness.begin("a") == Flight()
        assert await harness.begin("b", key="draw:2") == Flight()

    async def test_a_flight_is_its_jobs_and_goes_with_the_later_attempt(self, harness: ResultsHarness) -> None:
        assert await harness.begin("a", 1) == Flight()
        assert await harness.begin("a", 1) == Flight()
        assert await harness.begin("a", 3) == Flight()
        assert isinstance(await harness.begin("a", 2), Taken)
        assert not await harness.results.hold(KEY, job="a", fence=2, lasts=10.0)
        assert not await harness.results.give_up(KEY, job="a", fence=2)
        assert isinstance(await harness.begin("b"), Taken)

    async def test_a_flight_that_nobody_renews_ends(self, harness: ResultsHarness) -> None:
        await harness.begin("a")
        await harness.advance(8.0)
        assert await harness.results.hold(KEY, job="a", fence=1, lasts=10.0)
        await harness.advance(8.0)
        assert isinstance(await harness.begin("b"), Taken)
        await harness.advance(2.5)
        assert await harness.begin("b") == Flight()
        assert not await harness.results.hold(KEY, job="a", fence=1, lasts=10.0)

    async def test_a_flight_given_up_is_free_at_once(self, harness: ResultsHarness) -> None:
        await harness.begin("a")
        assert not await harness.results.give_up(KEY, job="b", fence=1)
        assert await harness.results.give_up(KEY, job="a", fence=1)
        assert not await harness.results.give_up(KEY, job="a", fence=1)
        assert await harness.begin("b") == Flight()

    async def test_a_result_ends_its_jobs_flight_and_leaves_anothers(self, harness: ResultsHarness) -> None:
        await harness.begin("a")
        await harness.put(FIRST, job="a")
        assert await harness.results.clear() == 1
        assert await harness.begin("b") == Flight()
        await harness.put(FIRST, job="a")
        assert await harness.results.clear() == 1
        assert isinstance(await harness.begin("c"), Taken)

    async def test_a_newer_result_takes_the_place_of_the_older(self, harness: ResultsHarness) -> None:
        await harness.put(FIRST)
        await harness.put(SECOND)
        assert await harness.found() == SECOND
        assert (await harness.results.view()).entries == 1

    @pytest.mark.row("002:235")
    async def test_results_are_cleared_by_what_their_keys_begin_with(self, harness: ResultsHarness) -> None:
        for n in range(300):
            await harness.put(FIRST, key=f"draw:{n}")
        await harness.put(FIRST, key="drawn:1")
        assert await harness.results.clear("draw:") == 300
        assert await harness.results.clear("draw:") == 0
        assert await harness.found("draw:7") is None
        assert await harness.found("drawn:1") == FIRST
        assert await harness.results.clear() == 1
        view = await harness.results.view()
        assert (view.entries, view.bytes) == (0, 0)

    @pytest.mark.row("002:235")
    async def test_hits_misses_and_waits_are_counted_by_kind(self, harness: ResultsHarness) -> None:
        await harness.begin("a")
        await harness.begin("a")
        await harness.begin("b")
        await harness.put(FIRST)
        for _ in range(3):
            await harness.begin("b")
        assert await harness.results.look("sing:1", kind="sing") is None
        drawn, sung = (await harness.results.view()).kinds
        assert drawn == CacheStats(kind="draw", hits=3, misses=1, waits=1, kept=1, hit_rate=0.75)
        assert sung == CacheStats(kind="sing", misses=1)

    async def test_a_full_cache_lets_go_of_what_ends_soonest(self, harness: ResultsHarness) -> None:
        for n, ttl in enumerate((50.0, 20.0, 90.0, 70.0)):
            await harness.small.put(f"draw:{n}", FIRST, kind=KIND, job="a", ttl=ttl)
        assert [await harness.found(f"draw:{n}") is not None for n in range(4)] == [True, False, True, True]
        await harness.advance(60.0)
        await harness.put(FIRST, key="draw:9")
        view = await harness.results.view()
        assert (view.entries, [await harness.found(f"draw:{n}") is not None for n in (2, 3, 9)]) == (3, [True] * 3)
        assert view.bytes > 0

    async def test_what_is_no_result_is_refused(self, harness: ResultsHarness) -> None:
        with pytest.raises(InvalidError, match="inline or by reference"):
            await harness.put(Kept())
        with pytest.raises(InvalidError, match="by reference"):
            await harness.put(Kept(result=Raw(b'"' + b"x" * INLINE_LIMIT + b'"')))
        assert await harness.found() is None
