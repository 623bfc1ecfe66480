"""What a value may have, said where it has something else."""

import re
from collections.abc import Collection, Iterator
from types import UnionType
from typing import Annotated, Any, Final, Union, get_args, get_origin

import msgspec

from hostler.kernel.names import listed, nearest

_UNKNOWN: Final = re.compile(r"Object contains unknown field `(?P<name>.*?)`(?: - at `\$(?P<path>.*)`)?\Z", re.DOTALL)
_STEP: Final = re.compile(r"\.(?P<field>[^.\[]+)|\[[^\]]*\]")


def known_fields(error: Exception, shape: Any, *, besides: Collection[str] = ()) -> str:
    """Return `, known are a, b; did you mean a?` for a name that a part of `shape` does not have, or nothing.

    `error` is msgspec's, of a value that was read as `shape`; names in `besides` are not offered.
    """
    found = _UNKNOWN.match(str(error))
    if found is None:
        return ""
    places = [shape]
    for step in _STEP.finditer(found["path"] or ""):
        places = [inner for place in places for inner in inside(place, step["field"])]
    names = {name for place in places for struct in structs_of(place) for name in struct.__struct_encode_fields__}
    offered = names - {*besides}
    return f", known are {listed(offered)}{nearest(found['name'], offered)}" if offered else ""


def inside(shape: Any, field: str | None) -> Iterator[Any]:
    """Yield the types of a field; of the items of a list or table when the step names none."""
    for one in _plain(shape):
        if field is None:
            yield from [part for part in get_args(one) if part is not ...][-1:]
    for struct in structs_of(shape):
        yield from (one.type for one in msgspec.structs.fields(struct) if one.encode_name == field)


def structs_of(shape: Any) -> Iterator[type[msgspec.Struct]]:
    """Yield the message shapes that a type may be."""
    for one in _plain(shape):
        if isinstance(one, type) and issubclass(one, msgspec.Struct):
            yield one


def _plain(shape: Any) -> Iterator[Any]:
    """Yield the types that a type is made of: its unions taken apart, what is noted on it left out."""
    if get_origin(shape) is Annotated:
        yield from _plain(get_args(shape)[0])
    elif get_origin(shape) in {Union, UnionType}:
        for part in get_args(shape):
            yield from _plain(part)
    else:
        yield shape
