"""Readers of the two line protocols that AI services stream by: server-sent events and NDJSON."""

import codecs
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final

from msgspec import Struct, structs

from hostler.connectors.faults import off_protocol
from hostler.kernel.units import Bytes

EVENT_LIMIT: Final[Bytes] = 1_048_576
"""Largest single event or line."""


class SseEvent(Struct, frozen=True, kw_only=True):
    """One server-sent event; comments are dropped."""

    data: str
    event: str = "message"
    id: str | None = None
    """The last id that the stream has named, for `Last-Event-ID`."""


class LineSplitter:
    """Cuts bytes into lines at LF, CRLF or CR, over any chunk borders; bad UTF-8 becomes U+FFFD."""

    def __init__(self, limit: Bytes = EVENT_LIMIT) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._rest = ""
        self._after_cr = False
        self._limit = limit

    def feed(self, chunk: bytes, *, last: bool = False) -> list[str]:
        """Take bytes and return the lines that are whole; with `last` also the unfinished one."""
        text = self._decoder.decode(chunk, final=last)
        if self._after_cr and text:
            text = text.removeprefix("\n")
            self._after_cr = False
        if text.endswith("\r"):
            self._after_cr = True
        text = text.replace("\r\n", "\n").replace("\r", "\n")
        *lines, rest = text.split("\n")
        if lines:
            lines[0] = self._rest + lines[0]
            self._rest = rest
        else:
            self._rest += rest
        if len(self._rest) > self._limit or max(map(len, lines), default=0) > self._limit:
            raise off_protocol(f"the service sent a line over {self._limit} bytes")
        if last and self._rest:
            lines.append(self._rest)
            self._rest = ""
        return lines


class SseParser:
    """The event stream grammar of the HTML standard, incrementally."""

    def __init__(self, limit: Bytes = EVENT_LIMIT) -> None:
        self._lines = LineSplitter(limit)
        self._limit = limit
        self._data: list[str] = []
        self._size = 0
        self._event = ""
        self._id: str | None = None
        self._first = True

    def feed(self, chunk: bytes) -> list[SseEvent]:
        """Take bytes and return the events that are whole; an unfinished last one is never given."""
        found: list[SseEvent] = []
        for line in self._lines.feed(chunk):
            if self._first:
                self._first, line = False, line.removeprefix("\ufeff")  # noqa: PLW2901 - the stream's mark is no text
            if line:
                self._line(line)
            elif (event := self._dispatch()) is not None:
                found.append(event)
        return found

    def _line(self, line: str) -> None:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._size += len(value) + 1
            if self._size > self._limit:
                raise off_protocol(f"the service sent an event over {self._limit} bytes")
            self._data.append(value)
        elif name == "event":
            self._event = value
        elif name == "id" and "\0" not in value:
            self._id = value

    def _dispatch(self) -> SseEvent | None:
        data, event = self._data, self._event
        self._data, self._event, self._size = [], "", 0
        if not data:
            return None
        return SseEvent(data="\n".join(data), event=event or "message", id=self._id)


async def read_sse(
    chunks: AsyncGenerator[bytes], *, limit: Bytes = EVENT_LIMIT, secret: str | None = None
) -> AsyncGenerator[SseEvent]:
    """Yield the events of a stream; `secret` is taken out of what a server echoes."""
    parser = SseParser(limit)
    async with aclosing(chunks):
        async for chunk in chunks:
            for event in parser.feed(chunk):
                leaky = secret is not None and secret in event.data
                yield structs.replace(event, data=event.data.replace(secret or "", "***")) if leaky else event


async def read_ndjson(
    chunks: AsyncGenerator[bytes], *, limit: Bytes = EVENT_LIMIT, secret: str | None = None
) -> AsyncGenerator[bytes]:
    """Yield the lines of a stream that are not blank, still encoded; `secret` is taken out of them."""
    splitter = LineSplitter(limit)
    async with aclosing(chunks):
        async for chunk in chunks:
            for line in splitter.feed(chunk):
                if line.strip():
                    yield (line.replace(secret, "***") if secret else line).encode()
    for line in splitter.feed(b"", last=True):
        if line.strip():
            yield (line.replace(secret, "***") if secret else line).encode()
