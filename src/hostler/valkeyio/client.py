"""How the client is made: no retries, explicit timeouts, a bounded pool that loses no connection to a cancel."""

import asyncio
import re
import ssl
from collections import deque
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Protocol, cast
from urllib.parse import parse_qsl, urlsplit

from msgspec import Struct
from redis.asyncio import Redis
from redis.asyncio.connection import (
    AbstractConnection,
    Connection,
    ConnectionPool,
    SSLConnection,
    UnixDomainSocketConnection,
    parse_url,
)
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import MaxConnectionsError
from redis.exceptions import TimeoutError as ForeignTimeoutError

from hostler.kernel.errors import SettingsError
from hostler.kernel.settings import EngineSettings
from hostler.kernel.units import Seconds

BLOCKING_LIMIT: Seconds = 60.0
"""Longest block that a command on `Engine.blocking` may ask the server for."""

_PROTOCOL = 2
"""RESP2: replies of one shape on every server version, and measured no slower than RESP3 (decision 0003)."""

_OPTIONS = frozenset(
    {
        "db",
        "username",
        "password",
        "ssl_ca_certs",
        "ssl_ca_path",
        "ssl_certfile",
        "ssl_keyfile",
        "ssl_cert_reqs",
        "ssl_check_hostname",
    }
)
"""What may stand behind the `?` of an engine's URL; timeouts and pool sizes are settings of ours."""

_FILES = frozenset({"ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile"})


class PoolUsage(Struct, frozen=True, kw_only=True):
    """Numbers of one pool, for metrics; counters since the pool was made."""

    limit: int
    in_use: int
    idle: int
    waiting: int
    """Calls that wait for a connection now."""
    waits: int
    """Calls that had to wait."""
    waited: Seconds
    """Their waiting time, summed."""
    refused: int
    """Calls that gave up waiting."""


class _PromptSend(AbstractConnection):
    """Sends under `asyncio.timeout`: Python 3.11's `wait_for` costs a task per command and may swallow a cancel."""

    async def send_packed_command(self, command: Any, check_health: bool = True) -> None:  # noqa: FBT001, FBT002 - the signature is the library's
        """Send one command or several; the connection is closed when that takes longer than its timeout."""
        limit = self.socket_timeout
        try:
            async with asyncio.timeout(limit):
                self.socket_timeout = None
                try:
                    await super().send_packed_command(command, check_health)
                finally:
                    self.socket_timeout = limit
        except TimeoutError as error:
            raise ForeignTimeoutError("writing to the socket") from error


class _Tcp(_PromptSend, Connection):
    pass


class _Tls(_PromptSend, SSLConnection):
    pass


class _Unix(_PromptSend, UnixDomainSocketConnection):
    pass


_CLASSES: Mapping[type[AbstractConnection], type[AbstractConnection]] = MappingProxyType(
    {Connection: _Tcp, SSLConnection: _Tls, UnixDomainSocketConnection: _Unix}
)


class BoundedPool(ConnectionPool):
    """At most `max_connections` connections; further calls wait in line, each at most `wait` seconds.

    Taking and giving back never suspend while they hold a connection in hand, so that a cancelled call
    cannot lose one: the library's own blocking pool awaits a lock in `release`, where a second cancel does.
    """

    def __init__(self, *, wait: Seconds, **options: Any) -> None:
        super().__init__(**options)  # pyright: ignore[reportUnknownMemberType] - the library does not type its keywords
        self._wait = wait
        self._line: deque[asyncio.Future[AbstractConnection]] = deque()
        self._waits = 0
        self._waited = 0.0
        self._refused = 0

    def usage(self) -> PoolUsage:
        """Return the pool's numbers now."""
        return PoolUsage(
            limit=self.max_connections,
            in_use=len(self._in_use_connections),
            idle=len(self._available_connections),
            waiting=len(self._line),
            waits=self._waits,
            waited=self._waited,
            refused=self._refused,
        )

    async def get_connection(self, command_name: Any = None, *keys: Any, **options: Any) -> AbstractConnection:
        """Return a connected connection; `MaxConnectionsError` when none came free in time."""
        del command_name, keys, options
        if self._line or not self.can_get_connection():
            connection = await self._stand_in_line()
        else:
            connection = self.get_available_connection()
        try:
            await self.ensure_connection(connection)
        except BaseException:  # also when cancelled: the connection goes back
            self._give(connection)
            await asyncio.sleep(0)  # a refused connect never suspends: a caller that tries in a loop would starve all
            raise
        return connection

    async def release(self, connection: AbstractConnection) -> None:
        """Hand the connection to the next in line, or keep it for later."""
        try:
            if connection.should_reconnect():
                await connection.disconnect(nowait=True)
        finally:
            self._give(connection)

    def _give(self, connection: AbstractConnection) -> None:
        while self._line:
            turn = self._line.popleft()
            if not turn.done():
                turn.set_result(connection)
                return
        self._in_use_connections.remove(connection)
        self._available_connections.append(connection)

    async def _stand_in_line(self) -> AbstractConnection:
        loop = asyncio.get_running_loop()
        started = loop.time()
        turn: asyncio.Future[AbstractConnection] = loop.create_future()
        self._line.append(turn)
        self._waits += 1
        try:
            async with asyncio.timeout(self._wait):
                return await turn
        except BaseException as error:  # also when cancelled: nobody else may lose their turn
            if turn.done() and not turn.cancelled():
                self._give(turn.result())  # it was handed to us in the moment in which we gave up
            elif turn in self._line:
                self._line.remove(turn)
            if isinstance(error, TimeoutError):
                self._refused += 1
                raise MaxConnectionsError(
                    f"all {self.max_connections} connections were busy for {self._wait:g} s; nothing was sent"
                ) from error
            raise
        finally:
            self._waited += loop.time() - started


