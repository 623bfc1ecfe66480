"""What gRPC says becomes a failure class in one place."""

from typing import Any

import grpc
import grpc.aio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hostler.connectors.transports.grpc_faults import (
    BY_STATUS,
    DETAILS,
    PUSHBACK,
    RICH,
    failure_of_exception,
    failure_of_status,
    is_status,
    words_of,
)
from hostler.connectors.transports.http_faults import RETRY_AFTER_MAX
from hostler.contracts.failure import Failure, FailureClass, Stage

C = FailureClass
CODES = {"loading": C.OVERLOADED, "stale_fence": C.LOST}


def rich(*details: tuple[str, dict[str, Any]]) -> list[tuple[str, bytes]]:
    written = [
        {"type_url": f"type.googleapis.com/google.rpc.{name}", "value": RICH.encode(name, values)}
        for name, values in details
    ]
    return [(DETAILS, RICH.encode("Status", {"code": 8, "message": "m", "details": written}))]


def judged(status: str, *, message: str = "m", trailers: Any = ()) -> Failure:
    return failure_of_status(status, message, trailers, stage=Stage.IDLE, seconds=2.0, codes=CODES)


@pytest.mark.row("000:33")
def test_every_status_has_a_class_and_none_is_a_defect_of_ours() -> None:
    assert set(BY_STATUS) == {status.name for status in grpc.StatusCode} - {"OK"}
    assert C.INTERNAL not in BY_STATUS.values()


@pytest.mark.parametrize(
    ("status", "class_"),
    [
        ("INVALID_ARGUMENT", C.INVALID_INPUT),
        ("NOT_FOUND", C.CAPABILITY_MISMATCH),
        ("UNIMPLEMENTED", C.CAPABILITY_MISMATCH),
        ("UNAUTHENTICATED", C.AUTH),
        ("PERMISSION_DENIED", C.AUTH),
        ("RESOURCE_EXHAUSTED", C.OVERLOADED),
        ("UNAVAILABLE", C.TRANSIENT),
        ("INTERNAL", C.TRANSIENT),
        ("UNKNOWN", C.TRANSIENT),
        ("A_STATUS_OF_TOMORROW", C.TRANSIENT),
    ],
)
def test_a_status_decides_when_the_service_says_no_more(status: str, class_: C) -> None:
    failure = judged(status)
    assert (failure.class_, failure.message, failure.details) == (class_, "m", {"status": status})


def test_a_deadline_is_a_timeout_of_the_stage() -> None:
    failure = judged("DEADLINE_EXCEEDED")
    assert (failure.class_, failure.stage) == (C.TIMEOUT, Stage.IDLE)
    assert "2 s" in failure.message


def test_the_reason_of_the_service_goes_before_the_status_and_a_strange_one_does_not() -> None:
    failure = judged("FAILED_PRECONDITION", trailers=rich(("ErrorInfo", {"reason": "stale_fence"})))
    assert (failure.class_, failure.details["code"]) == (C.LOST, "stale_fence")
    assert judged("NOT_FOUND", trailers=rich(("ErrorInfo", {"reason": "??"}))).class_ is C.CAPABILITY_MISMATCH


def test_a_time_to_come_back_is_kept_and_makes_unavailable_an_overload() -> None:
    later = rich(("RetryInfo", {"retry_delay": {"seconds": 1, "nanos": 500_000_000}}))
    failure = judged("UNAVAILABLE", trailers=later)
    assert (failure.class_, failure.retry_after) == (C.OVERLOADED, 1.5)
    pushed = judged("RESOURCE_EXHAUSTED", trailers=[(PUSHBACK, b"250")])
    assert (pushed.class_, pushed.retry_after) == (C.OVERLOADED, 0.25)


def test_a_quota_that_says_no_time_is_spent_and_one_that_does_is_a_rate() -> None:
    assert judged("RESOURCE_EXHAUSTED", trailers=rich(("QuotaFailure", {}))).class_ is C.QUOTA
    later = rich(("QuotaFailure", {}), ("RetryInfo", {"retry_delay": {"seconds": 3}}))
    assert judged("RESOURCE_EXHAUSTED", trailers=later).class_ is C.OVERLOADED


@pytest.mark.parametrize("value", [b"-1", b"soon", b"", b"1e3", b"9" * 13, b"1.5", "²".encode()])
def test_a_pushback_that_makes_no_sense_is_passed_over(value: bytes) -> None:
    assert words_of([(PUSHBACK, value)]).retry_after is None


def test_no_delay_is_longer_than_a_day_or_below_zero() -> None:
    for seconds, expected in ((10**12, RETRY_AFTER_MAX), (-5, 0.0)):
        words = words_of(rich(("RetryInfo", {"retry_delay": {"seconds": seconds}})))
        assert words.retry_after == expected


@settings(deadline=None)  # the first example loads the types
@given(st.binary(max_size=200))
def test_no_trailer_breaks_the_judgement(data: bytes) -> None:
    assert judged("UNAVAILABLE", trailers=[(DETAILS, data), (PUSHBACK, data)]).class_ in {C.TRANSIENT, C.OVERLOADED}


def test_what_is_no_status_is_a_defect() -> None:
    for error in (grpc.aio.UsageError("Channel is closed."), grpc.aio.InternalError("x"), TypeError("y")):
        assert not is_status(error)
        failure = failure_of_exception(error)
        assert (failure.class_, failure.details) == (C.INTERNAL, {"exception": type(error).__name__})
