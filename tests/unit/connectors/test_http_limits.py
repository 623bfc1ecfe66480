"""What services write about limits in headers is read into one shape, or taken for not said."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy

from hostler.connectors.transports.http_limits import RESET_MAX, rate_hint, reset_in
from hostler.contracts.rates import RateHint, Room

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


def hint(status: int = 200, **headers: str) -> RateHint | None:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return rate_hint(status, CIMultiDictProxy(CIMultiDict(named)), now=NOW)


def test_the_headers_of_openai_say_how_much_is_left_and_when_all_is_back() -> None:
    found = hint(
        X_RateLimit_Limit_Requests="60",
        x_ratelimit_remaining_requests="59",
        x_ratelimit_reset_requests="1s",
        x_ratelimit_limit_tokens="150000",
        x_ratelimit_remaining_tokens="0",
        x_ratelimit_reset_tokens="6m0s",
    )
    assert found == RateHint(
        status=200,
        requests=Room(limit=60, remaining=59, reset=1.0),
        tokens=Room(limit=150_000, remaining=0, reset=360.0),
    )


def test_the_headers_of_anthropic_and_github_say_the_same_in_other_words() -> None:
    later = (NOW + timedelta(seconds=30)).isoformat().replace("+00:00", "Z")
    found = hint(anthropic_ratelimit_requests_remaining="4", anthropic_ratelimit_requests_reset=later)
    assert found == RateHint(status=200, requests=Room(remaining=4, reset=30.0))
    moment = str(int(NOW.timestamp()) + 90)
    found = hint(x_ratelimit_limit="5000", x_ratelimit_remaining="4999", x_ratelimit_reset=moment)
    assert found == RateHint(status=200, requests=Room(limit=5000, remaining=4999, reset=90.0))


def test_a_time_to_come_back_is_a_hint_and_so_is_a_429_by_itself() -> None:
    assert hint(503, retry_after="2") == RateHint(status=503, retry_after=2.0)
    assert hint(429, retry_after_ms="250", retry_after="9") == RateHint(status=429, retry_after=0.25)
    assert hint(429, retry_after=format_datetime(NOW + timedelta(seconds=5))) == RateHint(status=429, retry_after=5.0)
    assert hint(429) == RateHint(status=429)
    assert hint(200, content_type="application/json") is None
    assert hint(500) is None


def test_a_moment_may_be_written_in_milliseconds_since_1970() -> None:
    moment = NOW.timestamp() + 90
    assert reset_in(str(int(moment * 1000)), NOW) == reset_in(str(int(moment)), NOW) == 90.0


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("20ms", 0.02),
        ("1s", 1.0),
        ("1.5s", 1.5),
        ("6m0s", 360.0),
        ("1h2m3.5s", 3723.5),
        ("500us", 0.0005),
        ("2d", RESET_MAX),
        ("12", 12.0),
        ("0", 0.0),
        ("2026-11-22T12:00:07Z", 7.0),
        ("2026-11-22T11:00:00Z", 0.0),
        ("2026-11-22T12:00:07", 7.0),
        ("", None),
        ("soon", None),
        ("1x", None),
        ("-5", None),
        ("nan", None),
        ("inf", None),
        ("m", None),
    ],
)
def test_a_reset_is_read_in_each_way_that_services_write_it(text: str, seconds: float | None) -> None:
    assert reset_in(text, NOW) == pytest.approx(seconds)


@given(st.dictionaries(st.sampled_from(["limit", "remaining", "reset"]), st.text(max_size=30)), st.text(max_size=30))
def test_no_header_whatever_it_says_raises_or_gives_a_number_that_is_none(parts: dict[str, str], wait: str) -> None:
    headers = {f"x-ratelimit-{part}-requests": text for part, text in parts.items()} | {"retry-after": wait}
    found = rate_hint(200, headers, now=NOW)
    room = found.requests if found is not None else None
    for value in () if room is None else (room.limit, room.remaining, room.reset):
        assert value is None or 0 <= value < float("inf")
