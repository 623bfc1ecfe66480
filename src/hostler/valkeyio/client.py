"""How the client is made: no retries, explicit timeouts, a bounded pool that loses no connection to a cancel."""

import asyncio
from collections import deque
from typing import Any, Protocol

from msgspec import Struct
from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection, ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import MaxConnectionsError

from hostler.kernel.settings import EngineSettings
from hostler.kernel.units import Seconds
from hostler.valkeyio.connections import ROUTED, Route, abort
from hostler.valkeyio.faults import NOTHING_SENT
from hostler.valkeyio.urls import connection_options

BLOCKING_LIMIT: Seconds = 60.0
"""Longest block that a command on `Engine.blocking` may ask the server for."""

_PROTOCOL = 2
"""RESP2: replies of one shape on every server version, and measured no slower than RESP3 (decision 0003)."""


class Client(Protocol):
    """What sends commands: to one server, or to that one of several which has the key."""

    async def execute_command(self, *words: Any) -> Any:
        """Send one command and return its reply; see `send`."""
        ...

    def pubsub(self) -> Any:
        """Return a subscription to come, of the library's kind."""
        ...


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
            if connection.should_reconnect():
                await connection.disconnect(nowait=True)
            await self.ensure_connection(connection)
        except BaseException as error:  # also when cancelled: the connection goes back
            error.add_note(NOTHING_SENT)
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

    def cut(self) -> None:
        """Break every connection that is in use; who waits on one gets an error now."""
        for connection in list(self._in_use_connections):
            abort(connection)

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


def make_pool(
    settings: EngineSettings,
    url: str,
    *,
    name: str,
    timeout: Seconds | None = None,
    limit: int | None = None,
    route: Route | None = None,
    probing: bool = False,
) -> BoundedPool:
    """Return a pool of connections to `url` that never retries.

    `timeout` bounds one command in seconds (the settings' own unless given), `limit` the connections. With a
    `route`, host and port of the URL do not count; those that are `probing` are made even while it is doubted.
    """
    options = connection_options(url)
    if route is not None:
        options |= {"connection_class": ROUTED[options["connection_class"]], "route": route, "probing": probing}
    return BoundedPool(
        wait=min(settings.command_timeout, timeout or settings.command_timeout),
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
        **options,
    )


def make_client(pool: BoundedPool) -> Redis:
    """Return a client that owns `pool` and closes it with `aclose`."""
    client = Redis(connection_pool=pool, decode_responses=False)
    client.auto_close_connection_pool = True
    return client


async def send(client: Client, *words: str | bytes | float) -> Any:
    """Send one command as it is and return its reply; the library's own errors, see `faults.mapped`."""
    return await client.execute_command(*words)
