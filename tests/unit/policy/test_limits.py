"""Shared limits as people write them, and what a call costs of one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostler.contracts.limit import Limit, LimitKind
from hostler.kernel.errors import InvalidError
from hostler.policy.limits import allowance, charge, parse


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
