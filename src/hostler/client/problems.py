"""Turns problem documents back into the typed errors that they were made from."""

from typing import Any, Final

import msgspec

from hostler.contracts.problem import Problem
from hostler.kernel.errors import CapacityError, GatewayUnavailableError, HostlerError, all_errors
from hostler.kernel.units import Seconds

PROBLEM: Final = "application/problem+json"
_OWN: Final = frozenset({"self", "message", "retry_after"})
"""Names that an error's constructor has for itself."""
_BY_CODE: Final = {error.code: error for error in reversed(all_errors())}


def error_of(problem: Problem) -> HostlerError:
    """Return the error of a problem; one of an unknown code (a newer gateway) is a plain `HostlerError` that has it."""
    kind = _BY_CODE.get(problem.code, HostlerError)
    facts: dict[str, Any] = {name: value for name, value in problem.facts.items() if name not in _OWN}
    facts |= {"request_id": problem.request_id, "status": problem.status}
    if problem.field is not None:
        facts["field"] = problem.field
    if kind is HostlerError:
        facts["code"] = problem.code
    sentence = problem.detail or problem.title
    if issubclass(kind, CapacityError):
        return kind(sentence, retry_after=problem.retry_after or 1.0, **facts)
    if problem.retry_after is not None:
        facts["retry_after"] = problem.retry_after
    return kind(sentence, **facts)


def error_of_body(status: int, media_type: str, body: bytes) -> HostlerError:
    """Return the error of an answer that is none of the expected; a foreign server's answer is named as such."""
    if media_type == PROBLEM:
        try:
            return error_of(msgspec.json.decode(body, type=Problem))
        except msgspec.MsgspecError:
            pass
    return GatewayUnavailableError(
        f"The answer has status {status} and is not Hostler's: is the URL that of a gateway, is a proxy between?",
        status=status,
    )


def wait_before(error: HostlerError) -> Seconds | None:
    """Return what the server said about when to come back, if it did."""
    found = error.facts.get("retry_after")
    return float(found) if isinstance(found, int | float) else None
