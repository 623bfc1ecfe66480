"""Errors as callers see them: every exception becomes one problem document, in one place."""

import math
import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

import msgspec
from litestar.exceptions import HTTPException

from hostler.contracts.problem import Problem
from hostler.kernel.errors import (
    CapacityError,
    EngineError,
    HostlerError,
    InternalError,
    InvalidError,
    MalformedError,
    MethodError,
    NotFoundError,
)
from hostler.kernel.fields import known_fields

TYPE_PREFIX: Final = "urn:hostler:error:"
ENGINE_RETRY_AFTER: Final = 1.0
"""Seconds; a supervised engine is back within a few."""
_FACTS_HIDDEN: Final = frozenset({"field", "retry_after"})
_WHERE: Final = re.compile(r"^(?P<what>.*?)(?: - at (?:`(?P<part>key|value)` in )?`\$(?P<path>[^`]*)`)?$", re.DOTALL)
_NAMED: Final = re.compile(r"^Object (?:contains unknown|missing required) field `(?P<name>.*)`$", re.DOTALL)


def problem(error: HostlerError, *, request_id: str = "", instance: str = "") -> Problem:
    """Return the problem document of an error."""
    field = error.facts.get("field")
    return Problem(
        type=TYPE_PREFIX + error.code,
        title=error.code.replace("-", " ").capitalize(),
        status=error.status,
        code=error.code,
        retry=error.retry,
        detail=error.message,
        request_id=request_id,
        instance=instance,
        field=None if field is None else str(field),
        retry_after=_retry_after(error),
        facts={key: _plain(value) for key, value in error.facts.items() if key not in _FACTS_HIDDEN},
    )


def _plain(value: object) -> Any:
    """Return a fact as JSON; what has no JSON shape becomes its text."""
    return msgspec.to_builtins(value, enc_hook=str, str_keys=True)


def _retry_after(error: HostlerError) -> float | None:
    if isinstance(error, CapacityError):
        return error.retry_after
    if isinstance(error, EngineError) and error.retry == "later":
        return ENGINE_RETRY_AFTER
    return None


def headers_of(document: Problem) -> dict[str, str]:
    """Return the headers that go with a problem."""
    headers: dict[str, str] = {}
    if document.retry_after is not None:
        headers["Retry-After"] = str(max(1, math.ceil(document.retry_after)))
    allow = document.facts.get("allow")
    if document.status == HTTPStatus.METHOD_NOT_ALLOWED and isinstance(allow, list):
        headers["Allow"] = ", ".join(str(method) for method in msgspec.convert(allow, list[str]))
    return headers


def as_hostler_error(error: BaseException) -> HostlerError:
    """Return the coded error for whatever a handler or Litestar raised; a defect becomes `InternalError`."""
    if isinstance(error, HostlerError):
        return error
    if isinstance(error, HTTPException):
        return _from_router(error)
    return InternalError("Hostler ran into a defect of its own. Quote the request id when you report it.")


def _from_router(error: HTTPException) -> HostlerError:
    if error.status_code == HTTPStatus.NOT_FOUND:
        return NotFoundError("There is no such route. /v1/openapi.json lists all.")
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        return MethodError("This route does not take this method.")
    if error.status_code < HTTPStatus.INTERNAL_SERVER_ERROR:
        return InvalidError(error.detail or "The request cannot be read.")
    return InternalError("Hostler ran into a defect of its own. Quote the request id when you report it.")


def from_msgspec(error: Exception, *, shape: Any, where: str = "") -> InvalidError:
    """Return the error for a body or query that does not fit `shape`; `where` goes before the field's path."""
    if not isinstance(error, msgspec.ValidationError):
        if isinstance(error, RecursionError):
            return MalformedError("The body is nested too deeply.", field=where or None)
        return MalformedError(f"The body is not JSON: {_words(str(error))}.", field=where or None)
    found = _WHERE.match(str(error))
    what, path = (found["what"], found["path"] or "") if found else (str(error), "")
    named = _NAMED.match(what)
    if named:
        path = f"{path}.{named['name']}"
    field = f"{where}{path}".lstrip(".")
    part = "its key: " if found and found["part"] == "key" else ""
    words = f"{_words(what)}{known_fields(error, shape)}"
    sentence = f"{field}: {part}{words}." if field else f"The body does not fit: {words}."
    return InvalidError(sentence[0:2000], field=field or None)


def _words(text: str) -> str:
    text = text.removeprefix("JSON is malformed: ").rstrip(".")
    return text[:1].lower() + text[1:]


def facts_of(error: HostlerError) -> Mapping[str, object]:
    """Return what is worth a log record: code and facts."""
    return {"code": error.code, "facts": error.facts}
