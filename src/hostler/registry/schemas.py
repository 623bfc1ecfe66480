"""Payload types: compiled once per schema, judged without reaching outside."""

from collections import OrderedDict
from typing import Any, Final, Never, cast

import jsonschema_rs
import msgspec
from msgspec import Raw

from hostler.contracts.portable import portable
from hostler.contracts.reference import payload_reference
from hostler.kernel.errors import InvalidError, PayloadError

_KEPT: Final = 1000
_LISTED: Final = 8
_WORDS: Final = 300


class Schemas:
    """Compiled JSON Schemas by their content; the least used are forgotten beyond a thousand."""

    def __init__(self) -> None:
        self._compiled: OrderedDict[bytes, jsonschema_rs.Validator] = OrderedDict()
        self._met: OrderedDict[int, tuple[dict[str, Any], jsonschema_rs.Validator]] = OrderedDict()
        """By the identity of a schema, which is held so that it stays its own."""

    def check(self, schema: dict[str, Any], *, field: str) -> None:
        """Raise `InvalidError` unless this is a JSON Schema that stands by itself (no outside `$ref`)."""
        try:
            self._by_content(schema)  # whoever declares may have changed what was met before
        except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError, TypeError) as error:
            words = str(error).partition("\n")[0][:_WORDS]
            raise InvalidError(f"{field} is no JSON Schema that stands by itself: {words}", field=field) from error

    def judge(self, schema: dict[str, Any] | None, payload: Raw) -> None:
        """Raise `PayloadError` with path and words unless the payload fits; a blob's content is not judged here."""
        try:
            value = msgspec.json.decode(payload)
        except msgspec.DecodeError as error:
            raise PayloadError(f"the payload is not JSON: {error}", field="payload") from error
        if schema is None or payload_reference(payload) is not None:
            return
        validator = self._validator(schema)
        if validator.is_valid(value):
            return
        found = [
            {"path": _path(error.instance_path), "problem": f"{error.message[:_WORDS]}{_known(schema, error)}"}
            for error, _ in zip(validator.iter_errors(value), range(_LISTED), strict=False)
        ]
        if found:
            first = found[0]
            raise PayloadError(f"{first['path']}: {first['problem']}", field=first["path"], problems=found)

    def _validator(self, schema: dict[str, Any]) -> jsonschema_rs.Validator:
        met = self._met.get(id(schema))
        if met is not None:
            return met[1]
        found = self._by_content(schema)
        self._met[id(schema)] = schema, found
        if len(self._met) > _KEPT:
            self._met.popitem(last=False)
        return found

    def _by_content(self, schema: dict[str, Any]) -> jsonschema_rs.Validator:
        key = msgspec.json.encode(schema, order="sorted")
        found = self._compiled.get(key)
        if found is None:
            found = jsonschema_rs.validator_for(portable(schema), retriever=_no_outside)
            self._compiled[key] = found
            if len(self._compiled) > _KEPT:
                self._compiled.popitem(last=False)
        else:
            self._compiled.move_to_end(key)
        return found


def _no_outside(uri: str) -> Never:
    raise ValueError(f"{uri} lies outside the schema")


def _known(schema: dict[str, Any], error: jsonschema_rs.ValidationError) -> str:
    """Return the names that would have done, where one was not allowed."""
    *way, last = error.schema_path
    if last != "additionalProperties":
        return ""
    names = _at(_at(schema, *way), "properties")
    return f"; known: {', '.join(names)}"[:_WORDS] if names else ""


def _at(place: object, *way: str | int) -> dict[str, Any]:
    """Return the object that lies there in a schema; an empty one where there is none."""
    for step in way:
        place = cast("dict[str | int, Any]", place).get(step) if isinstance(place, dict) else None
    return cast("dict[str, Any]", place) if isinstance(place, dict) else {}


def _path(parts: list[str | int]) -> str:
    return ".".join(("payload", *map(str, parts)))