def redact(url: str) -> str:
    """Return an engine's URL fit to be shown: without user, password and query."""
    parts = urlsplit(url)
    place = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{'***@' if '@' in parts.netloc else ''}{place}{parts.path}"


def connection_options(url: str) -> dict[str, Any]:
    """Return what an engine's URL asks for, as arguments of a pool.

    `SettingsError` names the part that is wrong and never repeats a credential.
    """
    parts = urlsplit(url)
    unknown = sorted({name for name, _ in parse_qsl(parts.query)} - _OPTIONS)
    if parts.scheme not in {"unix", "redis", "rediss"}:
        raise _wrong(url, f"begins with {parts.scheme or 'nothing'}://, not unix://, redis:// or rediss://")
    if unknown:
        raise _wrong(url, f"has the unknown options {', '.join(unknown)}; known are {', '.join(sorted(_OPTIONS))}")
    if parts.scheme == "unix" and (parts.netloc.rpartition("@")[2] or not parts.path.startswith("/")):
        raise _wrong(url, "needs an absolute path: unix:///path/to/socket")
    if parts.scheme != "unix" and not parts.hostname:
        raise _wrong(url, "names no host")
    if parts.scheme != "unix" and not re.fullmatch(r"(/\d*)?", parts.path):
        raise _wrong(url, "has a path that is not the number of a database")
    try:
        found: dict[str, Any] = dict(parse_url(url))
    except ValueError as error:
        raise _wrong(url, "cannot be read; is the port a number, and are the options of the right type?") from error
    if found.get("ssl_cert_reqs", "required") not in {"none", "optional", "required"}:
        raise _wrong(url, "has an ssl_cert_reqs that is not none, optional or required")
    base: type[AbstractConnection] = found.pop("connection_class", Connection)
    return {**found, "connection_class": _CLASSES[base]}


def check_files(url: str) -> None:
    """Read the certificates and the key that an engine's URL names; `SettingsError` when they cannot be used.

    Blocks on the disk. The client itself would only say that it could not connect.
    """
    options = dict(parse_qsl(urlsplit(url).query))
    context = ssl.create_default_context()
    try:
        if "ssl_ca_certs" in options or "ssl_ca_path" in options:
            context.load_verify_locations(options.get("ssl_ca_certs"), options.get("ssl_ca_path"))
        if "ssl_certfile" in options:
            context.load_cert_chain(options["ssl_certfile"], options.get("ssl_keyfile"))
    except OSError as error:  # what is wrong inside a file is one too
        named = ", ".join(sorted(options.keys() & _FILES))
        raise _wrong(url, f"names files that cannot be used ({named}: {error.strerror or error})") from error


def _wrong(url: str, problem: str) -> SettingsError:
    message = f"the engine's URL {redact(url)} {problem}"
    return SettingsError(message, field="engine.url", problems=(message,))


def make_pool(
    settings: EngineSettings, url: str, *, name: str, timeout: Seconds | None = None, limit: int | None = None
) -> BoundedPool:
    """Return a pool of connections to `url` that never retries.

    `timeout` bounds one command in seconds (the settings' own unless given), `limit` the connections.
    """
    return BoundedPool(
        wait=settings.command_timeout,
        max_connections=limit or settings.connections,
        socket_timeout=timeout or settings.command_timeout,
        socket_connect_timeout=settings.connect_timeout,
        retry=Retry(NoBackoff(), 0),
        retry_on_timeout=False,
        health_check_interval=0,
        client_name=name,
        driver_info=None,
        protocol=_PROTOCOL,
        decode_responses=False,
        **connection_options(url),
    )


def make_client(pool: BoundedPool) -> Redis:
    """Return a client that owns `pool` and closes it with `aclose`."""
    client = Redis(connection_pool=pool, decode_responses=False)
    client.auto_close_connection_pool = True
    return client


class _Commands(Protocol):
    async def execute_command(self, *words: Any) -> Any: ...


async def send(client: Redis, *words: str | bytes | float) -> Any:
    """Send one command as it is and return its reply; the library's own errors, see `faults.mapped`.

    The library types its verbs in part only; this is the one place where that is said to the type checker.
    """
    return await cast("_Commands", client).execute_command(*words)
