"""One HTTP client for every connector: pooled, bounded in time and size, its failures already classed."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from types import TracebackType
from typing import Final, Self, TypeVar
from urllib.parse import quote

import aiohttp
import msgspec
from multidict import CIMultiDictProxy
from yarl import URL

from hostler.connectors.faults import ServiceFaultError, fault, off_protocol, timed_out
from hostler.connectors.transports.http_faults import failure_of_answer, failure_of_exception
from hostler.connectors.transports.streams import SseEvent, read_ndjson, read_sse
from hostler.contracts.failure import FailureClass, Stage
from hostler.kernel.errors import InvalidError
from hostler.kernel.settings import HttpSettings
from hostler.kernel.units import Bytes, Seconds
from hostler.kernel.version import __version__

T = TypeVar("T")

BODY_LIMIT: Final[Bytes] = 16_777_216
"""Largest answer that is read whole."""
STREAM_LIMIT: Final[Bytes] = 268_435_456
"""Largest stream, so that one that never ends does end."""
ERROR_LIMIT: Final[Bytes] = 65_536
"""As much of an error's body as is looked at."""
KEEPALIVE: Final[Seconds] = 4.0
"""Idle connections are dropped before servers drop them (5 s is common)."""

Codes = Mapping[str, FailureClass]
NO_CODES: Final[Codes] = {}


def segment(text: str) -> str:
    """Quote one path segment; foreign ids never change the path around them."""
    return quote(text, safe="")


def parse_base(url: str) -> URL:
    """Return a base URL without a slash at its end; `InvalidError` unless it is plain http or https."""
    try:
        parsed = URL(url)
        port = parsed.port
    except ValueError as error:
        raise InvalidError(f"not a URL: {url!r} ({error})", field="url") from None
    if parsed.scheme not in {"http", "https"} or not parsed.host or not port:
        raise InvalidError(f"an endpoint's URL begins with http:// or https:// and names a host: {url!r}", field="url")
    if parsed.user is not None or parsed.password is not None:
        raise InvalidError("a URL must not hold a credential; name its variable with api_key_env", field="url")
    if parsed.query_string or parsed.fragment:
        raise InvalidError(f"an endpoint's URL has neither query nor fragment: {url!r}", field="url")
    return parsed.with_path(parsed.path.rstrip("/"))


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

    def sse(self) -> AsyncGenerator[SseEvent]:
        """Read it as server-sent events."""
        return read_sse(self.chunks(), secret=self._secret)

    def ndjson(self) -> AsyncGenerator[bytes]:
        """Read it as one JSON document a line."""
        return read_ndjson(self.chunks(), secret=self._secret)

    async def read(self, codes: Codes = NO_CODES) -> bytes:
        """Read it whole; raises the fault of a status that is not 2xx."""
        await self.expect(self.content_type, codes)
        async with aclosing(self.chunks()) as chunks:
            return _scrubbed(b"".join([chunk async for chunk in chunks]), self._secret)

    async def expect(self, content_type: str, codes: Codes = NO_CODES) -> None:
        """Raise the fault of a status that is not 2xx, or of another content type."""
        if not 200 <= self.status < 300:  # noqa: PLR2004 - the range is what 2xx means
            body = _scrubbed(await _read(self._response, ERROR_LIMIT, cut=True), self._secret)
            raise ServiceFaultError(failure_of_answer(self.status, self.headers, body, codes=codes))
        if self.content_type != content_type:
            raise off_protocol(
                f"the service answered {self.status} with {self.content_type}, not {content_type}",
                status=self.status,
            )


