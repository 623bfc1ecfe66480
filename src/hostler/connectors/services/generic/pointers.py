"""Finding values in foreign JSON by pointer (RFC 6901), with `*` for every element of a list."""

from typing import Annotated, Any, Final, cast

from msgspec import Meta

Pointer = Annotated[
    str, Meta(pattern=r"^(/.*)?\Z", description="a JSON pointer as /data/0/id; the empty one is the whole document")
]


class Missing:
    """The answer of a pointer that leads nowhere; JSON's null is a value."""

    def __bool__(self) -> bool:
        return False


MISSING: Final = Missing()
DEPTH: Final = 64
"""Most steps of one pointer."""


def find(document: Any, pointer: str) -> Any:
    """Return the value at a pointer, or `MISSING`."""
    value = document
    for step in _steps(pointer):
        value = _into(value, step)
        if value is MISSING:
            return MISSING
    return value


def find_all(document: Any, pointer: str) -> list[Any]:
    """Return every value at a pointer in which `*` stands for each element of a list, or each value of an object."""
    values = [document]
    for step in _steps(pointer):
        values = [found for value in values for found in (_each(value) if step == "*" else (_into(value, step),))]
        values = [value for value in values if value is not MISSING]
    return values


def _steps(pointer: str) -> list[str]:
    steps = [step.replace("~1", "/").replace("~0", "~") for step in pointer.split("/")[1:]]
    if len(steps) > DEPTH:
        raise ValueError(f"a pointer has {DEPTH} steps at most")
    return steps


def _each(value: Any) -> list[Any]:
    if isinstance(value, list):
        return cast("list[Any]", value)
    return list(cast("dict[str, Any]", value).values()) if isinstance(value, dict) else []


def _into(value: Any, step: str) -> Any:
    if isinstance(value, dict):
        return cast("dict[str, Any]", value).get(step, MISSING)
    if isinstance(value, list) and step.isdecimal():
        elements = cast("list[Any]", value)
        return elements[int(step)] if int(step) < len(elements) else MISSING
    return MISSING


def text_at(document: Any, pointer: str | None) -> str | None:
    """Return what is at a pointer as text: a word as it is, numbers and truth values as JSON writes them."""
    value = MISSING if pointer is None else find(document, pointer)
    match value:
        case str():
            return value
        case bool():
            return str(value).lower()
        case int() | float():
            return f"{value:g}" if isinstance(value, float) else str(value)
        case _:
            return None


def number_at(document: Any, pointer: str | None) -> float | None:
    """Return the number at a pointer, or None."""
    value = MISSING if pointer is None else find(document, pointer)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
