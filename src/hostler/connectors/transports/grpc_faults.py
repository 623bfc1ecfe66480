"""The one place where what gRPC says, and what its library raises, becomes a failure class."""

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

from msgspec import Struct

from hostler.connectors.faults import ServiceFaultError, failure, off_protocol
from hostler.connectors.transports.descriptor import GRPC_STATUS
from hostler.connectors.transports.http_faults import RETRY_AFTER_MAX
from hostler.connectors.transports.protobuf import Messages
from hostler.contracts.failure import Failure, FailureClass, Stage
from hostler.kernel.units import Seconds

C = FailureClass
RICH: Final = Messages("google.rpc", GRPC_STATUS)
DETAILS: Final = "grpc-status-details-bin"
PUSHBACK: Final = "grpc-retry-pushback-ms"

BY_STATUS: Final[Mapping[str, FailureClass]] = {
    "CANCELLED": C.TRANSIENT,  # by the other side: what we cancel ourselves never gets here
    "UNKNOWN": C.TRANSIENT,
    "INVALID_ARGUMENT": C.INVALID_INPUT,
    "DEADLINE_EXCEEDED": C.TIMEOUT,
    "NOT_FOUND": C.CAPABILITY_MISMATCH,
    "ALREADY_EXISTS": C.INVALID_INPUT,
    "PERMISSION_DENIED": C.AUTH,
    "RESOURCE_EXHAUSTED": C.OVERLOADED,
    "FAILED_PRECONDITION": C.CAPABILITY_MISMATCH,  # of the endpoint (a model that is not loaded): another may fulfil it
    "ABORTED": C.TRANSIENT,
    "OUT_OF_RANGE": C.INVALID_INPUT,
    "UNIMPLEMENTED": C.CAPABILITY_MISMATCH,
    "INTERNAL": C.TRANSIENT,
    "UNAVAILABLE": C.TRANSIENT,  # nobody there, or not now: `OVERLOADED` when it says when to come back
    "DATA_LOSS": C.TRANSIENT,
    "UNAUTHENTICATED": C.AUTH,
}
"""Every status but `OK`."""

TOO_LARGE: Final = "CLIENT: Received message larger than max"
"""What the library says, in its own `RESOURCE_EXHAUSTED`, of an answer over our limit."""
TOO_LARGE_THERE: Final = "SERVER: Received message larger than max"
"""What the library of a server says of a request over its limit (4 MiB unless set): another may have a higher one."""
BAD_PEER: Final = ("CERTIFICATE_VERIFY_FAILED", "Hostname Verification Check failed", "certificate verify failed")
"""What the library itself says, in its `UNAVAILABLE`, of a peer whose identity cannot be verified."""

Metadata = Sequence[tuple[str, bytes]]


class _Detail(Struct, frozen=True, kw_only=True):
    type_url: str
    value: bytes


class _Status(Struct, frozen=True, kw_only=True):
    details: list[_Detail]


class _ErrorInfo(Struct, frozen=True, kw_only=True):
    reason: str


class _Delay(Struct, frozen=True, kw_only=True):
    seconds: int
    nanos: int


class _RetryInfo(Struct, frozen=True, kw_only=True):
    retry_delay: _Delay | None = None


class Words(Struct, frozen=True, kw_only=True):
    """What the trailers say beside the status."""

    reason: str | None = None
    retry_after: Seconds | None = None
    quota: bool = False


def failure_of_status(
    status: str,
    message: str,
    trailers: Metadata,
    *,
    stage: Stage,
    seconds: Seconds,
    codes: Mapping[str, FailureClass],
) -> Failure:
    """Return the failure that a status means: the service's own reason first, then the status, text never.

    `codes` maps the reasons of `google.rpc.ErrorInfo`; `stage` is blamed for a deadline, `seconds` was its limit.
    """
    if status == "DEADLINE_EXCEEDED":
        text = f"no answer within the limit of stage {stage} ({seconds:g} s)"
        return Failure(class_=C.TIMEOUT, message=text, stage=stage, details={"status": status})
    words = words_of(trailers)
    class_ = codes.get(words.reason or "") or BY_STATUS.get(status, C.TRANSIENT)
    if status == "RESOURCE_EXHAUSTED" and words.reason not in codes:
        class_ = C.QUOTA if words.quota and words.retry_after is None else class_
        if TOO_LARGE_THERE in message:
            class_ = C.CAPABILITY_MISMATCH
        if TOO_LARGE in message:
            return off_protocol(f"the service sent a message over the limit: {message}", status=status).failure
    if status == "UNAVAILABLE" and words.reason not in codes:
        if words.retry_after is not None:
            class_ = C.OVERLOADED
        elif any(sign in message for sign in BAD_PEER):
            class_ = C.AUTH
    return failure(
        class_,
        message or f"the service answered {status}",
        retry_after=words.retry_after,
        status=status,
        code=words.reason,
    )


def failure_of_exception(error: BaseException) -> Failure:
    """Return the failure of what the library raised that is no status: a defect, ours or its."""
    name = type(error).__name__
    return failure(C.INTERNAL, f"{name}: {error}" if str(error) else name, exception=name)


def words_of(trailers: Metadata) -> Words:
    """Read the reason and the time to come back; what makes no sense is passed over."""
    reason: str | None = None
    after: Seconds | None = None
    quota = False
    for name, value in trailers:
        if name == PUSHBACK and after is None:
            after = _pushback(value)
        if name != DETAILS:
            continue
        with contextlib.suppress(ServiceFaultError):
            for detail in RICH.decode("Status", value, _Status).details:
                match detail.type_url.rpartition("/")[2]:
                    case "google.rpc.ErrorInfo":
                        reason = RICH.decode("ErrorInfo", detail.value, _ErrorInfo).reason[:100] or reason
                    case "google.rpc.RetryInfo":
                        delay = RICH.decode("RetryInfo", detail.value, _RetryInfo).retry_delay
                        after = after if delay is None else _bounded(delay.seconds + delay.nanos / 1e9)
                    case "google.rpc.QuotaFailure":
                        quota = True
                    case _:
                        pass
    return Words(reason=reason, retry_after=after, quota=quota)


def _pushback(value: bytes) -> Seconds | None:
    return _bounded(int(value) / 1000) if value.isdigit() and len(value) <= _DIGITS else None


_DIGITS: Final = 12


def _bounded(seconds: float) -> Seconds:
    return min(max(0.0, seconds), RETRY_AFTER_MAX)


def is_status(error: Any) -> bool:
    """Tell whether an exception carries a status of gRPC."""
    return callable(getattr(error, "code", None)) and callable(getattr(error, "trailing_metadata", None))
