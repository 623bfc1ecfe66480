"""What a worker and its child processes say to each other: MessagePack in length-prefixed frames, never pickle."""

import asyncio
import socket
import struct

import msgspec
from msgspec import Raw, Struct

from hostler.contracts.failure import Failure
from hostler.contracts.job import Progress
from hostler.worker.call import CallFacts

FRAME_LIMIT = 67_108_864
"""Bytes of one frame, 64 MiB: a larger payload or result goes by reference."""
_HEADER = struct.Struct(">I")


class Hello(Struct, frozen=True, kw_only=True, tag="hello"):
    """First frame to a child: where modules are found."""

    path: tuple[str, ...]


class Work(Struct, frozen=True, kw_only=True, tag="work"):
    """Run this handler on this payload."""

    module: str
    name: str
    payload: bytes
    """JSON, as it was sealed."""
    facts: CallFacts


class Stop(Struct, frozen=True, kw_only=True, tag="stop"):
    """Somebody asked for the running work to stop."""

    job_id: str
    fence: int


Order = Hello | Work | Stop


class Up(Struct, frozen=True, kw_only=True, tag="up"):
    """First frame from a child: it runs."""

    pid: int


class Said(Struct, frozen=True, kw_only=True, tag="said"):
    """Progress of the running work."""

    progress: Progress


class Saved(Struct, frozen=True, kw_only=True, tag="saved"):
    """A checkpoint of the running work, sealed JSON."""

    value: bytes


class Done(Struct, frozen=True, kw_only=True, tag="done"):
    """The work has a result, sealed JSON."""

    result: bytes


class Wrong(Struct, frozen=True, kw_only=True, tag="wrong"):
    """The work failed."""

    failure: Failure


Answer = Up | Said | Saved | Done | Wrong

_ENCODER = msgspec.msgpack.Encoder()
_ORDERS: msgspec.msgpack.Decoder[Order] = msgspec.msgpack.Decoder(Order)
_ANSWERS: msgspec.msgpack.Decoder[Answer] = msgspec.msgpack.Decoder(Answer)


class FrameError(ValueError):
    """A frame is over the limit, or is not what it should be."""


def pack(message: Order | Answer) -> bytes:
    """Return one frame; `FrameError` when it would be over the limit."""
    body = _ENCODER.encode(message)
    if len(body) > FRAME_LIMIT:
        raise FrameError(f"a message of {len(body)} bytes is over the limit of {FRAME_LIMIT} between processes")
    return _HEADER.pack(len(body)) + body


async def read_answer(reader: asyncio.StreamReader) -> Answer:
    """Read one frame of a child; `IncompleteReadError` at its end, `FrameError` for anything else than a frame."""
    (length,) = _HEADER.unpack(await reader.readexactly(_HEADER.size))
    if length > FRAME_LIMIT:
        raise FrameError(f"a child announced a frame of {length} bytes")
    try:
        return _ANSWERS.decode(await reader.readexactly(length))
    except msgspec.MsgspecError as error:
        raise FrameError(f"a child sent no message: {error}") from error


def read_order(channel: socket.socket) -> Order | None:
    """Read one frame of the worker, blocking; None when the worker is gone."""
    header = _exactly(channel, _HEADER.size)
    if header is None:
        return None
    body = _exactly(channel, _HEADER.unpack(header)[0])
    return None if body is None else _ORDERS.decode(body)


def _exactly(channel: socket.socket, size: int) -> bytes | None:
    room = bytearray(size)
    view = memoryview(room)
    while view:
        got = channel.recv_into(view)
        if got == 0:
            return None
        view = view[got:]
    return bytes(room)


def sealed(value: bytes) -> Raw:
    """Return bytes from a frame as a sealed JSON value."""
    return Raw(value)
