"""The one place where what aiohttp raises, and what HTTP says, becomes a failure class."""

import math
import ssl
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, Final, cast

import aiohttp
import msgspec
from aiohttp import http_exceptions

from hostler.connectors.faults import failure
from hostler.contracts.failure import Failure, FailureClass, Stage
from hostler.kernel.units import Seconds

C = FailureClass
EXCERPT: Final = 400
"""Characters of a foreign body that a failure may quote."""
RETRY_AFTER_MAX: Final[Seconds] = 86_400.0

_TIMEOUTS: Final[tuple[tuple[type[BaseException], Stage], ...]] = (
    (aiohttp.ConnectionTimeoutError, Stage.CONNECT),
    (aiohttp.SocketTimeoutError, Stage.IDLE),
)

_BY_TYPE: Final[tuple[tuple[type[BaseException], FailureClass], ...]] = (
    # A peer whose identity cannot be verified: no other try helps, an operator does.
    (aiohttp.ClientConnectorCertificateError, C.AUTH),
    (aiohttp.ServerFingerprintMismatch, C.AUTH),
    (ssl.SSLCertVerificationError, C.AUTH),
    # Our own doing: a URL or message that was never checked.
    (aiohttp.InvalidURL, C.INTERNAL),
    (aiohttp.NonHttpUrlClientError, C.INTERNAL),
    (aiohttp.WSMessageTypeError, C.INTERNAL),
    # Everything else of the library is the network, or a peer that does not speak HTTP. That includes
    # `ClientResponseError`: the status it carries for a malformed answer is made up by the parser.
    (aiohttp.ClientError, C.TRANSIENT),
    (http_exceptions.HttpProcessingError, C.TRANSIENT),
    (msgspec.MsgspecError, C.TRANSIENT),
    (UnicodeError, C.TRANSIENT),
    (OSError, C.TRANSIENT),
)

_BY_STATUS: Final[Mapping[int, FailureClass]] = {
    400: C.INVALID_INPUT,
    401: C.AUTH,
    402: C.QUOTA,
    403: C.AUTH,
    404: C.CAPABILITY_MISMATCH,
    405: C.CAPABILITY_MISMATCH,
    407: C.AUTH,
    408: C.TRANSIENT,
    409: C.OVERLOADED,
    410: C.CAPABILITY_MISMATCH,
    421: C.TRANSIENT,
    425: C.TRANSIENT,
    429: C.OVERLOADED,
    451: C.REFUSED,
    501: C.CAPABILITY_MISMATCH,
    503: C.OVERLOADED,
    529: C.OVERLOADED,
}

_MAY_HURRY: Final = frozenset({C.TRANSIENT, C.OVERLOADED, C.INVALID_INPUT, C.CAPABILITY_MISMATCH})
"""Classes that `x-should-retry` may change."""


class Words(msgspec.Struct, frozen=True, kw_only=True):
    """What an error body says, whatever its shape."""

    message: str
    code: str | None = None
    type: str | None = None


def failure_of_exception(error: BaseException, *, stage: Stage, seconds: Seconds | None = None) -> Failure:
    """Return the failure of what aiohttp (or the socket under it) raised.

    `stage` is blamed for a timeout of the whole call, `seconds` is its limit. What is in no row is `internal`.
    """
    name = _name(error)
    text = f"{name}: {error}" if str(error) else name
    for kind, own_stage in _TIMEOUTS:
        if isinstance(error, kind):
            return Failure(class_=C.TIMEOUT, message=text, stage=own_stage)
    if isinstance(error, TimeoutError):
        limit = "" if seconds is None else f" ({seconds:g} s)"
        return Failure(class_=C.TIMEOUT, message=f"no answer within the limit of stage {stage}{limit}", stage=stage)
    class_ = next((class_ for kind, class_ in _BY_TYPE if isinstance(error, kind)), C.INTERNAL)
    return failure(class_, text, exception=name)


def _name(error: object) -> str:
    return error.__class__.__name__


def failure_of_answer(
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    *,
    codes: Mapping[str, FailureClass],
    now: datetime | None = None,
) -> Failure:
    """Return the failure that an answer means: the service's own code first, then the status, text never.

    `codes` maps what the service writes as code or type. `x-should-retry` overrides what may be repeated.
    """
    words = words_of(body)
    named = next((codes[word] for word in (words.code, words.type) if word is not None and word in codes), None)
    class_ = named or _class_of_status(status)
    if class_ in _MAY_HURRY:
        match headers.get("x-should-retry", "").strip().lower():
            case "true" if class_ is not C.OVERLOADED:
                class_ = C.TRANSIENT
            case "false" if class_ in {C.TRANSIENT, C.OVERLOADED}:
                class_ = C.REFUSED
            case _:
                pass
    return failure(
        class_,
        words.message or f"the service answered {status}",
        retry_after=retry_after(headers, now=now),
        status=status,
        code=words.code or words.type,
        request_id=headers.get("x-request-id"),
    )


def _class_of_status(status: int) -> FailureClass:
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    if HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR:
        return C.INVALID_INPUT
    return C.TRANSIENT


def words_of(body: bytes) -> Words:
    """Return what an error body says: the known JSON shapes, else an excerpt of its text."""
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeError):
        text = " ".join(body[: 4 * EXCERPT].decode(errors="replace").split())
        return Words(message=text[:EXCERPT])
    if not isinstance(value, dict):
        return Words(message=str(value)[:EXCERPT])
    outer = cast("dict[str, Any]", value)
    inner: Any = outer.get("error", outer)
    if isinstance(inner, dict):
        fields = cast("dict[str, Any]", inner)
        said = fields.get("message", fields.get("detail", ""))
        return Words(message=_text(said), code=_word(fields.get("code")), type=_word(fields.get("type")))
    return Words(message=_text(inner), code=_word(outer.get("code")), type=_word(outer.get("type")))


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return text[: 4 * EXCERPT]


def _word(value: Any) -> str | None:
    return value[:100] if isinstance(value, str) and value else None


def retry_after(headers: Mapping[str, str], *, now: datetime | None = None) -> Seconds | None:
    """Return when to come back: `retry-after-ms`, then `Retry-After` as seconds (fractions too) or HTTP date.

    None when it is absent or makes no sense; never below zero nor above a day.
    """
    for name, scale in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        text = headers.get(name, "").strip()
        if not text:
            continue
        seconds = _number(text)
        if seconds is not None:
            return min(max(0.0, seconds * scale), RETRY_AFTER_MAX)
        if name == "retry-after" and (at := _date(text)) is not None:
            return min(max(0.0, (at - (now or datetime.now(UTC))).total_seconds()), RETRY_AFTER_MAX)
    return None


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _date(text: str) -> datetime | None:
    try:
        at = parsedate_to_datetime(text)
    except ValueError:
        return None
    return at if at.tzinfo else at.replace(tzinfo=UTC)
