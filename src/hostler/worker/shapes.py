"""The types of payloads and results: msgspec types, dataclasses and pydantic models, turned to and from JSON."""

from typing import Any, Generic, Protocol, TypeVar, cast, runtime_checkable

import msgspec
from msgspec import Raw

from hostler.kernel.errors import PayloadError
from hostler.kernel.units import Json

T = TypeVar("T")


@runtime_checkable
class PydanticModel(Protocol):
    """The part of a pydantic model class that is used; pydantic itself is never imported here."""

    @classmethod
    def model_validate_json(cls, json_data: bytes) -> Any:
        """Decode and validate."""
        ...

    @classmethod
    def model_json_schema(cls) -> dict[str, Json]:
        """Describe."""
        ...


class Shape(Generic[T]):
    """One declared type; None stands for any JSON."""

    def __init__(self, kind: type[T] | None) -> None:
        self.kind = kind
        self._pydantic = kind if isinstance(kind, type) and isinstance(kind, PydanticModel) else None
        self._decoder: msgspec.json.Decoder[Any] | None = None
        if self._pydantic is None:
            self._decoder = msgspec.json.Decoder(Any if kind is None else kind)

    def schema(self) -> dict[str, Json] | None:
        """Return the JSON Schema, or None when any JSON will do."""
        if self.kind is None:
            return None
        if self._pydantic is not None:
            return self._pydantic.model_json_schema()
        return msgspec.json.schema(self.kind)

    def decode(self, sealed: Raw) -> T:
        """Open a sealed JSON value; `PayloadError` when it does not fit, with the library's own words."""
        try:
            if self._decoder is not None:
                return cast("T", self._decoder.decode(sealed))
            return cast("T", cast("PydanticModel", self._pydantic).model_validate_json(bytes(sealed)))
        except ValueError as error:  # msgspec's and pydantic's validation errors are both value errors
            raise PayloadError(str(error)) from error

    def encode(self, value: object) -> Raw:
        """Seal a value as JSON after proving that it fits; `PayloadError` when it does not.

        The proof is a decode of what was written, since a struct may hold fields of wrong types.
        """
        try:
            dump = getattr(value, "model_dump_json", None)  # a pydantic model; a look-up, for this is on the hot path
            sealed = msgspec.json.encode(value) if dump is None else dump().encode()
        except (TypeError, ValueError, OverflowError) as error:
            raise PayloadError(str(error)) from error
        if self.kind is not None:
            self.decode(Raw(sealed))
        return Raw(sealed)
