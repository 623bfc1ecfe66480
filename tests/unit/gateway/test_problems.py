"""Every error has one problem document, and the client makes the same error of it again."""

import msgspec
import pytest

from hostler.client.problems import error_of, error_of_body
from hostler.contracts.job import JobRequest
from hostler.contracts.problem import Problem
from hostler.gateway.problems import as_hostler_error, from_msgspec, headers_of, problem
from hostler.kernel.errors import (
    CapacityError,
    EngineUnavailableError,
    GatewayUnavailableError,
    HostlerError,
    InternalError,
    InvalidError,
    all_errors,
)

SHIPPED = [error for error in all_errors() if error.__module__.startswith("hostler.kernel")]


@pytest.mark.parametrize("kind", SHIPPED)
def test_every_error_goes_over_the_wire_and_comes_back_as_itself(kind: type[HostlerError]) -> None:
    facts: dict[str, object] = {"field": "needs.models", "what": {"a", "b"}}
    error = (
        kind("It is so.", retry_after=2.5, **facts) if issubclass(kind, CapacityError) else kind("It is so.", **facts)
    )
    document = problem(error, request_id="r")
    assert (document.status, document.code, document.retry) == (kind.status, kind.code, kind.retry)
    again = error_of(msgspec.json.decode(msgspec.json.encode(document), type=Problem))
    assert again.code == kind.code
    assert again.message == "It is so."
    assert again.facts["field"] == "needs.models"
    if isinstance(again, CapacityError):
        assert again.retry_after == 2.5


def test_when_to_come_back_is_whole_seconds_and_never_at_once() -> None:
    assert headers_of(problem(CapacityError("x", retry_after=0.2)))["Retry-After"] == "1"
    assert headers_of(problem(CapacityError("x", retry_after=2.1)))["Retry-After"] == "3"
    assert headers_of(problem(EngineUnavailableError("x")))["Retry-After"] == "1"
    assert headers_of(problem(InvalidError("x"))) == {}


def test_a_defect_never_shows_its_inside() -> None:
    hidden = as_hostler_error(ValueError("/secret/path"))
    assert isinstance(hidden, InternalError)
    assert "/secret" not in hidden.message


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"{}", "kind"),
        (b'{"kind":"a","x":1}', "x"),
        (b'{"kind":"a","needs":{"labels":{"":"x"}}}', "needs.labels"),
        (b'{"kind":"a","needs":{"models":["a",2]}}', "needs.models[1]"),
        (b'{"kind":"a","timeouts":{"run":-1}}', "timeouts.run"),
    ],
)
def test_the_field_that_is_wrong_is_named(body: bytes, field: str) -> None:
    with pytest.raises(msgspec.ValidationError) as wrong:
        msgspec.json.decode(body, type=JobRequest)
    error = from_msgspec(wrong.value, shape=JobRequest, where="jobs[3]")
    assert error.facts["field"] == f"jobs[3].{field}"
    assert error.message.startswith(f"jobs[3].{field}: ")


def test_an_answer_that_is_not_hostlers_is_named_as_such() -> None:
    for media_type, body in (("text/html", b"<h1>nginx</h1>"), ("application/problem+json", b"{}")):
        error = error_of_body(502, media_type, body)
        assert isinstance(error, GatewayUnavailableError)
        assert error.facts["status"] == 502
    newer = Problem(type="urn:x", title="New", status=418, code="brand-new", retry="never", detail="So.")
    error = error_of_body(418, "application/problem+json", msgspec.json.encode(newer))
    assert type(error) is HostlerError
    assert (error.message, error.facts["code"], error.facts["status"]) == ("So.", "brand-new", 418)
