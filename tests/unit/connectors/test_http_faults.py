"""Foreign exceptions and HTTP answers become failure classes in one place."""

import inspect
import socket
import ssl
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from types import ModuleType
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp import client_exceptions, http_exceptions
from aiohttp.client_reqrep import ConnectionKey
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from hostler.connectors.transports.http_faults import (
    RETRY_AFTER_MAX,
    failure_of_answer,
    failure_of_exception,
    retry_after,
    words_of,
)
from hostler.contracts.failure import FailureClass, Stage

C = FailureClass
NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
AUTH = {"ClientConnectorCertificateError", "ServerFingerprintMismatch"}
OURS = {
    "InvalidURL",
    "InvalidUrlClientError",
    "InvalidUrlRedirectClientError",
    "NonHttpUrlClientError",
    "NonHttpUrlRedirectClientError",
    "WSMessageTypeError",
}
TIMEOUTS = {"ConnectionTimeoutError": Stage.CONNECT, "SocketTimeoutError": Stage.IDLE, "ServerTimeoutError": Stage.RUN}


def exceptions_of(module: ModuleType) -> list[type[Exception]]:
    return [
        found
        for _, found in sorted(inspect.getmembers(module, inspect.isclass))
        if issubclass(found, Exception) and found.__module__ == module.__name__
    ]


def instance(kind: type[Exception]) -> Exception:
    """Make one as aiohttp would, so far as its classes allow."""
    key: Any = ConnectionKey("127.0.0.1", 1, False, True, None, None, None)
    request = aiohttp.RequestInfo(URL("http://x"), "GET", CIMultiDictProxy(CIMultiDict[str]()))
    for arguments in (
        (key, OSError(111, "refused")),
        (key, ssl.SSLCertVerificationError("bad certificate")),
        ("path", key, OSError(2, "absent")),
        (request, ()),
        (b"", b"", "host", 1),
        ("said",),
        (),
    ):
        try:
            made = kind(*arguments)
            str(made)
        except (TypeError, AttributeError):
            continue
        return made
    raise AssertionError(f"no way to make a {kind.__name__}")


@pytest.mark.row("000:33")
@pytest.mark.parametrize("kind", exceptions_of(client_exceptions) + exceptions_of(http_exceptions))
def test_every_exception_class_of_aiohttp_has_a_failure_class(kind: type[Exception]) -> None:
    failure = failure_of_exception(instance(kind), stage=Stage.RUN, seconds=3.0)
    if kind.__name__ in TIMEOUTS:
        assert (failure.class_, failure.stage) == (C.TIMEOUT, TIMEOUTS[kind.__name__])
    elif kind.__name__ in AUTH:
        assert failure.class_ is C.AUTH
    elif kind.__name__ in OURS:
        assert failure.class_ is C.INTERNAL
    else:
        assert failure.class_ is C.TRANSIENT
    assert failure.message


@pytest.mark.row("000:33")
@pytest.mark.parametrize(
    ("error", "class_"),
    [
        (ConnectionRefusedError(111, "refused"), C.TRANSIENT),
        (ConnectionResetError(), C.TRANSIENT),
        (socket.gaierror(-2, "unknown host"), C.TRANSIENT),
        (ssl.SSLError("handshake"), C.TRANSIENT),
        (ssl.SSLCertVerificationError("not trusted"), C.AUTH),
        (TimeoutError(), C.TIMEOUT),
        (msgspec.DecodeError("no JSON"), C.TRANSIENT),
        (msgspec.ValidationError("other JSON"), C.TRANSIENT),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"), C.TRANSIENT),
        (ZeroDivisionError("a defect"), C.INTERNAL),
    ],
)
def test_what_lies_under_aiohttp_has_a_class_too_and_a_defect_is_internal(error: Exception, class_: C) -> None:
    assert failure_of_exception(error, stage=Stage.CONNECT).class_ is class_


def test_a_malformed_answer_is_not_the_callers_fault_though_aiohttp_gives_it_status_400() -> None:
    request = aiohttp.RequestInfo(URL("http://x"), "GET", CIMultiDictProxy(CIMultiDict[str]()))
    error = aiohttp.ClientResponseError(request, (), status=400, message="Bad status line")
    assert failure_of_exception(error, stage=Stage.RUN).class_ is C.TRANSIENT


