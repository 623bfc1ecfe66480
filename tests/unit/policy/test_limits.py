"""Shared limits as people write them, and what a call costs of one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostler.contracts.limit import Limit, LimitKind
from hostler.contracts.rates import RateHint, Room
from hostler.kernel.errors import InvalidError
from hostler.policy.limits import allowance, charge, parse, pause_of, safe, written
from hostler.policy.terms import Scope, term


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("3/s", Limit(name="a", kind=LimitKind.RATE, most=3, per=1.0)),
        ("60/min burst 5", Limit(name="a", kind=LimitKind.RATE, most=60, per=60.0, burst=5)),
        ("10/15s", Limit(name="a", kind=LimitKind.RATE, most=10, per=15.0)),
        ("5000/h", Limit(name="a", kind=LimitKind.RATE, most=5000, per=3600.0)),
        (
            "100000 tokens/min",
            Limit(name="a", kind=LimitKind.AMOUNT, most=100_000, per=60.0, unit="tokens", burst=25_000),
        ),
        (
            "500 cents/day burst 50",
            Limit(name="a", kind=LimitKind.AMOUNT, most=500, per=86_400.0, unit="cents", burst=50),
        ),
        ("in_flight 4", Limit(name="a", kind=LimitKind.IN_FLIGHT, most=4)),
    ],
)
def test_a_limit_is_read_as_it_is_written(text: str, limit: Limit) -> None:
    assert parse(text, name="a") == limit


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "write it like"),
        ("3 / s", "write it like"),
        ("3/week", "write it like"),
        ("-3/s", "write it like"),
        ("3.5/s", "write it like"),
        ("in_flight", "write it like"),
        ("0/s", "at least 1"),
        ("in_flight 0", "at least 1"),
        ("3/0s", "more than nothing"),
        ("3/32day", "31 days"),
        ("3/s burst 4", "more than the limit"),
        ("9999999999999/s", "at most"),
    ],
)
def test_a_text_that_is_no_limit_is_refused_with_what_is_wrong(text: str, words: str) -> None:
    with pytest.raises(InvalidError, match=words):
        parse(text, name="a")


@pytest.mark.parametrize("name", ["", "a b", "a{b}", "x" * 201])
def test_a_name_that_no_key_may_have_is_refused(name: str) -> None:
    with pytest.raises(InvalidError, match="name"):
        parse("3/s", name=name)


@given(
    most=st.integers(1, 10**9),
    share=st.floats(0, 1),
    per=st.integers(1, 86_400),
    units=st.integers(0, 10**6),
    kind=st.sampled_from([LimitKind.RATE, LimitKind.AMOUNT]),
)
def test_rounding_never_lets_more_through(most: int, share: float, per: int, units: int, kind: LimitKind) -> None:
    burst = max(1, min(most, round(most * share)))
    limit = Limit(name="a", kind=kind, most=most, per=float(per), burst=burst)
    assert charge(limit, units) * (most - burst + 1) >= units * per * 1_000_000
    full = allowance(limit) + per * 1_000_000 - 1  # what a window can be charged at most
    if kind is LimitKind.RATE:
        assert full // charge(limit, 1) <= most
    else:
        assert charge(limit, most + 1) > full


@pytest.mark.parametrize(
    "text", ["3/s", "60/min burst 5", "10/15s", "5000/h", "100000 tokens/min", "7/2day", "in_flight 4"]
)
def test_what_is_written_of_a_limit_is_read_as_the_same(text: str) -> None:
    limit = parse(text, name="a")
    assert parse(written(limit), name="a") == limit


@pytest.mark.parametrize(
    ("room", "pause"),
    [
        (Room(limit=100, remaining=11, reset=60.0), None),
        (Room(limit=100, remaining=10, reset=60.0), 6.0),
        (Room(limit=100, remaining=2, reset=60.0), 30.0),
        (Room(limit=100, remaining=2, reset=0.12), 0.1),
        (Room(limit=100, remaining=1, reset=60.0), 60.0),
        (Room(limit=100, remaining=0, reset=60.0), 60.0),
        (Room(remaining=2, reset=60.0), None),
        (Room(remaining=0, reset=60.0), 60.0),
        (Room(limit=100, remaining=0), None),
    ],
)
def test_the_last_calls_that_a_service_allows_are_spread_over_the_time_until_more_come(
    room: Room, pause: float | None
) -> None:
    assert pause_of(RateHint(status=200, requests=room)) == pause


@pytest.mark.parametrize(("remaining", "pause"), [(10_000, None), (5_000, 30.0), (0, 60.0)])
def test_the_fewer_tokens_are_left_the_longer_is_the_pause(remaining: int, pause: float | None) -> None:
    assert pause_of(RateHint(status=200, tokens=Room(limit=100_000, remaining=remaining, reset=60.0))) == pause


def test_a_time_to_come_back_counts_as_it_is_said() -> None:
    assert pause_of(RateHint(status=429, retry_after=2.5, requests=Room(remaining=0, reset=9.0))) == 2.5
    assert pause_of(RateHint(status=503, retry_after=2.5)) == 2.5
    assert pause_of(RateHint(status=429)) is None


def test_a_time_to_come_back_beside_an_answer_is_no_word_about_limits() -> None:
    assert pause_of(RateHint(status=200, retry_after=86_400.0)) is None
    assert pause_of(RateHint(status=202, retry_after=86_400.0, requests=Room(remaining=0, reset=9.0))) == 9.0


PARTS = {Scope.ENDPOINT: "e1", Scope.SERVICE: "openai", Scope.MODEL: "gpt {x} y", Scope.TENANT: "blue"}


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("3/s", "e1|3/s"),
        ("3/s per endpoint", "e1|3/s_per_endpoint"),
        ("60/min burst 5 per service", "openai|60/min_burst_5_per_service"),
        ("in_flight 2 per model", "openai|model=gpt_%7Bx%7D_y|in_flight_2_per_model"),
        ("100 tokens/min per tenant", "openai|tenant=blue|100_tokens/min_per_tenant"),
    ],
)
def test_a_term_names_the_limit_by_what_has_it_for_itself(text: str, name: str) -> None:
    assert term(text).named(PARTS).name == name


def test_cents_are_counted_in_thousandths() -> None:
    limit = term("500 cents/day burst 50").limit
    assert (limit.unit, limit.most, limit.burst) == ("millicents", 500_000, 50_000)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("3 per s", "a rate is written like 3/s"),
        ("3/s per galaxy", "per endpoint, service, model, tenant, not per galaxy"),
        ("7 pictures/min", "nothing counts pictures"),
        ("often", "write it like"),
    ],
)
def test_a_term_that_means_nothing_is_refused_with_what_is_wrong(text: str, words: str) -> None:
    with pytest.raises(InvalidError, match=words):
        term(text)


@given(st.text(min_size=1, max_size=400))
def test_any_text_makes_a_name_that_a_limit_may_have(text: str) -> None:
    parse("3/s", name=safe(text))
