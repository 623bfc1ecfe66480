"""What an answer says about being given again, as RFC 9111 has it for a private cache."""

from datetime import UTC, datetime

import pytest
from multidict import CIMultiDict, CIMultiDictProxy

from hostler.connectors.transports.http_reuse import Reuse, renewed, reuse_of

NOW = datetime(2026, 5, 1, 12, 0, 0, tzinfo=UTC)
TAG = ("ETag", '"a"')


def headers(*fields: tuple[str, str]) -> CIMultiDictProxy[str]:
    return CIMultiDictProxy(CIMultiDict(fields))


def read(*fields: tuple[str, str], assumed: float = 0.0, delay: float = 0.0) -> Reuse | None:
    return reuse_of(headers(*fields), assumed=assumed, now=NOW, delay=delay)


@pytest.mark.row("002:234")
@pytest.mark.parametrize(
    "fields",
    [
        (),
        (("Cache-Control", "no-store"), TAG),
        (("Cache-Control", "max-age=60"), ("Cache-Control", "NO-STORE"), TAG),
        (("Cache-Control", 'ext="a, b" , no-store'), TAG),
        (("Vary", "*"), ("Cache-Control", "max-age=60"), TAG),
        (("Vary", "Accept"), ("Vary", "x-request-timeout-ms"), TAG),
        (("Cache-Control", "max-age=0"),),
        (("Cache-Control", "no-cache"),),
        (("Cache-Control", "private"),),
        (("Cache-Control", "s-maxage=60"),),
    ],
)
def test_an_answer_is_not_kept_that_must_not_or_could_never_be_given_again(fields: tuple[tuple[str, str], ...]) -> None:
    assert read(*fields) is None


@pytest.mark.parametrize(
    ("fields", "lifetime"),
    [
        ((("Cache-Control", "private, max-age=60"),), 60),
        ((("Cache-Control", 'Max-Age="60"'),), 60),
        ((("Cache-Control", "max-age=60"), ("Cache-Control", "max-age=30")), 30),
        ((("Cache-Control", "max-age=60"), ("Expires", "Fri, 01 May 2026 13:00:00 GMT")), 60),
        ((("Cache-Control", "max-age=99999999999999999999"),), 2**31),
        ((("Cache-Control", 'x="max-age=60"'), TAG), 7),
        ((("Cache-Control", "max-age=soon"), TAG), 0),
        ((("Cache-Control", "max-age=-1"), TAG), 0),
        ((("Cache-Control", "no-cache, max-age=60"), TAG), 0),
        ((("Cache-Control", 'no-cache="set-cookie", max-age=60'), TAG), 0),
        ((("Expires", "Fri, 01 May 2026 12:01:00 GMT"),), 60),
        ((("Expires", "Fri, 01 May 2026 12:01:00 GMT"), ("Date", "Fri, 01 May 2026 11:59:00 GMT")), 120),
        ((("Expires", "0"), TAG), 0),
        ((("Expires", "Fri, 01 May 2026 11:00:00 GMT"), TAG), 0),
        ((TAG,), 7),
        ((), 7),
    ],
)
def test_an_answer_is_good_for_as_long_as_it_says(fields: tuple[tuple[str, str], ...], lifetime: float) -> None:
    found = read(*fields, assumed=7.0)
    assert found is not None
    assert found.lifetime == lifetime


@pytest.mark.parametrize(
    ("fields", "age"),
    [
        ((), 2),
        ((("Age", "30"),), 32),
        ((("Age", "old"),), 2),
        ((("Date", "Fri, 01 May 2026 11:59:00 GMT"),), 60),
        ((("Date", "Fri, 01 May 2026 11:59:00 GMT"), ("Age", "90")), 92),
        ((("Date", "Fri, 01 May 2026 13:00:00 GMT"),), 2),
        ((("Date", "yesterday"),), 2),
        ((("Date", "Fri, 99999999999999999999 May 2026 13:00:00 GMT"),), 2),
    ],
)
def test_an_answer_was_as_old_as_its_date_or_age_say_and_the_request_took(
    fields: tuple[tuple[str, str], ...], age: float
) -> None:
    found = read(("Cache-Control", "max-age=60"), *fields, delay=2.0)
    assert found is not None
    assert found.age == age
    assert found.fresh is (age < 60)


def test_whether_an_answer_changed_is_asked_by_what_it_gave_for_it() -> None:
    found = read(TAG, ("Last-Modified", "Fri, 01 May 2026 11:00:00 GMT"))
    assert found is not None
    assert found.conditions == {"If-None-Match": '"a"', "If-Modified-Since": "Fri, 01 May 2026 11:00:00 GMT"}


def test_a_renewed_answer_has_the_news_of_the_304_and_its_own_content() -> None:
    kept = headers(("Age", "50"), ("Date", "x"), ("Content-Type", "a/b"), ("Cache-Control", "max-age=1"), TAG)
    told = headers(("content-type", "c/d"), ("cache-control", "max-age=60"), ("cache-control", "private"))
    fields = sorted((name.lower(), value) for name, value in renewed(kept, told).items())
    expected = [("cache-control", "max-age=60"), ("cache-control", "private"), ("content-type", "a/b"), ("etag", '"a"')]
    assert fields == expected