@pytest.mark.row("001:209")
@pytest.mark.parametrize(
    ("status", "class_"),
    [
        (302, C.TRANSIENT),
        (400, C.INVALID_INPUT),
        (401, C.AUTH),
        (402, C.QUOTA),
        (403, C.AUTH),
        (404, C.CAPABILITY_MISMATCH),
        (408, C.TRANSIENT),
        (409, C.OVERLOADED),
        (413, C.INVALID_INPUT),
        (422, C.INVALID_INPUT),
        (429, C.OVERLOADED),
        (451, C.REFUSED),
        (500, C.TRANSIENT),
        (502, C.TRANSIENT),
        (503, C.OVERLOADED),
        (504, C.TRANSIENT),
        (529, C.OVERLOADED),
        (599, C.TRANSIENT),
    ],
)
def test_a_status_has_a_class(status: int, class_: C) -> None:
    failure = failure_of_answer(status, {}, b"", codes={})
    assert failure.class_ is class_
    assert failure.details["status"] == status


def test_the_services_own_code_comes_before_the_status_and_text_is_never_believed() -> None:
    codes = {"insufficient_quota": C.QUOTA}
    body = b'{"error": {"message": "You are out of memory", "type": "x", "code": "insufficient_quota"}}'
    assert failure_of_answer(429, {}, body, codes=codes).class_ is C.QUOTA
    assert (
        failure_of_answer(500, {}, b'{"error": "CUDA out of memory; 401 unauthorized"}', codes=codes).class_
        is C.TRANSIENT
    )


@pytest.mark.parametrize(
    ("status", "word", "class_"),
    [
        (400, "true", C.TRANSIENT),
        (500, "false", C.REFUSED),
        (429, "false", C.REFUSED),
        (429, "true", C.OVERLOADED),
        (401, "true", C.AUTH),
        (500, "perhaps", C.TRANSIENT),
    ],
)
def test_x_should_retry_overrides_what_may_be_repeated(status: int, word: str, class_: C) -> None:
    assert failure_of_answer(status, {"x-should-retry": word}, b"", codes={}).class_ is class_


@pytest.mark.row("001:198")
@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.25"}, 0.25),
        ({"retry-after": " 3 "}, 3.0),
        ({"retry-after-ms": "1500"}, 1.5),
        ({"retry-after-ms": "1500", "retry-after": "60"}, 1.5),
        ({"retry-after-ms": "soon", "retry-after": "60"}, 60.0),
        ({"retry-after": "-5"}, 0.0),
        ({"retry-after": "1e12"}, RETRY_AFTER_MAX),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "tomorrow"}, None),
        ({"retry-after": format_datetime(NOW + timedelta(seconds=90), usegmt=True)}, 90.0),
        ({"retry-after": format_datetime(NOW - timedelta(seconds=90), usegmt=True)}, 0.0),
    ],
)
def test_retry_after_is_read_as_seconds_milliseconds_or_date(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers, now=NOW) == seconds


@given(st.text(max_size=40))
def test_no_retry_after_header_makes_the_reader_fail(text: str) -> None:
    found = retry_after({"retry-after": text, "retry-after-ms": text}, now=NOW)
    assert found is None or 0 <= found <= RETRY_AFTER_MAX


@pytest.mark.parametrize(
    ("body", "message", "code"),
    [
        (b'{"error": {"message": "no", "code": "c"}}', "no", "c"),
        (b'{"error": "no", "code": "c"}', "no", "c"),
        (b'{"detail": "no"}', "no", None),
        (b'{"message": "no"}', "no", None),
        (b'{"error": {"message": "no", "code": 400}}', "no", None),
        (b'"no"', "no", None),
        (b"<html>\n<b>no</b></html>", "<html> <b>no</b></html>", None),
        (b"\xff\xfe", "\ufffd\ufffd", None),
        (b"", "", None),
    ],
)
def test_words_are_found_in_every_known_shape(body: bytes, message: str, code: str | None) -> None:
    words = words_of(body)
    assert (words.message, words.code) == (message, code)


@given(st.binary(max_size=200))
def test_no_body_makes_the_reader_fail(body: bytes) -> None:
    failure_of_answer(500, {}, body, codes={})
