"""The executable promises of limits that all processes share."""

import itertools
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import pytest

from hostler.contracts.limit import Grant, Wait, Want
from hostler.kernel.errors import InvalidError
from hostler.policy.limits import parse
from hostler.ports.limiter import Limiter

_STEPS = 400
_AHEAD = 1e-6


@dataclass(frozen=True, kw_only=True)
class LimiterHarness:
    """Two processes' limiters on the same limits, whose clock the test holds."""

    limiter: Limiter
    other: Limiter
    advance: Callable[[float], Awaitable[None]]


def want(text: str, units: int = 1, *, name: str = "here") -> Want:
    """Return what a call needs of the limit that `text` means."""
    return Want(limit=parse(text, name=name), units=units)


def most_in_a_window(times: Sequence[datetime], seconds: float, amounts: Sequence[int] | None = None) -> int:
    """Return the largest sum of `amounts` (1 each) in any half-open window of so many seconds."""
    span, first, total, most = timedelta(seconds=seconds), 0, 0, 0
    weights = amounts or [1] * len(times)
    for at, weight in zip(times, weights, strict=True):
        total += weight
        while times[first] <= at - span:
            total -= weights[first]
            first += 1
        most = max(most, total)
    return most


async def granted(limiter: Limiter, call: str, *wants: Want, lease: float = 60.0, fence: int = 0) -> Grant:
    """Return the grant of a call that may go."""
    answer = await limiter.take(call, wants, fence=fence, lease=lease)
    assert isinstance(answer, Grant), answer
    return answer


async def waits(limiter: Limiter, call: str, *wants: Want) -> Wait:
    """Return what a call is told that may not go yet."""
    answer = await limiter.take(call, wants)
    assert isinstance(answer, Wait), answer
    return answer


