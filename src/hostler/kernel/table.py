"""The settings tree as a table: one row per value, with the names that operators type."""

from collections.abc import Mapping
from typing import Any, Final, cast

import msgspec
from msgspec import NODEFAULT, Struct
from msgspec.inspect import (
    BoolType,
    DictType,
    FloatType,
    IntType,
    Metadata,
    NoneType,
    StrType,
    Type,
    UnionType,
    VarTupleType,
    type_info,
)

from hostler.kernel.settings import Settings

PREFIX: Final = "HOSTLER_"
CONFIG_VARIABLE: Final = "HOSTLER_CONFIG"
"""Names the settings file; the only variable with the prefix that is no setting."""

SHORT_NAMES: Final = {
    "engine.url": "HOSTLER_ENGINE",
    "engine.data": "HOSTLER_DATA",
    "url": "HOSTLER_URL",
    "key": "HOSTLER_KEY",
}

FILE_ONLY: Final = frozenset({"connectors", "queues", "kinds", "worker_types"})
"""Tables of tables: set in the settings file (or an imported mapping), never in the environment."""

SECRET: Final = frozenset({"key"})
"""Never printed."""


class Setting(Struct, frozen=True, kw_only=True):
    """One value of the tree."""

    path: str
    """`worker.slots`."""
    variable: str | None
    """`HOSTLER_WORKER_SLOTS`; None for what only the file can hold."""
    annotation: Any
    default: Any
    expected: str
    """What a value must be, in words: `a whole number from 1 to 1024`."""


def settings_table() -> dict[str, Setting]:
    """Return every setting by its path, in the order of the tree."""
    return {setting.path: setting for setting in rows_of(Settings, "")}


def rows_of(struct: type[Struct], prefix: str) -> list[Setting]:
    """Return the settings of one branch; `prefix` is its path with a dot at the end."""
    rows: list[Setting] = []
    for field in msgspec.structs.fields(struct):
        path = prefix + field.encode_name
        annotation: Any = field.type  # pyright: ignore[reportUnknownMemberType] - msgspec's stub leaves it open
        if isinstance(annotation, type) and issubclass(annotation, Struct):
            rows.extend(rows_of(annotation, path + "."))
            continue
        default = (
            field.default_factory() if field.default is NODEFAULT and field.default_factory is not NODEFAULT else None
        )
        rows.append(
            Setting(
                path=path,
                variable=None if path.split(".")[0] in FILE_ONLY else variable_of(path),
                annotation=annotation,
                default=default if field.default is NODEFAULT else field.default,
                expected=expected(type_info(annotation)),
            )
        )
    return rows


def variable_of(path: str) -> str:
    """Return the environment variable of a setting."""
    return SHORT_NAMES.get(path) or PREFIX + path.replace(".", "_").upper()


def expected(kind: Type) -> str:
    """Say in words what a value of this type must be."""
    if isinstance(kind, Metadata):
        schema = cast("Any", kind).extra_json_schema  # a bare dict in the stub
        facts: dict[str, Any] = schema or {}
        unit = _UNITS.get(facts.get("unit"), "")
        words = facts.get("description") or expected(kind.type).replace("number", f"number{unit}", 1)
    elif isinstance(kind, UnionType):
        words = " or ".join(expected(one) for one in kind.types if not isinstance(one, NoneType))
    elif isinstance(kind, IntType | FloatType):
        words = ("a whole number" if isinstance(kind, IntType) else "a number") + _range(kind.ge, kind.le)
    elif isinstance(kind, StrType) and kind.pattern:
        words = f"text like {kind.pattern}"
    else:
        words = _PLAIN.get(type(kind), "a value")
    return words


_UNITS: Final[Mapping[Any, str]] = {"s": " of seconds", "B": " of bytes"}
_PLAIN: Final[Mapping[type, str]] = {
    BoolType: "true or false",
    StrType: "text",
    VarTupleType: "a list (in the environment: a,b)",
    DictType: "a table (in the environment: name=value,name=value)",
}


def _range(low: float | None, high: float | None) -> str:
    if low is not None and high is not None:
        return f" from {low} to {high}"
    return "" if low is None else f" of at least {low}"
