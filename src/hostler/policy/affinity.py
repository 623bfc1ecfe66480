"""Which jobs belong together, so that one runs best where the last of them ran: pure."""

from hashlib import blake2b
from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

from hostler.contracts.job import JobRequest
from hostler.contracts.queue import KindSpec

LABEL: Final = "hostler.session"
"""A job's label that names its session, in place of what its kind declares."""

_ASKS: Final = "user"
"""Role of the message that a conversation begins with, behind what the system says to all."""

_object: Final = msgspec.json.Decoder(dict[str, Raw]).decode
_array: Final = msgspec.json.Decoder(list[Raw]).decode
_canonical: Final = msgspec.json.Encoder(order="sorted").encode


class _Message(Struct):
    role: str


def affinity_key(request: JobRequest, kind: KindSpec) -> str | None:
    """Return what jobs of one session have in common, 16 hexadecimal digits; None for a job that is of none.

    Jobs of two tenants never share one. By label, a session is of all kinds; by payload, it is of one.
    """
    words: list[Any]
    if LABEL in request.labels:
        words = [request.tenant, request.labels[LABEL]]
    else:
        words = _values(request.payload, kind.affinity or ())
        words = [request.tenant, request.kind, words] if words else []
    return blake2b(_canonical(words), digest_size=8).hexdigest() if words else None


def _values(payload: Raw, pointers: tuple[str, ...]) -> list[Any]:
    """Return the values at the pointers, none at all when one is missing, or cannot be read."""
    found: list[Any] = []
    for pointer in pointers:
        try:
            value = _at(payload, pointer)
            found.append(None if value is None else _beginning(value))
        except (msgspec.MsgspecError, RecursionError, UnicodeError):
            return []
    return [] if None in found else found


def _at(value: Raw, pointer: str) -> Raw | None:
    """Return the value at a JSON pointer (RFC 6901); nothing beside the way there is decoded."""
    for step in pointer.split("/")[1:]:
        name, first = step.replace("~1", "/").replace("~0", "~"), bytes(value).lstrip()[:1]
        if first == b"{":
            inner = _object(value).get(name)
        elif first == b"[" and name.isdecimal():
            inner = dict(enumerate(_array(value))).get(int(name))
        else:
            inner = None
        if inner is None:
            return None
        value = inner
    return value


def _beginning(value: Raw) -> Any:
    """Return a value; of a conversation what all its turns begin with: the messages up to the first of the user."""
    if bytes(value).lstrip()[:1] != b"[":
        return msgspec.json.decode(value)
    messages = _array(value)
    for index, message in enumerate(messages):
        try:
            asks = msgspec.json.decode(message, type=_Message).role == _ASKS
        except msgspec.ValidationError:
            break
        if asks:
            return [msgspec.json.decode(one) for one in messages[: index + 1]]
    return msgspec.json.decode(value)
