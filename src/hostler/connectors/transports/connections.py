"""Connections to hosts, for every protocol that begins as HTTP: URLs, headers, pools."""

from collections.abc import Mapping
from contextlib import AsyncExitStack
from functools import lru_cache
from types import TracebackType
from typing import Final, Self

import aiohttp
from yarl import URL

from hostler.kernel.errors import InvalidError
from hostler.kernel.settings import HttpSettings
from hostler.kernel.units import Seconds
from hostler.kernel.version import __version__

KEEPALIVE: Final[Seconds] = 4.0
"""Idle connections are dropped before servers drop them (5 s is common)."""


def parse_base(url: str, *, schemes: tuple[str, ...] = ("http", "https")) -> URL:
    """Return a base URL without a slash at its end; `InvalidError` unless it is plain and of these schemes."""
    try:
        parsed = URL(url)
        port = parsed.port
    except ValueError as error:
        raise InvalidError(f"not a URL: {url!r} ({error})", field="url") from None
    if parsed.scheme not in schemes or not parsed.host or not port:
        begins = " or ".join(f"{scheme}://" for scheme in schemes)
        raise InvalidError(f"an endpoint's URL begins with {begins} and names a host: {url!r}", field="url")
    if parsed.user is not None or parsed.password is not None:
        raise InvalidError("a URL must not hold a credential; name its variable with api_key_env", field="url")
    if parsed.query_string or parsed.fragment:
        raise InvalidError(f"an endpoint's URL has neither query nor fragment: {url!r}", field="url")
    return parsed.with_path(parsed.path.rstrip("/"))


def under(base: URL, path: str) -> URL:
    """Return the URL of a path (already quoted, begins with a slash) under a base."""
    if "?" in path or "#" in path:
        return URL(_before(base) + path, encoded=True)
    return base.with_path(base.raw_path.rstrip("/") + path, encoded=True)  # half the time: nothing is parsed again


@lru_cache(maxsize=1024)
def _before(base: URL) -> str:
    return str(base if base.path != "/" else base.origin())


@lru_cache(maxsize=1024)
def limits_of(total: Seconds | None, connect: Seconds, silence: Seconds | None = None) -> aiohttp.ClientTimeout:
    """Return the limits of a request: for all of it, to make a connection, between two reads."""
    return aiohttp.ClientTimeout(total=total, sock_connect=connect, sock_read=silence)


def headers_of(api_key: str | None) -> dict[str, str]:
    """Return what every request says of itself; the credential as a bearer token."""
    headers = {"User-Agent": f"hostler/{__version__}", "Accept-Encoding": "identity"}
    return {**headers, "Authorization": f"Bearer {api_key}"} if api_key else headers


def client_session(
    connector: aiohttp.BaseConnector,
    *,
    headers: Mapping[str, str],
    connect: Seconds,
    middlewares: tuple[aiohttp.ClientMiddlewareType, ...] = (),
) -> aiohttp.ClientSession:
    """Return a client that keeps no cookies and asks the environment nothing; it does not own its connections."""
    return aiohttp.ClientSession(
        connector=connector,
        connector_owner=False,
        headers=headers,
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=connect),
        middlewares=middlewares,
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