class LimiterConformance:
    """Subclass it, override `harness`, and every promise is a test; nothing was taken yet."""

    @pytest.fixture
    async def harness(self) -> LimiterHarness:
        """Return (or yield) the limiters under test."""
        raise NotImplementedError("override the fixture `harness`")

    async def test_calls_come_evenly_spaced_and_who_waits_as_told_is_granted(self, harness: LimiterHarness) -> None:
        three = want("3/s")
        await granted(harness.limiter, "a", three)
        told = await waits(harness.other, "b", three)
        assert (told.limit, told.after) == ("here", pytest.approx(1 / 3, abs=1e-5))
        await harness.advance(told.after - _AHEAD)
        assert (await waits(harness.other, "b", three)).after == pytest.approx(_AHEAD)
        await harness.advance(_AHEAD)
        await granted(harness.other, "b", three)

    async def test_a_burst_goes_at_once_and_is_part_of_what_the_window_may_have(self, harness: LimiterHarness) -> None:
        ten = want("10/s burst 4")
        for number in range(4):
            await granted(harness.limiter, f"a{number}", ten)
        assert (await waits(harness.other, "b", ten)).after == pytest.approx(1 / 7, abs=1e-5)

    @pytest.mark.parametrize("text", ["3/s", "10/s burst 4", "7/s burst 7", "50 tokens/s burst 20"])
    async def test_no_window_has_more_than_the_limit_whoever_asks_whenever(
        self, harness: LimiterHarness, text: str
    ) -> None:
        dice = random.Random(text)  # noqa: S311 - which moments are tried is no secret
        times: list[datetime] = []
        amounts: list[int] = []
        for number in range(_STEPS):
            one = want(text, dice.randint(1, 9) if "tokens" in text else 1)
            answer = await dice.choice((harness.limiter, harness.other)).take(str(number), [one], lease=3600.0)
            if isinstance(answer, Grant):
                times.append(answer.at)
                amounts.append(one.units)
            else:
                await harness.advance(answer.after if dice.random() < 0.5 else dice.random() * answer.after * 2)
        most = parse(text, name="here").most
        assert most_in_a_window(times, 1.0, amounts) <= most
        assert sum(amounts) > most

    async def test_a_call_takes_of_all_its_limits_or_of_none(self, harness: LimiterHarness) -> None:
        wide, narrow = want("100/s burst 2", name="wide"), want("1/min", name="narrow")
        await granted(harness.limiter, "a", wide, narrow)
        told = await waits(harness.other, "b", wide, narrow)
        assert (told.limit, told.after) == ("narrow", pytest.approx(60.0))
        await granted(harness.other, "c", wide)

    async def test_an_amount_that_was_not_used_comes_back_and_one_beyond_is_charged(
        self, harness: LimiterHarness
    ) -> None:
        tokens = want("100 tokens/min burst 41", 41)  # one a second
        await granted(harness.limiter, "a", tokens)
        assert await harness.limiter.settle("a", [tokens], used={"here": 20})
        assert not await harness.other.settle("a", [tokens], used={"here": 0})
        await granted(harness.other, "b", want("100 tokens/min burst 41", 21))
        assert await harness.other.settle("b", [tokens], used={"here": 81})
        assert (await harness.limiter.look([tokens.limit]))[0].used_s == pytest.approx(20 + 81)

    async def test_an_amount_comes_back_once_by_time_or_by_settling(self, harness: LimiterHarness) -> None:
        whole = want("100 tokens/min burst 60", 60)
        await granted(harness.limiter, "a", whole, lease=3600.0)
        await harness.advance(600.0)
        await granted(harness.other, "b", whole, lease=3600.0)
        await harness.limiter.settle("a", [whole], used={"here": 0})
        await waits(harness.limiter, "c", want("100 tokens/min burst 60", 1))

    async def test_an_amount_that_is_never_settled_stays_charged(self, harness: LimiterHarness) -> None:
        day = want("4 cents/day burst 4", 4)
        await granted(harness.limiter, "a", day, lease=1.0)
        await harness.advance(2.0)
        assert (await waits(harness.other, "b", day)).after > 86_000.0
        assert not await harness.limiter.settle("a", [day], used={"here": 0})

    async def test_so_many_are_in_flight_and_no_more(self, harness: LimiterHarness) -> None:
        two = want("in_flight 2")
        await granted(harness.limiter, "a", two)
        await granted(harness.other, "b", two)
        assert 0.0 < (await waits(harness.limiter, "c", two)).after <= 1.0
        assert await harness.limiter.settle("a", [two])
        await granted(harness.limiter, "c", two)
        await waits(harness.other, "d", two)

    async def test_a_place_comes_back_when_its_process_died(self, harness: LimiterHarness) -> None:
        one = want("in_flight 1")
        await granted(harness.limiter, "a", one, lease=10.0)
        await harness.advance(6.0)
        assert await harness.limiter.renew("a", [one], lease=10.0)
        await harness.advance(6.0)
        await waits(harness.other, "b", one)
        await harness.advance(4.0)
        await granted(harness.other, "b", one)
        assert not await harness.limiter.renew("a", [one])
        assert not await harness.limiter.settle("a", [one])
        await waits(harness.limiter, "c", one)

    async def test_a_call_that_asks_again_holds_one_place(self, harness: LimiterHarness) -> None:
        two = want("in_flight 2")
        await granted(harness.limiter, "a", two)
        await granted(harness.limiter, "a", two)
        assert (await harness.other.look([two.limit]))[0].leases == 1

    async def test_a_later_attempt_takes_a_call_over_and_the_earlier_has_no_say_any_more(
        self, harness: LimiterHarness
    ) -> None:
        both = [want("in_flight 1", name="place"), want("100 tokens/min burst 60", 20, name="tokens")]
        await granted(harness.limiter, "a", *both, fence=1)
        assert await harness.other.renew("a", both, fence=2)
        assert not await harness.limiter.settle("a", both, fence=1, used={"tokens": 0})
        assert not await harness.limiter.renew("a", both, fence=1)
        await waits(harness.limiter, "b", both[0])
        assert await harness.other.settle("a", both, fence=2, used={"tokens": 5})
        place, tokens = await harness.limiter.look([one.limit for one in both])
        assert (place.leases, tokens.used_s) == (0, pytest.approx(5 * 60 / 41, abs=1e-3))

    async def test_a_later_attempt_that_begins_anew_keeps_the_place_and_pays_again(
        self, harness: LimiterHarness
    ) -> None:
        both = [want("in_flight 1", name="place"), want("100 tokens/min burst 60", 20, name="tokens")]
        await granted(harness.limiter, "a", *both, fence=1)
        await granted(harness.other, "a", *both, fence=2)
        place, tokens = await harness.limiter.look([one.limit for one in both])
        assert (place.leases, tokens.leases) == (1, 1)
        assert tokens.used_s == pytest.approx(40 * 60 / 41, abs=1e-3)

    async def test_an_operator_lifts_a_hold_and_what_was_used_stays_used(self, harness: LimiterHarness) -> None:
        three = want("3/s")
        await granted(harness.limiter, "a", three)
        await harness.limiter.hold("here", 30.0)
        assert await harness.other.lift("here", reason="they said so")
        assert not await harness.other.lift("here")
        assert (await waits(harness.limiter, "b", three)).after == pytest.approx(1 / 3, abs=1e-5)

    async def test_a_list_says_of_each_limit_in_use_how_much_is_left_and_until_when(
        self, harness: LimiterHarness
    ) -> None:
        wants = [want("in_flight 3", name="place"), want("10/s burst 4", name="rate"), want("3/s", name="other")]
        await granted(harness.limiter, "a", *wants[:2])
        await harness.limiter.hold("gate", 7.0)
        gate, place, rate = await harness.other.list()
        assert (gate.name, gate.text, gate.left, gate.held_s) == ("gate", "", None, pytest.approx(7.0))
        assert (place.name, place.text, place.most, place.left, place.leases) == ("place", "in_flight 3", 3, 2, 1)
        assert (rate.name, rate.text, rate.most, rate.per, rate.left) == ("rate", "10/s burst 4", 10, 1.0, 3)
        assert rate.whole_s == pytest.approx(1 / 7, abs=1e-5)
        assert [one.name for one in await harness.other.list(most=2)] == ["gate", "place"]
        await harness.advance(100.0)
        assert await harness.limiter.list() == ()

    async def test_what_a_service_said_to_one_holds_for_all(self, harness: LimiterHarness) -> None:
        free, other = want("100/s burst 50"), want("100/s burst 50", name="elsewhere")
        await harness.limiter.hold("here", 30.0)
        await harness.other.hold("here", 5.0)
        assert (await waits(harness.other, "a", free)).after == pytest.approx(30.0)
        await granted(harness.other, "a", other)
        await harness.advance(30.0)
        await granted(harness.other, "a", free)

    async def test_a_look_shows_it_and_changes_nothing(self, harness: LimiterHarness) -> None:
        rate, place = want("10/s burst 2", name="rate"), want("in_flight 3", name="place")
        await granted(harness.limiter, "a", rate, place)
        await harness.limiter.hold("place", 7.0)
        looks = [await harness.other.look([place.limit, rate.limit]) for _ in range(3)]
        assert all(first == second for first, second in itertools.pairwise(looks))
        held, used = looks[0]
        assert (held.name, held.leases, held.held_s, held.used_s) == ("place", 1, pytest.approx(7.0), 0.0)
        assert (used.leases, used.used_s) == (0, pytest.approx(1 / 9, abs=1e-5))

    async def test_what_makes_no_sense_is_refused(self, harness: LimiterHarness) -> None:
        with pytest.raises(InvalidError, match="never go at once"):
            await harness.limiter.take("a", [want("100 tokens/min", 26)])
        with pytest.raises(InvalidError, match="each once"):
            await harness.limiter.take("a", [want("3/s"), want("4/s")])
        with pytest.raises(InvalidError, match="limits"):
            await harness.limiter.take("a", [])
        with pytest.raises(InvalidError, match="lease"):
            await harness.limiter.take("a", [want("3/s")], lease=0.0)
        with pytest.raises(InvalidError, match="name"):
            await harness.limiter.hold("", 3.0)
