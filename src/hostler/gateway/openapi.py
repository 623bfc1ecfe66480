"""Writes the OpenAPI 3.1 document from the same records that the routes are built from."""

import inspect
import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from hostler.contracts.event import Event
from hostler.contracts.job import JobRequest
from hostler.contracts.portable import portable
from hostler.contracts.problem import Problem
from hostler.gateway.operation import BINARY, EVENTS, JSON, PICTURE, PROBLEM, Nothing, Operation
from hostler.gateway.problems import TYPE_PREFIX
from hostler.gateway.shapes import PATH_PARAMETERS
from hostler.kernel.errors import (
    CapacityError,
    EngineTimeoutError,
    EngineUnavailableError,
    ForeignOriginError,
    HostlerError,
    InternalError,
    InvalidError,
    MalformedError,
    MediaTypeError,
    TooLargeError,
    WrongHostError,
)
from hostler.kernel.version import __version__

_REF: Final = "#/components/schemas/{name}"
_SEALED: Final = "JobRequest"
Anything = dict[str, Any]


def document(operations: Sequence[Operation[Any, Any]]) -> bytes:
    """Return the document as JSON."""
    types = _types(operations)
    schemas, components = msgspec.json.schema_components(types, ref_template=_REF)
    by_type = {_key(kind): schema for kind, schema in zip(types, schemas, strict=True)}
    components["Batch"]["properties"]["jobs"]["items"] = {"$ref": _REF.format(name=_SEALED)}
    paths: dict[str, Anything] = {}
    for operation in operations:
        paths.setdefault(operation.template, {})[operation.method.lower()] = _operation(operation, by_type, components)
    whole = {
        "openapi": "3.1.0",
        "info": {
            "title": "Hostler",
            "version": __version__,
            "summary": "One durable job fabric for fleets of AI services.",
            "description": "Times are RFC 3339 UTC, durations seconds, sizes bytes. Every error is a problem "
            f"document (RFC 9457) whose `type` is `{TYPE_PREFIX}<code>`. Any mutation may carry `Operation-Id`: for "
            "ten minutes the same id gets the same answer and changes nothing twice.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {"schemas": components, "headers": _HEADERS},
    }
    return msgspec.json.encode(portable(whole))


def _types(operations: Iterable[Operation[Any, Any]]) -> list[Any]:
    kinds: list[Any] = [Problem, Event, JobRequest]
    for operation in operations:
        kinds.append(operation.query)
        if operation.body not in (None, bytes):
            kinds.append(operation.body)
        kinds.extend(reply.type for reply in operation.replies.values() if reply.type is not None)
    kinds.extend(parameter.shape for parameter in PATH_PARAMETERS.values())
    return list({_key(kind): kind for kind in kinds}.values())


def _key(kind: Any) -> str:
    return repr(kind)


def _operation(operation: Operation[Any, Any], schemas: dict[str, Anything], components: Anything) -> Anything:
    text = inspect.cleandoc(operation.handler.__doc__ or "")
    summary, _, description = text.partition("\n")
    found: Anything = {
        "operationId": operation.id,
        "tags": [operation.tag],
        "summary": summary.rstrip("."),
        "parameters": _parameters(operation, schemas, components),
        "responses": _responses(operation, schemas),
    }
    if description.strip():
        found["description"] = description.strip()
    if operation.body is bytes:
        sealed = {"schema": {"type": "string", "format": "binary"}}
        found["requestBody"] = {"required": True, "content": {BINARY: sealed}}
    elif operation.body is not None:
        found["requestBody"] = {
            "required": not operation.body_optional,
            "content": {JSON: {"schema": schemas[_key(operation.body)]}},
        }
    return found


def _parameters(operation: Operation[Any, Any], schemas: dict[str, Anything], components: Anything) -> list[Anything]:
    found: list[Anything] = []
    for name in re.findall(r"{(\w+):str}", operation.path):
        row = PATH_PARAMETERS[name]
        schema = schemas[_key(row.shape)]
        found.append({"name": name, "in": "path", "required": True, "description": row.about, "schema": schema})
    if operation.query is not Nothing:
        for name, schema in components[operation.query.__name__]["properties"].items():
            parameter: Anything = {"name": name, "in": "query", "schema": _without_null(schema)}
            if schema.get("type") == "array":
                parameter |= {"style": "form", "explode": True}
            found.append(parameter)
    found.append({"name": "X-Request-ID", "in": "header", "schema": {"type": "string"}})
    if operation.mutates:
        schema = {"type": "string", "pattern": "^[!-~]{1,128}$"}
        found.append({"name": "Operation-Id", "in": "header", "schema": schema})
    if any(reply.media_type == EVENTS for reply in operation.replies.values()):
        schema = {"type": "string", "pattern": "^([0-9]{1,16}-)?[0-9]{1,16}$"}
        found.append({"name": "Last-Event-ID", "in": "header", "schema": schema})
    return found


def _without_null(schema: Anything) -> Anything:
    """Return the schema of a query value: absent, never null."""
    kept = {name: value for name, value in schema.items() if name != "default" or value is not None}
    options = [option for option in kept.pop("anyOf", ()) if option != {"type": "null"}]
    return {**kept, **options[0]} if len(options) == 1 else schema


def _responses(operation: Operation[Any, Any], schemas: dict[str, Anything]) -> Anything:
    found: Anything = {}
    for status, reply in operation.replies.items():
        response: Anything = {"description": reply.about, "headers": _header_refs("X-Request-ID", *reply.headers)}
        if reply.media_type == EVENTS:
            response["content"] = {EVENTS: {"schema": {"type": "string"}, "x-event": schemas[_key(Event)]}}
        elif reply.media_type is not None:
            schema = {"type": "string"} if reply.type is None else schemas[_key(reply.type)]
            if reply.media_type in {BINARY, PICTURE}:
                schema = {"type": "string", "format": "binary"}
            response["content"] = {reply.media_type.split(";")[0]: {"schema": schema}}
        found[str(status)] = response
    by_status: dict[int, list[type[HostlerError]]] = {}
    for error in dict.fromkeys((*_common(operation), *operation.errors)):
        by_status.setdefault(error.status, []).append(error)
    for status, errors in sorted(by_status.items()):
        later = any(error.retry == "later" for error in errors)
        response = {
            "description": " ".join(f"`{error.code}`: {_first_line(error)}" for error in errors),
            "headers": _header_refs("X-Request-ID", *(("Retry-After",) if later else ())),
        }
        if operation.method != "HEAD":
            response["content"] = {PROBLEM: {"schema": schemas[_key(Problem)]}}
        found[str(status)] = response
    return found


def _common(operation: Operation[Any, Any]) -> Iterable[type[HostlerError]]:
    """Return what a route may answer because of what it is."""
    yield WrongHostError
    yield InternalError
    if operation.tag != "system":
        yield from (EngineUnavailableError, EngineTimeoutError)
    yield InvalidError
    for name in re.findall(r"{(\w+):str}", operation.path):
        yield PATH_PARAMETERS[name].error
    if operation.mutates:
        yield from (ForeignOriginError, CapacityError)
    if operation.body is not None:
        yield from (TooLargeError, MediaTypeError, MalformedError)


def _first_line(error: type[HostlerError]) -> str:
    return inspect.cleandoc(error.__doc__ or "").partition("\n")[0]


def _header_refs(*names: str) -> Anything:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


_HEADERS: Final[Anything] = {
    "X-Request-ID": {
        "description": "Name of this request in logs and problems: the one sent, if it is fit, or a new one.",
        "schema": {"type": "string"},
    },
    "Retry-After": {
        "description": "Seconds until it is worth asking again.",
        "schema": {"type": "integer", "minimum": 1},
    },
    "Location": {"description": "Path of what was made.", "schema": {"type": "string"}},
    "ETag": {"description": "The SHA-256, in quotes.", "schema": {"type": "string"}},
    "Content-Length": {"description": "Size in bytes.", "schema": {"type": "integer", "minimum": 0}},
}
