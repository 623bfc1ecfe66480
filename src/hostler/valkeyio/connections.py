"""One connection: sent on promptly, and where it goes may change while the pool lives."""

import asyncio
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, cast

from msgspec import Struct
from redis._parsers.hiredis import NOT_ENOUGH_DATA
from redis.asyncio.connection import (
    AbstractConnection,
    Connection,
    SSLConnection,
    UnixDomainSocketConnection,
)
from redis.exceptions import ConnectionError as ForeignConnectionError
from redis.exceptions import ReadOnlyError
from redis.exceptions import TimeoutError as ForeignTimeoutError

Address = tuple[str, int]
"""Host and port."""


class Route:
    """Where the connections of some pools are made to; those made to an earlier place are not used again."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.moves = 0
        self.doubted = False
        """Whether the server there may have been replaced: until that is known no connection is made but to ask it."""

    def move(self, address: Address) -> bool:
        """Lead to another place from now on; False when it is the same."""
        if address == self.address:
            return False
        self.address = address
        self.moves += 1
        return True


class PromptSend(AbstractConnection):
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


class _Tcp(PromptSend, Connection):
    pass


class _Tls(PromptSend, SSLConnection):
    pass


class _Unix(PromptSend, UnixDomainSocketConnection):
    pass


class _Routed(PromptSend):
    """Goes where its route leads, and to a primary only: a server that was demoted serves what is old."""

    host: str
    port: int

    def __init__(self, *, route: Route, probing: bool, **options: Any) -> None:
        super().__init__(**options)  # pyright: ignore[reportUnknownMemberType] - the library does not type its keywords
        self._probing = probing
        self._route = route
        self._made = route.moves

    async def _connect(self) -> None:
        self._made = self._route.moves
        self.host, self.port = self._route.address
        if self._route.doubted and not self._probing:
            raise ForeignConnectionError(f"whether {self.host}:{self.port} is still the primary is being asked")
        await super()._connect()

    async def on_connect_check_health(self, check_health: bool = True) -> None:  # noqa: FBT001, FBT002 - the signature is the library's
        await super().on_connect_check_health(check_health)
        await self.send_command("ROLE")
        role = cast("list[bytes]", await self.read_response())
        if role[0] != b"master":
            raise ReadOnlyError(f"{self.host}:{self.port} is a replica now")

    def should_reconnect(self) -> bool:
        """Return whether it leads to where nothing should be sent any more."""
        return self._made != self._route.moves or super().should_reconnect()


class _RoutedTcp(_Routed, Connection):
    pass


class _RoutedTls(_Routed, SSLConnection):
    pass


CLASSES: Mapping[type[AbstractConnection], type[AbstractConnection]] = MappingProxyType(
    {Connection: _Tcp, SSLConnection: _Tls, UnixDomainSocketConnection: _Unix}
)
"""Ours for each of the library's."""

ROUTED: Mapping[type[AbstractConnection], type[AbstractConnection]] = MappingProxyType(
    {_Tcp: _RoutedTcp, _Tls: _RoutedTls}
)


def abort(connection: AbstractConnection) -> None:
    """Break a connection under whoever waits on it: they get an error now, not after their timeout."""
    writer: asyncio.StreamWriter | None = getattr(connection, "_writer", None)  # the library only closes politely
    if writer is not None:
        writer.transport.abort()


class Taken(Struct, frozen=True, kw_only=True):
    """A connection whose socket somebody else reads and writes, and what that takes."""

    connection: AbstractConnection
    transport: asyncio.Transport
    former: asyncio.BaseProtocol
    """What the library reads by; it has to hear of the end."""
    reader: Any
    """Parses replies, errors as the library's."""
    nothing: Any
    """What the reader returns while no reply is whole."""


def take(connection: AbstractConnection) -> Taken:
    """Take over a connected connection on which no reply is due; it is given back disconnected."""
    # The library has no way of its own to have several commands answered on one connection.
    writer, parser = (getattr(connection, name) for name in ("_writer", "_parser"))
    transport: asyncio.Transport = writer.transport
    return Taken(
        connection=connection,
        transport=transport,
        former=transport.get_protocol(),
        reader=getattr(parser, "_reader", None),
        nothing=NOT_ENOUGH_DATA,
    )