class HttpPool:
    """Connections to any number of hosts.

    Calls share at most `connections` sockets, `connections_per_host` to one host: one more waits. A stream
    lives as long as its job, so streams have sockets of their own, bounded by the worker's slots: a host
    whose every slot streams can still be probed, asked and told to stop.
    """

    def __init__(self, settings: HttpSettings) -> None:
        self._settings = settings
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        settings = self._settings
        async with AsyncExitStack() as stack:
            self.calls = aiohttp.TCPConnector(
                limit=settings.connections, limit_per_host=settings.connections_per_host, keepalive_timeout=KEEPALIVE
            )
            stack.push_async_callback(self.calls.close)
            self.streams = aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE)
            stack.push_async_callback(self.streams.close)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()


class HttpTransport:
    """Speaks HTTP to one endpoint; raises nothing but `ServiceFaultError`.

    Redirects are not followed, cookies not kept, proxies of the environment not used. Every call has a
    limit in time and size.
    """

    def __init__(
        self,
        base: str,
        *,
        settings: HttpSettings,
        api_key: str | None = None,
        connect: Seconds = 5.0,
        pool: HttpPool | None = None,
    ) -> None:
        """Take the base URL; `connect` bounds the making of a connection, without `pool` it makes one of its own."""
        self.base = parse_base(base)
        self._settings = settings
        self._headers = {"User-Agent": f"hostler/{__version__}", "Accept-Encoding": "identity"}
        self._secret = api_key or None
        if api_key:
            self._headers["Authorization"] = f"Bearer {api_key}"
        self._connect = connect
        self._shared = pool
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
        return aiohttp.ClientSession(
            connector=connector,
            connector_owner=False,
            headers=self._headers,
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._connect),
        )

    def url(self, path: str) -> URL:
        """Return the URL of a path (already quoted, begins with a slash) under the base."""
        return URL(f"{self.base}{path}" if self.base.path != "/" else f"{self.base.origin()}{path}", encoded=True)

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
                headers=_with_json(headers, body),
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=within, sock_connect=min(self._connect, within)),
            ) as response:
                body = _scrubbed(await _read(response, limit), self._secret)
                return Answer(response.status, response.headers, body)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise ServiceFaultError(failure_of_exception(error, stage=stage, seconds=within)) from error

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        path: str,
        *,
        first_byte: Seconds | None,
        silence: Seconds | None,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        limit: Bytes = STREAM_LIMIT,
    ) -> AsyncGenerator[HttpStream]:
        """Send a request and give the answer as it arrives.

        `first_byte` bounds the wait for the head of the answer, `silence` the wait between two chunks.
        """
        session = self._opened(self._streams)
        try:
            async with asyncio.timeout(first_byte):
                response = await session.request(
                    method,
                    self.url(path),
                    data=body,
                    headers=_with_json(headers, body),
                    allow_redirects=False,
                    timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._connect, sock_read=silence),
                )
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise ServiceFaultError(failure_of_exception(error, stage=Stage.FIRST_BYTE, seconds=first_byte)) from error
        self._responses.add(response)
        try:
            yield HttpStream(response, limit=limit, secret=self._secret)
        finally:
            self._responses.discard(response)
            response.close()

    def _opened(self, session: aiohttp.ClientSession | None) -> aiohttp.ClientSession:
        if session is None:
            raise fault(FailureClass.INTERNAL, "the connector is not open")
        return session


def _with_json(headers: Mapping[str, str] | None, body: bytes | None) -> dict[str, str]:
    found = dict(headers or {})
    if body is not None:
        found.setdefault("Content-Type", "application/json")
    return found


def _scrubbed(body: bytes, secret: str | None) -> bytes:
    """Take the credential out of what a server echoes, so that no failure and no result can carry it."""
    return body if secret is None else body.replace(secret.encode(), b"***")


async def _read(response: aiohttp.ClientResponse, limit: Bytes, *, cut: bool = False) -> bytes:
    parts: list[bytes] = []
    size = 0
    async for chunk in response.content.iter_any():
        parts.append(chunk)
        size += len(chunk)
        if size > limit:
            response.close()
            if cut:
                break
            raise off_protocol(f"the service sent a body over {limit} bytes", status=response.status)
    return b"".join(parts)[:limit]
