"""Requests by template: `{payload/prompt}` stands for a value of the job, a braced name for what it names."""

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final, cast

import msgspec

from hostler.connectors.faults import fault
from hostler.connectors.services.generic.pointers import MISSING, find
from hostler.connectors.transports.http import segment
from hostler.contracts.failure import FailureClass

_PART: Final = re.compile(r"\{\{|\}\}|\{(?P<name>[^{}]*)\}|[{}]")
Scope = Mapping[str, Any]
"""What may be named: `payload`, `job`, `fence`, `kind` when work is handed over; `id`, `job`, `fence` afterwards."""


def names_in(template: Any) -> Iterator[str]:
    """Yield what a template names; `ValueError` for a brace that stands alone."""
    match template:
        case str():
            for part in _PART.finditer(template):
                if part[0] in "{}":
                    raise ValueError(f"{template!r}: a brace that means itself is written twice")
                if part["name"] is not None:
                    yield part["name"]
        case dict():
            for value in cast("dict[str, Any]", template).values():
                yield from names_in(value)
        case list():
            for value in cast("list[Any]", template):
                yield from names_in(value)
        case _:
            return


def check(template: Any, roots: Collection[str]) -> None:
    """Raise `ValueError` when a template names what is not there; says what is."""
    for name in names_in(template):
        root, slash, _ = name.partition("/")
        if root not in roots or (slash and root != "payload"):
            raise ValueError(f"{{{name}}} names nothing; there is {', '.join(f'{{{one}}}' for one in sorted(roots))}")


def fill(template: Any, scope: Scope) -> Any:
    """Return a body: a text that is one name becomes its value of whatever type, a missing member is left out."""
    match template:
        case str():
            whole = _PART.fullmatch(template)
            if whole is not None and whole["name"] is not None:
                return _value(whole["name"], scope)
            return write(template, scope)
        case dict():
            filled = {key: fill(value, scope) for key, value in cast("dict[str, Any]", template).items()}
            return {key: value for key, value in filled.items() if value is not MISSING}
        case list():
            values = [fill(value, scope) for value in cast("list[Any]", template)]
            return [value for value in values if value is not MISSING]
        case _:
            return template


def write(template: str, scope: Scope) -> str:
    """Return a text with its names filled in; raises `invalid_input` when the payload lacks one."""
    return _PART.sub(lambda part: _written(part, scope), template)


def write_path(template: str, scope: Scope) -> str:
    """Return a path; what is filled in is quoted, and cannot change the path around it."""
    return _PART.sub(lambda part: segment(_written(part, scope)) if part["name"] is not None else part[0][0], template)


def write_header(template: str, scope: Scope) -> str:
    """Return a header's value; raises `invalid_input` for one that no header can hold."""
    text = write(template, scope)
    if not text.isascii() or not text.isprintable():
        raise fault(FailureClass.INVALID_INPUT, f"a header made of {template!r} would hold what no header can hold")
    return text


def _written(part: re.Match[str], scope: Scope) -> str:
    name = part["name"]
    if name is None:
        return part[0][0]
    value = _value(name, scope)
    if value is MISSING:
        raise fault(FailureClass.INVALID_INPUT, f"the payload has no {name.removeprefix('payload')}, which is needed")
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _value(name: str, scope: Scope) -> Any:
    root, slash, rest = name.partition("/")
    value = scope[root]
    if root != "payload":
        return value
    return find(msgspec.json.decode(value), f"/{rest}") if slash else value
