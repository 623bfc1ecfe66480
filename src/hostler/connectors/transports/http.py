"""One HTTP client for every connector: pooled, bounded in time and size, its failures already classed."""

import asyncio
import re
from base64 import b64encode
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from functools import partial
from types import TracebackType
from typing import Final, Literal, Self, TypeVar
from urllib.parse import quote

import aiohttp
import msgspec
from multidict import CIMultiDictProxy
from yarl import URL

from hostler.connectors.config import OnRateHint
from hostler.connectors.faults import ServiceFaultError, fault, off_protocol, timed_out
from hostler.connectors.transports.connections import (
    HttpPool,
    client_session,
    headers_of,
    limits_of,
    parse_base,
    under,
)
from hostler.connectors.transports.conversation import LIMITS, Limits, held_to
from hostler.connectors.transports.http_faults import failure_of_answer, failure_of_exception
from hostler.connectors.transports.http_limits import rate_hint
from hostler.connectors.transports.streams import EVENT_LIMIT, SseEvent, read_ndjson, read_sse
from hostler.contracts.failure import FailureClass, Stage
from hostler.kernel.allowance import allowance
from hostler.kernel.settings import HttpSettings
from hostler.kernel.units import Bytes, Seconds
from hostler.policy import deadline

T = TypeVar("T")

BODY_LIMIT: Final[Bytes] = 16_777_216
"""Largest answer that is read whole."""
STREAM_LIMIT: Final[Bytes] = 268_435_456
"""Largest stream, so that one that never ends does end."""
ERROR_LIMIT: Final[Bytes] = 65_536
"""As much of an error's body as is looked at."""

_PLAIN: Final = re.compile(r"[A-Za-z0-9_.~-]+")
"""Text that quoting would leave as it is."""

Codes = Mapping[str, FailureClass]
NO_CODES: Final[Codes] = {}


def segment(text: str) -> str:
    """Quote one path segment; foreign ids never change the path around them."""
    return text if _PLAIN.fullmatch(text) else quote(text, safe="")


