"""WebSockets to one endpoint: bounded in time and size, kept alive by pings, their failures already classed."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, suppress
from types import TracebackType
from typing import Final, Self

import aiohttp
from aiohttp import WSMsgType
from msgspec import Struct

from hostler.connectors.faults import ServiceFaultError, failure, fault, off_protocol
from hostler.connectors.stages import Bounded
from hostler.connectors.transports.connections import HttpPool, client_session, headers_of, parse_base, under
from hostler.connectors.transports.conversation import LIMITS, Limits, held_to
from hostler.connectors.transports.http import ERROR_LIMIT, NO_CODES, Codes, read_body, scrubbed
from hostler.connectors.transports.http_faults import failure_of_answer, failure_of_exception
from hostler.contracts.failure import Failure, FailureClass, Stage
from hostler.kernel.allowance import allowance
from hostler.kernel.settings import HttpSettings
from hostler.kernel.units import Seconds
from hostler.policy import deadline

C = FailureClass
PING: Final[Seconds] = 20.0
"""How often a peer is pinged while it says nothing; without an answer in half that time it is gone."""
GOODBYE: Final[Seconds] = 1.0
"""How long a peer may take to answer our goodbye, before the connection is cut."""
SCHEMES: Final = ("ws", "wss", "http", "https")
_SWITCHED: Final = 101
_FINE: Final = frozenset({1000, 0})
"""Codes of an end without a complaint: normal, and (aiohttp's 0) none given."""

CLOSE_CODES: Final[Mapping[int, FailureClass]] = {
    1003: C.INVALID_INPUT,
    1007: C.INVALID_INPUT,
    1008: C.REFUSED,
    1009: C.INVALID_INPUT,
    1013: C.OVERLOADED,
    3000: C.AUTH,
    3003: C.AUTH,
}
"""What a peer's close code means (RFC 6455 and its registry); every other complaint is `transient`."""


class Frame(Struct, frozen=True, kw_only=True):
    """One whole message and which of the two kinds it was."""

    data: bytes
    text: bool = True


class WebsocketConversation:
    """One socket; text and binary messages in the order in which they were sent."""

    def __init__(
        self, socket: aiohttp.ClientWebSocketResponse[bool], *, limits: Limits, codes: Codes, secret: str | None
    ) -> None:
        self._socket = socket
        self._limits = limits
        self._codes = codes
        self._secret = secret

    async def send(self, message: bytes, *, text: bool = True) -> None:
        """Send one message, as text (UTF-8) unless told otherwise."""
        try:
            async with Bounded(self._limits.opening, Stage.IDLE):
                await self._socket.send_frame(message, WSMsgType.TEXT if text else WSMsgType.BINARY)
        except (aiohttp.ClientError, OSError) as error:
            raise ServiceFaultError(failure_of_exception(error, stage=Stage.IDLE)) from error

    async def messages(self) -> AsyncGenerator[bytes]:
        """Yield messages of either kind until the peer closes the socket."""
        async with aclosing(held_to(self._limits, self._data())) as messages:
            async for message in messages:
                yield message

    async def _data(self) -> AsyncGenerator[bytes]:
        async with aclosing(self.frames()) as frames:
            async for frame in frames:
                yield frame.data

    async def frames(self) -> AsyncGenerator[Frame]:
        """Yield messages with their kinds until the peer closes the socket; the limit of silence is not watched."""
        while True:
            found = await self._socket.receive()
            match found.type:
                case WSMsgType.TEXT | WSMsgType.BINARY:
                    yield Frame(data=scrubbed(found.data, self._secret), text=found.type is WSMsgType.TEXT)
                case WSMsgType.CLOSE:
                    reason = scrubbed((found.extra or "").encode(), self._secret).decode(errors="replace")
                    if found.data in _FINE:
                        return
                    raise ServiceFaultError(failure_of_close(found.data, reason, codes=self._codes))
                case WSMsgType.ERROR:
                    raise _broken(found.data)
                case _:
                    # No close frame came first: aiohttp calls that an orderly end, but it is how the dead leave.
                    raise _gone(self._socket.exception())

    async def close(self) -> None:
        """Say goodbye, and cut the connection when it is not answered in time; twice is safe."""
        with suppress(TimeoutError):  # aiohttp's own limit begins anew with each message of a peer that talks on
            async with asyncio.timeout(GOODBYE):
                await self._socket.close()


class WebsocketTransport:
    """Opens sockets to one endpoint, whose base URL begins with ws, wss, http or https.

    Redirects are not followed, cookies not kept, proxies of the environment not used, messages not compressed. The
    handshake tells how much time is left for the work that it is part of.
    """

    def __init__(
        self,
        base: str,
        *,
        settings: HttpSettings,
        api_key: str | None = None,
        connect: Seconds = 5.0,
        ping: Seconds = PING,
        pool: HttpPool | None = None,
    ) -> None:
        """Take the base URL; `connect` bounds the making of a connection, without `pool` it makes one of its own."""
        self.base = parse_base(base, schemes=SCHEMES)
        self._settings = settings
        self._headers = headers_of(api_key)
        self._secret = api_key or None
        self._connect = connect
        self._ping = ping
        self._shared = pool
        self._stack = AsyncExitStack()
        self._session: aiohttp.ClientSession | None = None
        self._live: set[WebsocketConversation] = set()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            pool = self._shared or await stack.enter_async_context(HttpPool(self._settings))
            self._session = await stack.enter_async_context(
                client_session(
                    pool.streams, headers=self._headers, connect=self._connect, middlewares=(_Handshake(self._secret),)
                )
            )
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._session = None
        await asyncio.gather(*(conversation.close() for conversation in tuple(self._live)))
        await self._stack.aclose()

    @asynccontextmanager
    async def conversation(
        self, target: str, opening: bytes = b"", *, limits: Limits = LIMITS, codes: Codes = NO_CODES
    ) -> AsyncGenerator[WebsocketConversation]:
        """Open a socket to a path (already quoted, begins with a slash) and send the opening, unless it is empty.

        `codes` maps what the service writes into a refused handshake, or as the reason of a close.
        """
        session = self._session
        if session is None:
            raise fault(C.INTERNAL, "the connector is not open")
        try:
            async with asyncio.timeout(limits.opening):
                socket = await session.ws_connect(
                    under(self.base, target),
                    headers=deadline.headers(allowance()),
                    timeout=aiohttp.ClientWSTimeout(ws_close=GOODBYE),  # pyright: ignore[reportCallIssue] - untyped attrs
                    heartbeat=self._ping,
                    max_msg_size=limits.message,
                    decode_text=False,
                )
        except _RefusedError as error:
            raise ServiceFaultError(error.failure(codes)) from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise ServiceFaultError(failure_of_exception(error, stage=Stage.CONNECT, seconds=limits.opening)) from error
        conversation = WebsocketConversation(socket, limits=limits, codes=codes, secret=self._secret)
        self._live.add(conversation)
        try:
            if opening:
                await conversation.send(opening)
            yield conversation
        finally:
            self._live.discard(conversation)
            await conversation.close()


class _RefusedError(Exception):
    """The handshake was answered, and not with a socket."""

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        super().__init__()
        self._status, self._headers, self._body = status, headers, body

    def failure(self, codes: Codes) -> Failure:
        """Return what the answer means; one that agrees without opening a socket is off the protocol."""
        if self._status < 300:  # noqa: PLR2004 - below the statuses that refuse
            return off_protocol(f"the service answered {self._status} and opened no socket").failure
        return failure_of_answer(self._status, self._headers, self._body, codes=codes)


class _Handshake:
    """Reads what refuses a handshake, before aiohttp drops its body or follows it elsewhere."""

    def __init__(self, secret: str | None) -> None:
        self._secret = secret

    async def __call__(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        response = await handler(request)
        if response.status == _SWITCHED:
            return response
        try:
            body = await read_body(response, ERROR_LIMIT, cut=True)
        finally:
            response.close()
        raise _RefusedError(response.status, response.headers, scrubbed(body, self._secret))


def failure_of_close(code: int, reason: str, *, codes: Codes = NO_CODES) -> Failure:
    """Return what a close code means: the service's own word for it first, then the code, text never."""
    class_ = codes.get(reason) or CLOSE_CODES.get(code, C.TRANSIENT)
    return failure(class_, reason or f"the service closed the socket with code {code}", close_code=code)


def _broken(error: BaseException) -> ServiceFaultError:
    if isinstance(error, aiohttp.WebSocketError):
        return off_protocol(f"the service broke the protocol of the socket: {error}", close_code=error.code)
    return _gone(error)


def _gone(error: BaseException | None) -> ServiceFaultError:
    why = f" ({error})" if error is not None and str(error) else ""
    return fault(C.TRANSIENT, f"the socket ended without a goodbye{why}")
