"""Reads what another version of Hostler stored: fields that this one does not know are left out."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, Generic, TypeVar, cast

import msgspec
import structlog

from hostler.kernel.fields import inside, structs_of

T = TypeVar("T")
ROW_SHOWN: Final = 200
"""Bytes of a row that cannot be read that are logged."""
_log = structlog.get_logger(__name__)


class Reader(Generic[T]):
    """Decodes one shape, as its own decoder does; shapes that refuse unknown fields in what users write do not here.

    `unknown` makes of what was read, and of the places that were left out (`.needs.driver`), what is returned; as it
    was read unless set.
    """

    def __init__(
        self, shape: type[T], *, packed: bool = False, unknown: Callable[[T, tuple[str, ...]], T] | None = None
    ) -> None:
        codec = msgspec.msgpack if packed else msgspec.json
        self._shape = shape
        self._decode = codec.Decoder(shape).decode
        self._plain: Callable[[bytes], Any] = codec.Decoder().decode
        self._encode = codec.Encoder().encode
        self._unknown = unknown

    def __call__(self, stored: bytes | str) -> T:
        """Decode; `msgspec.MsgspecError` for what cannot be read without its unknown fields either."""
        raw = stored.encode() if isinstance(stored, str) else stored
        try:
            return self._decode(raw)
        except msgspec.ValidationError:
            left_out: list[str] = []
            kept = _pruned(self._plain(raw), (self._shape,), left_out)
            if not left_out:
                raise
            found = self._decode(self._encode(kept))
            return found if self._unknown is None else self._unknown(found, tuple(left_out))

    def known(self, stored: bytes | str) -> T | None:
        """Decode a row of many; None, and a word in the log, for one that cannot be read."""
        try:
            return self(stored)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            _log.warning("a row cannot be read", shape=self._shape.__name__, error=str(error), row=stored[:ROW_SHOWN])
            return None

    def each(self, stored: Iterable[bytes]) -> Iterator[T]:
        """Decode what can be read: one row keeps nobody from the others."""
        return (found for one in stored if (found := self.known(one)) is not None)


def _pruned(value: Any, shapes: tuple[Any, ...], left_out: list[str], place: str = "") -> Any:
    """Return a plain value without what none of these shapes has, and note the places of that."""
    fields = [field for shape in shapes for struct in structs_of(shape) for field in msgspec.structs.fields(struct)]
    inner = tuple(part for shape in shapes for part in inside(shape, None))
    if isinstance(value, list):
        items = cast("list[Any]", value)
        if not fields:
            return [_pruned(item, inner, left_out, f"{place}[]") for item in items]
        # A struct as an array: what later versions add stands behind.
        known = [
            _pruned(item, (field.type,), left_out, f"{place}.{field.encode_name}")
            for item, field in zip(items, fields, strict=False)
        ]
        return known + items[len(fields) :]
    if not isinstance(value, dict):
        return value
    kept: dict[str, Any] = {}
    for key, item in cast("dict[str, Any]", value).items():
        types = tuple(field.type for field in fields if field.encode_name == key) if fields else inner
        if fields and not types:
            left_out.append(f"{place}.{key}")
        else:
            kept[key] = _pruned(item, types, left_out, f"{place}.{key}")
    return kept
