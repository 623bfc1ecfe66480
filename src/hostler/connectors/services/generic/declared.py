"""Kinds that a configuration declares, with types written as JSON Schema."""

from typing import Any, Final, Never

import jsonschema_rs
import msgspec
from msgspec import Raw, Struct, field, structs

from hostler.connectors.faults import fault, off_protocol
from hostler.contracts.failure import FailureClass
from hostler.contracts.queue import KindSpec
from hostler.contracts.timeouts import SERVICE_TIMEOUTS, Timeouts
from hostler.kernel.units import Json, Name, QueueName

_WORDS: Final = 300
"""Characters that are quoted of what a schema says."""


class DeclaredKind(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One kind of work of a service that only the configuration knows."""

    name: Name
    """Area and act, as `image.generate`."""
    queue: QueueName = "default"
    about: str = ""
    payload: dict[str, Json] | None = None
    """JSON Schema that payloads are judged by; any JSON unless given."""
    result: dict[str, Json] | None = None
    """JSON Schema of results: one that does not fit is no success."""
    read: bool = False
    """Whether it is a short read: only such work is asked of a second endpoint when the first is slow."""
    timeouts: Timeouts = field(default_factory=Timeouts)
    """By stage, in seconds; what is not given is as for every service."""

    def __post_init__(self) -> None:
        for schema in (self.payload, self.result):
            compiled(schema)

    def spec(self, *, service: str, connector: str) -> KindSpec:
        """Return the row that the registry is given."""
        given = {name: value for name, value in structs.asdict(self.timeouts).items() if value is not None}
        return KindSpec(
            name=self.name,
            queue=self.queue,
            about=self.about,
            service=service,
            payload=self.payload,
            result=self.result,
            timeouts=structs.replace(SERVICE_TIMEOUTS, **given),
            read=self.read or None,
            declared_by=connector,
        )


class Types:
    """The compiled types of one kind."""

    def __init__(self, kind: DeclaredKind) -> None:
        self._payload = compiled(kind.payload)
        self._result = compiled(kind.result)

    def judge_payload(self, payload: Raw) -> None:
        """Raise the fault `invalid_input` with the place of what does not fit."""
        problem = _problem(self._payload, payload)
        if problem is not None:
            raise fault(FailureClass.INVALID_INPUT, f"the payload does not fit its kind: {problem}")

    def judge_result(self, result: Raw) -> None:
        """Raise a transient fault for a result that is not what the kind promises."""
        problem = _problem(self._result, result)
        if problem is not None:
            raise off_protocol(f"the service's result does not fit its kind: {problem}")


def compiled(schema: dict[str, Any] | None) -> jsonschema_rs.Validator | None:
    """Compile a JSON Schema; `ValueError` unless it stands by itself (no outside `$ref`)."""
    if schema is None:
        return None
    try:
        return jsonschema_rs.validator_for(schema, retriever=_no_outside)
    except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, TypeError) as error:
        raise ValueError(f"no JSON Schema that stands by itself: {str(error).partition(chr(10))[0][:_WORDS]}") from None


def _no_outside(uri: str) -> Never:
    raise ValueError(f"{uri} lies outside the schema")


def _problem(schema: jsonschema_rs.Validator | None, document: Raw) -> str | None:
    try:
        value = msgspec.json.decode(document)
    except (msgspec.MsgspecError, UnicodeError) as error:
        return str(error)
    found = None if schema is None else next(schema.iter_errors(value), None)
    if found is None:
        return None
    return f"{'/'.join(('', *map(str, found.instance_path))) or 'the whole'}: {found.message[:_WORDS]}"