class Answer:
    """A whole HTTP answer, of whatever status."""

    def __init__(self, status: int, headers: CIMultiDictProxy[str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    @property
    def ok(self) -> bool:
        """Tell whether the status is 2xx."""
        return 200 <= self.status < 300  # noqa: PLR2004 - the range is what 2xx means

    def expect(self, codes: Codes = NO_CODES) -> Self:
        """Return itself, or raise the fault that its status means; a redirect is one too."""
        if not self.ok:
            raise ServiceFaultError(failure_of_answer(self.status, self.headers, self.body, codes=codes))
        return self

    def json(self, shape: type[T]) -> T:
        """Decode the body; raises a transient fault when it is not what the protocol says."""
        try:
            return msgspec.json.decode(self.body, type=shape)
        except (msgspec.MsgspecError, UnicodeError) as error:
            kind = self.headers.get("content-type", "no content type")
            raise off_protocol(
                f"the service answered {self.status} with {kind} that is not its protocol: {error}", status=self.status
            ) from None


class HttpStream:
    """An answer that is still arriving; leaving its context closes the connection unless it was read to the end."""

    def __init__(self, response: aiohttp.ClientResponse, *, limit: Bytes, secret: str | None = None) -> None:
        self._response = response
        self._secret = secret
        self._limit = limit
        self.status = response.status
        self.headers = response.headers
        self.content_type = response.content_type

    async def chunks(self) -> AsyncGenerator[bytes]:
        """Yield bytes as they come; raises `ServiceFaultError`, also when it grows over its limit."""
        size = 0
        try:
            async for chunk in self._response.content.iter_any():
                size += len(chunk)
                if size > self._limit:
                    raise off_protocol(f"the service sent a stream over {self._limit} bytes")
                yield chunk
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise ServiceFaultError(failure_of_exception(error, stage=Stage.IDLE)) from error

    def sse(self, *, limit: Bytes = EVENT_LIMIT) -> AsyncGenerator[SseEvent]:
        """Read it as server-sent events, each of at most `limit` bytes."""
        return read_sse(self.chunks(), limit=limit, secret=self._secret)

    def ndjson(self, *, limit: Bytes = EVENT_LIMIT) -> AsyncGenerator[bytes]:
        """Read it as one JSON document a line, each of at most `limit` bytes."""
        return read_ndjson(self.chunks(), limit=limit, secret=self._secret)

    async def read(self, codes: Codes = NO_CODES) -> bytes:
        """Read it whole; raises the fault of a status that is not 2xx."""
        await self.expect(self.content_type, codes)
        return await self._whole(self._limit)

    async def answer(self) -> Answer:
        """Read it whole, whatever its status; of an error as much as is looked at."""
        good = 200 <= self.status < 300  # noqa: PLR2004 - the range is what 2xx means
        body = await self._whole(self._limit if good else ERROR_LIMIT, cut=not good)
        return Answer(self.status, self.headers, body)

    async def _whole(self, limit: Bytes, *, cut: bool = False) -> bytes:
        try:
            return scrubbed(await read_body(self._response, limit, cut=cut), self._secret)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise ServiceFaultError(failure_of_exception(error, stage=Stage.IDLE)) from error

    async def expect(self, content_type: str, codes: Codes = NO_CODES) -> None:
        """Raise the fault of a status that is not 2xx, or of another content type."""
        if not 200 <= self.status < 300:  # noqa: PLR2004 - the range is what 2xx means
            try:
                body = await self._whole(ERROR_LIMIT, cut=True)
            except ServiceFaultError:
                body = b""  # the status has said it, whatever became of the words
            raise ServiceFaultError(failure_of_answer(self.status, self.headers, body, codes=codes))
        if self.content_type != content_type:
            raise off_protocol(
                f"the service answered {self.status} with {self.content_type}, not {content_type}",
                status=self.status,
            )


class StreamedAnswer:
    """A request for as long as its answer is read: `async with` sends it and gives the stream, leaving closes it.

    `held` are the answers that the transport has to close when it closes before.
    """

    def __init__(
        self,
        send: Callable[[], Awaitable[aiohttp.ClientResponse]],
        held: set[aiohttp.ClientResponse],
        *,
        limit: Bytes,
        secret: str | None,
    ) -> None:
        self._send, self._held = send, held
        self._limit, self._secret = limit, secret
        self._response: aiohttp.ClientResponse | None = None

    async def __aenter__(self) -> HttpStream:
        self._response = await self._send()
        self._held.add(self._response)
        return HttpStream(self._response, limit=self._limit, secret=self._secret)

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._response is not None:
            self._held.discard(self._response)
            self._response.close()


class HttpConversation:
    """Messages of one answer, as `Conversation`: the data of each server-sent event, or each line of JSON."""

    def __init__(self, stream: HttpStream, limits: Limits) -> None:
        self._stream = stream
        self._limits = limits

    def messages(self) -> AsyncGenerator[bytes]:
        """Yield them until the answer ends."""
        return held_to(self._limits, self._read())

    async def _read(self) -> AsyncGenerator[bytes]:
        if self._stream.content_type == "text/event-stream":
            async with aclosing(self._stream.sse(limit=self._limits.message)) as events:
                async for event in events:
                    yield event.data.encode()
        elif self._stream.content_type in _LINES:
            async with aclosing(self._stream.ndjson(limit=self._limits.message)) as lines:
                async for line in lines:
                    yield line
        else:
            raise off_protocol(f"the service answered with {self._stream.content_type}, which is no stream of messages")


_LINES: Final = frozenset({"application/x-ndjson", "application/ndjson", "application/jsonl", "application/json"})


class HttpTransport:
    """Speaks HTTP to one endpoint; raises nothing but `ServiceFaultError`.

    Redirects are not followed, cookies not kept, proxies of the environment not used. Every call has a
    limit in time and size, and tells how much time is left for the work that it is part of.
    """

    def __init__(
        self,
        base: str,
        *,
        settings: HttpSettings,
        api_key: str | None = None,
        scheme: Literal["bearer", "basic"] = "bearer",
        connect: Seconds = 5.0,
        pool: HttpPool | None = None,
        on_rate_hint: OnRateHint | None = None,
    ) -> None:
        """Take the base URL; `connect` bounds the making of a connection, without `pool` it makes one of its own.

        `api_key` is a token, or with the scheme `basic` `user:password`.
        `on_rate_hint` is told what each answer says about limits, as soon as its headers are there.
        """
        self.base = parse_base(base)
        self._settings = settings
        self._headers = headers_of(None if scheme == "basic" else api_key)
        self._secret = api_key or None
        if api_key and scheme == "basic":
            self._secret = b64encode(api_key.encode()).decode()
            self._headers["Authorization"] = f"Basic {self._secret}"
        self._connect = connect
        self._shared = pool
        self._on_rate_hint = on_rate_hint
        self._stack = AsyncExitStack()
        self._responses: set[aiohttp.ClientResponse] = set()
        self._calls: aiohttp.ClientSession | None = None
        self._streams: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            pool = self._shared or await stack.enter_async_context(HttpPool(self._settings))
            self._calls = await stack.enter_async_context(self._session(pool.calls))
            self._streams = await stack.enter_async_context(self._session(pool.streams))
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for response in tuple(self._responses):
            response.close()
        self._responses.clear()
        self._calls = self._streams = None
        await self._stack.aclose()

    def _session(self, connector: aiohttp.BaseConnector) -> aiohttp.ClientSession:
        return client_session(connector, headers=self._headers, connect=self._connect)

    def url(self, path: str) -> URL:
        """Return the URL of a path (already quoted, begins with a slash) under the base."""
        return under(self.base, path)

    async def call(
        self,
        method: str,
        path: str,
        *,
        within: Seconds,
        stage: Stage = Stage.CONNECT,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        limit: Bytes = BODY_LIMIT,
    ) -> Answer:
        """Send a request and read its whole answer, in `within` seconds, blamed on `stage`.

        Any status is an answer. A body over `limit` bytes is a fault, and closes the connection.
        """
        session = self._opened(self._calls)
        if within <= 0:
            raise timed_out(stage, within)  # aiohttp takes 0 for no limit
        try:
            async with session.request(
                method,
                self.url(path),
                data=body,
                headers=_headers(headers, body),
                allow_redirects=False,
                timeout=limits_of(within, min(self._connect, within)),
            ) as response:
                self._hint(response)
                body = scrubbed(await read_body(response, limit), self._secret)
                return Answer(response.status, response.headers, body)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise ServiceFaultError(failure_of_exception(error, stage=stage, seconds=within)) from error

    def stream(
        self,
        method: str,
        path: str,
        *,
        first_byte: Seconds | None,
        silence: Seconds | None,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        limit: Bytes = STREAM_LIMIT,
    ) -> "StreamedAnswer":
        """Send a request and give the answer as it arrives.

        `first_byte` bounds the wait for the head of the answer, `silence` the wait between two chunks.
        """
        send = partial(self._send, method, path, first_byte=first_byte, silence=silence, body=body, headers=headers)
        return StreamedAnswer(send, self._responses, limit=limit, secret=self._secret)

    async def _send(
        self,
        method: str,
        path: str,
        *,
        first_byte: Seconds | None,
        silence: Seconds | None,
        body: bytes | None,
        headers: Mapping[str, str] | None,
    ) -> aiohttp.ClientResponse:
        session = self._opened(self._streams)
        try:
            asked = session.request(
                method,
                self.url(path),
                data=body,
                headers=_headers(headers, body),
                allow_redirects=False,
                timeout=limits_of(None, self._connect, silence),
            )
            if first_byte is None:
                response = await asked
            else:
                async with asyncio.timeout(first_byte):
                    response = await asked
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise ServiceFaultError(failure_of_exception(error, stage=Stage.FIRST_BYTE, seconds=first_byte)) from error
        try:
            self._hint(response)
        except BaseException:  # whoever hears of limits broke: the answer must not stay open
            response.close()
            raise
        return response

    @asynccontextmanager
    async def conversation(
        self, target: str, opening: bytes = b"", *, limits: Limits = LIMITS, codes: Codes = NO_CODES
    ) -> AsyncGenerator[HttpConversation]:
        """Post the opening (get, when there is none); each line or server-sent event of the answer is a message."""
        async with self.stream(
            "POST" if opening else "GET",
            target,
            body=opening or None,
            first_byte=limits.opening,
            silence=None,
            limit=limits.total or STREAM_LIMIT,
        ) as stream:
            await stream.expect(stream.content_type, codes)
            yield HttpConversation(stream, limits)

    def _hint(self, response: aiohttp.ClientResponse) -> None:
        if self._on_rate_hint is not None and (hint := rate_hint(response.status, response.headers)) is not None:
            self._on_rate_hint(hint)

    def _opened(self, session: aiohttp.ClientSession | None) -> aiohttp.ClientSession:
        if session is None:
            raise fault(FailureClass.INTERNAL, "the connector is not open")
        return session


def _headers(headers: Mapping[str, str] | None, body: bytes | None) -> dict[str, str]:
    found = {**deadline.headers(allowance()), **(headers or {})}
    if body is not None:
        found.setdefault("Content-Type", "application/json")
    return found


def scrubbed(body: bytes, secret: str | None) -> bytes:
    """Take the credential out of what a server echoes, so that no failure and no result can carry it."""
    return body if secret is None else body.replace(secret.encode(), b"***")


async def read_body(response: aiohttp.ClientResponse, limit: Bytes, *, cut: bool = False) -> bytes:
    """Read a body whole; one over the limit is off the protocol, or cut there."""
    content = response.content
    parts = [await content.readany()]
    size = len(parts[0])
    while size <= limit and not content.at_eof():
        parts.append(await content.readany())
        size += len(parts[-1])
    if size > limit:
        response.close()
        if not cut:
            raise off_protocol(f"the service sent a body over {limit} bytes", status=response.status)
    return b"".join(parts)[:limit]
