"""JSON Schema as others understand it."""

from typing import Any, cast


def portable(schema: Any) -> Any:
    r"""Return a schema whose patterns say `$` for Python's `\Z`, which JSON Schema's regular expressions lack."""
    if isinstance(schema, dict):
        return {
            key: part.replace("\\Z", "$") if key == "pattern" and isinstance(part, str) else portable(part)
            for key, part in cast("dict[str, Any]", schema).items()
        }
    if isinstance(schema, list | tuple):
        return [portable(part) for part in cast("list[Any]", schema)]
    return schema
