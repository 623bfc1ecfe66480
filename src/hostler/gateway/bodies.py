"""Reads and judges what a request brings: query, headers and body, within limits."""

import re
import uuid
import zlib
from collections.abc import AsyncIterator, Callable
from typing import Any, Final, TypeVar, get_args, get_origin
from urllib.parse import parse_qsl

import litestar
import msgspec

from hostler.gateway.operation import JSON
from hostler.gateway.problems import from_msgspec
from hostler.kernel.errors import InvalidError, MalformedError, MediaTypeError, TooLargeError
from hostler.kernel.units import Bytes

Q = TypeVar("Q", bound=msgspec.Struct)
Request = litestar.Request[Any, Any, Any]

OPERATION_ID: Final = "operation-id"
_OPERATION_ID: Final = re.compile(r"[\x21-\x7e]{1,128}")
_JSON_TYPE: Final = re.compile(r"application/(json|[\w.+-]+\+json)\s*(;.*)?", re.IGNORECASE)
_MOST_PARAMETERS: Final = 64
_GZIP: Final = 31
"""zlib's name for a gzip wrapper with the largest window."""


def query_of(request: Request, shape: type[Q]) -> Q:
    """Return the query as `shape`; unknown names, repeated single values and wrong values are `InvalidError`."""
    raw = request.scope["query_string"]
    try:
        pairs = parse_qsl(raw.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=_MOST_PARAMETERS)
    except ValueError as error:
        raise InvalidError(f"The query cannot be read: {error}.") from error
    fields = {field.encode_name: field for field in msgspec.structs.fields(shape)}
    given: dict[str, Any] = {}
    for name, value in pairs:
        if name in fields and _is_many(fields[name].type):
            given.setdefault(name, []).append(value)
        elif name in given:
            raise InvalidError(f"{name}: may be given once only.", field=name)
        else:
            given[name] = value
    try:
        return msgspec.convert(given, shape, strict=False)
    except msgspec.ValidationError as error:
        raise from_msgspec(error, shape=shape) from error


def _is_many(kind: Any) -> bool:
    if get_origin(kind) is tuple:
        return True
    return any(_is_many(part) for part in get_args(kind) if not isinstance(part, msgspec.Meta))


def operation_id(request: Request) -> str:
    """Return the request's `Operation-Id`, or a new one; `InvalidError` when it cannot be one."""
    given = request.headers.get(OPERATION_ID)
    if given is None:
        return uuid.uuid4().hex
    if not _OPERATION_ID.fullmatch(given):
        raise InvalidError(
            "Operation-Id: expected 1 to 128 visible ASCII characters without spaces.", field="header.Operation-Id"
        )
    return given


async def json_body(request: Request, shape: Any, *, limit: Bytes, optional: bool) -> Any:
    """Read a JSON body of at most `limit` bytes and return it as `shape`.

    An absent body is the shape's default when `optional`. `TooLargeError` comes before the rest is read,
    also when the body is chunked or compressed; `MediaTypeError`, `MalformedError`, `InvalidError`.
    """
    if optional and request.headers.get("content-length", "0") == "0" and "transfer-encoding" not in request.headers:
        return shape()
    judge_media_type(request)
    text = b"".join([chunk async for chunk in body_of(request, limit=limit)])
    if optional and not text.strip():
        return shape()
    return decode(text, shape)


def judge_media_type(request: Request) -> None:
    """Raise `MediaTypeError` unless the body says that it is JSON."""
    media_type = request.headers.get("content-type", "")
    if not _JSON_TYPE.fullmatch(media_type.strip()):
        raise MediaTypeError(
            f"This route takes {JSON}, not {media_type or 'a body without a Content-Type'}.",
            field="header.Content-Type",
            wanted=JSON,
        )


def decode(text: bytes, shape: Any, *, where: str = "") -> Any:
    """Return JSON as `shape`; `MalformedError` or `InvalidError` with the field's path behind `where`."""
    try:
        text.decode("utf-8")  # sealed parts are not looked into, so broken text would pass unseen
    except UnicodeDecodeError as error:
        raise MalformedError(f"The body is not UTF-8 (byte {error.start}).") from error
    try:
        return msgspec.json.decode(text, type=shape)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise from_msgspec(error, shape=shape, where=where) from error


async def body_of(request: Request, *, limit: Bytes) -> AsyncIterator[bytes]:
    """Stream the body, unpacked; `TooLargeError` as soon as it is known to be over `limit`."""
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > limit:
        raise _too_large(limit)
    unpack = _unpacker(request)
    size = 0
    async for chunk in request.stream():
        part = unpack(chunk, limit + 1 - size)
        size += len(part)
        if size > limit:
            raise _too_large(limit)
        yield part


def _too_large(limit: Bytes) -> TooLargeError:
    return TooLargeError(
        f"The body is over {limit} bytes. Large inputs go to PUT /v1/blobs/{{sha256}} and are referred to.", limit=limit
    )


def _unpacker(request: Request) -> Callable[[bytes, int], bytes]:
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding == "identity":
        return lambda chunk, _room: chunk
    if encoding != "gzip":
        raise MediaTypeError(
            f"Content-Encoding {encoding} is not understood; send gzip or none.", field="header.Content-Encoding"
        )
    inflater = zlib.decompressobj(wbits=_GZIP)

    def inflate(chunk: bytes, room: int) -> bytes:
        try:
            return inflater.decompress(chunk, max(1, room))
        except zlib.error as error:
            raise MalformedError("The body is not gzip, although Content-Encoding says so.") from error

    return inflate
