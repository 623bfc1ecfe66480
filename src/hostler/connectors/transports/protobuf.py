"""Messages of a protocol that is described by a `.proto` file, as plain values; the only door to `google.protobuf`.

The types live in a pool of their own, built from a serialised description: they cannot collide with a stub package of
somebody else that describes the same protocol, and they do not depend on the version of the compiler.
"""

import base64
import importlib
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, Final, Generic, TypeVar, cast

import msgspec
from msgspec import Struct

from hostler.connectors.faults import fault, off_protocol
from hostler.contracts.failure import FailureClass
from hostler.kernel.errors import MissingExtraError

T = TypeVar("T")
EXTRA: Final = "gRPC needs an extra; run: pip install 'hostler[grpc]'."


def extra(module: str) -> Any:
    """Import a module of the extra `grpc`; `MissingExtraError` with the line to run when it is absent."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(EXTRA, extra="grpc", module=module) from error


class Method(Struct, Generic[T], frozen=True, kw_only=True):
    """One method of a service: where it is, and how values become its messages and come back."""

    path: str
    """`/package.Service/Method`."""
    encode: Callable[[Mapping[str, Any]], bytes]
    decode: Callable[[bytes], T]
    """Of the answer, or of one message of the stream that is the answer."""


class Messages:
    """The messages of one package; made at once, its types when the first of them is used."""

    def __init__(self, package: str, description: str) -> None:
        """Take the name of the package and its `FileDescriptorSet`, serialised and base64."""
        self.package = package
        self._description = description
        self._types: dict[str, Any] = {}

    def method(self, path: str, request: str, answer: str, shape: type[T]) -> Method[T]:
        """Return a method by its path in the package, `Service/Method`, with the names of its messages."""
        return Method(
            path=f"/{self.package}.{path}",
            encode=lambda values: self.encode(request, values),
            decode=lambda data: self.decode(answer, data, shape),
        )

    def encode(self, name: str, values: Mapping[str, Any]) -> bytes:
        """Serialise a message from its fields: messages as mappings, enums by their names in lower case.

        What does not fit the message, an integer that is too large for one, is the fault `invalid_input`.
        """
        kind = self._type(name)
        try:
            return cast("bytes", kind(**_named(kind.DESCRIPTOR, values)).SerializeToString())
        except (TypeError, ValueError) as error:
            raise fault(FailureClass.INVALID_INPUT, f"the protocol cannot carry this: {error}") from None

    def decode(self, name: str, data: bytes, shape: type[T]) -> T:
        """Read a message into a shape; raises a transient fault when it is not what the protocol says.

        Fields that are absent and say so (`optional`, messages, members of a `oneof`) are left to the shape's defaults.
        """
        kind = self._type(name)
        try:
            return msgspec.convert(_plain(kind.FromString(data)), shape, builtin_types=(bytes,))
        except (self._broken, msgspec.ValidationError) as error:
            raise off_protocol(f"the service sent a {name} that is not its protocol: {error}") from None

    def _type(self, name: str) -> Any:
        if name not in self._types:
            found = self._pool.FindMessageTypeByName(f"{self.package}.{name}")
            self._types[name] = extra("google.protobuf.message_factory").GetMessageClass(found)
        return self._types[name]

    @cached_property
    def _pool(self) -> Any:
        pool = extra("google.protobuf.descriptor_pool").DescriptorPool()
        files = extra("google.protobuf.descriptor_pb2").FileDescriptorSet
        for file in files.FromString(base64.b64decode(self._description)).file:
            pool.AddSerializedFile(file.SerializeToString())
        return pool

    @cached_property
    def _broken(self) -> type[Exception]:
        return cast("type[Exception]", extra("google.protobuf.message").DecodeError)


def _plain(message: Any) -> dict[str, Any]:
    return {
        field.name: _value(field, getattr(message, field.name))
        for field in message.DESCRIPTOR.fields
        if not field.has_presence or message.HasField(field.name)
    }


def _value(field: Any, value: Any) -> Any:
    one = _reader(field)
    if isinstance(value, Mapping):
        inner = _reader(field.message_type.fields_by_name["value"])
        entries = cast("Mapping[Any, Any]", value)
        return {key: inner(entries[key]) for key in entries}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        items = cast("Sequence[Any]", value)
        return list(items) if one is _same else [one(item) for item in items]
    return one(value)


def _reader(field: Any) -> Callable[[Any], Any]:
    if field.message_type is not None:
        return _plain
    if field.enum_type is not None:
        names = {number: value.name for number, value in field.enum_type.values_by_number.items()}
        prefix = _prefix(field.enum_type)
        return lambda number: names.get(number, str(number)).removeprefix(prefix).lower()
    return _same


def _same(value: Any) -> Any:
    return value


def _named(descriptor: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields with enums by their full names, at every depth."""
    fields = descriptor.fields_by_name
    return {name: _written(fields[name], value) if name in fields else value for name, value in values.items()}


def _written(field: Any, value: Any) -> Any:
    if field.enum_type is not None:
        return _prefix(field.enum_type) + str(value).upper()
    if field.message_type is None or field.message_type.GetOptions().map_entry:
        return value
    if isinstance(value, Mapping):
        return _named(field.message_type, cast("Mapping[str, Any]", value))
    return [_named(field.message_type, one) for one in value]


def _prefix(enum: Any) -> str:
    """Return what begins the names of an enum's values by the style of protocol buffers: `RUN_STATE_`."""
    words = "".join(f"_{letter}" if letter.isupper() else letter for letter in enum.name)
    return f"{words.lstrip('_').upper()}_"
