"""The executable promises of lines at limits beside which others have room."""

import pytest

from hostler.contracts.limit import Grant, Line, Wait, Want
from hostler.ports.limiter import Limiter
from hostler.testing.limits import LimiterHarness, granted, want


async def queued(limiter: Limiter, call: str, one: Want, *, held: bool = False, patience: float = 0.0) -> Wait:
    """Return what a call is told that may not go yet by a limit with a line."""
    name = one.limit.name
    answer = await limiter.take(call, [one], narrow={name}, held=name if held else None, patience=patience)
    assert isinstance(answer, Wait), answer
    return answer


class LineConformance:
    """Subclass it, override `harness`, and every promise is a test; nothing was taken yet."""

    @pytest.fixture
    async def harness(self) -> LimiterHarness:
        """Return (or yield) the limiters under test."""
        raise NotImplementedError("override the fixture `harness`")

    async def test_each_that_is_refused_has_a_moment_of_its_own_and_nobody_goes_before_it(
        self, harness: LimiterHarness
    ) -> None:
        ten = want("10/s")
        await granted(harness.limiter, "a", ten)
        told = [await queued((harness.limiter, harness.other)[number % 2], str(number), ten) for number in range(5)]
        assert [one.after for one in told] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])
        assert {one.line for one in told} == {Line.OWN}
        for number in range(5):
            await harness.advance(0.1)
            assert (await queued(harness.other, "late", ten)).after == pytest.approx(0.5)
            held = await harness.limiter.take(str(number), [ten], narrow={"here"}, held="here")
            assert isinstance(held, Grant)

    async def test_who_comes_at_its_moment_and_finds_no_room_keeps_it_for_a_while_or_is_told_another(
        self, harness: LimiterHarness
    ) -> None:
        ten = want("10/s")
        await granted(harness.limiter, "a", ten)
        assert [(await queued(harness.limiter, name, ten)).after for name in "bcd"] == pytest.approx([0.1, 0.2, 0.3])
        await harness.advance(0.15)
        await harness.limiter.take("b", [ten], narrow={"here"}, held="here")
        await harness.advance(0.05)
        keeps = await queued(harness.other, "c", ten, held=True, patience=0.2)
        assert (keeps.after, keeps.line) == (pytest.approx(0.05), Line.NONE)
        other = await queued(harness.other, "c", ten, held=True, patience=0.01)
        assert (other.after, other.line) == (pytest.approx(0.2, abs=0.01), Line.OWN)

    async def test_a_line_is_so_long_and_no_longer_and_ends_when_nobody_comes(self, harness: LimiterHarness) -> None:
        one = want("1/s")
        await granted(harness.limiter, "a", one)
        told = [await queued(harness.limiter, str(number), one) for number in range(70)]
        assert [each.line for each in told] == [Line.OWN] * 61 + [Line.FULL] * 9
        assert [each.after for each in told[61:]] == pytest.approx([31.0] * 9)
        await harness.advance(1.9)
        await queued(harness.other, "b", one)
        await harness.advance(0.2)
        assert isinstance(await harness.other.take("b", [one], narrow={"here"}), Grant)

    async def test_a_line_draws_nearer_when_an_amount_was_not_used(self, harness: LimiterHarness) -> None:
        all_, few = (want("100 tokens/min burst 41", units) for units in (41, 11))  # one a second
        await granted(harness.limiter, "a", all_)
        assert [(await queued(harness.limiter, name, few)).after for name in "bc"] == pytest.approx([11.0, 22.0])
        await harness.limiter.settle("a", [all_], used={"here": 11})
        assert (await queued(harness.other, "d", few)).after == pytest.approx(33.0 - 30.0)

    async def test_a_line_at_calls_in_flight_goes_as_fast_as_they_end(self, harness: LimiterHarness) -> None:
        two = want("in_flight 2")
        for call in "ab":
            await granted(harness.limiter, call, two, lease=3600.0)
        await harness.advance(20.0)
        await harness.limiter.settle("a", [two])
        await granted(harness.limiter, "c", two, lease=3600.0)
        first, second = [(await queued(harness.other, name, two)).after for name in "de"]
        assert 8.0 < first < 11.0
        assert second == pytest.approx(2 * first)

    async def test_calls_that_follow_one_another_more_slowly_than_they_may_have_a_slower_line(
        self, harness: LimiterHarness
    ) -> None:
        ten = want("10/s")
        await granted(harness.limiter, "a", ten)
        for number in range(20):
            for _ in range(5):
                await queued(harness.limiter, "b", ten)
            await harness.advance(0.3)
            await harness.limiter.take(str(number), [ten], narrow={"here"}, held="here")
        ahead = [(await queued(harness.limiter, name, ten)).after for name in "bc"]
        assert 0.2 < ahead[1] - ahead[0] < 0.3
