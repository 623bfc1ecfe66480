"""One gRPC channel to one endpoint: bounded in time and size, its failures already classed."""

import asyncio
import atexit
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Generic, Self, TypeVar

from yarl import URL

from hostler.connectors.faults import ServiceFaultError, fault, timed_out
from hostler.connectors.transports.conversation import LIMITS, Limits, held_to
from hostler.connectors.transports.grpc_faults import failure_of_exception, failure_of_status, is_status
from hostler.connectors.transports.protobuf import Method, extra
from hostler.contracts.failure import FailureClass, Stage
from hostler.kernel.allowance import allowance
from hostler.kernel.errors import InvalidError
from hostler.kernel.units import Bytes, Seconds
from hostler.kernel.version import __version__
from hostler.policy import deadline

T = TypeVar("T")

MESSAGE_LIMIT: Final[Bytes] = 16_777_216
"""Largest message, either way."""
METADATA_LIMIT: Final[Bytes] = 65_536
CONVERSATION_MOST: Final[Seconds] = 3600.0
RECONNECT_MOST: Final[Seconds] = 1.0
"""The library waits ever longer between two tries to connect; jobs wait for what comes back, so no longer than this."""

Codes = Mapping[str, FailureClass]
NO_CODES: Final[Codes] = {}
SECURE: Final = {"grpc": False, "grpcs": True, "http": False, "https": True}
"""Schemes, and whether they mean TLS."""


def parse_target(url: str) -> tuple[str, bool]:
    """Return host and port of an endpoint's URL, and whether it speaks TLS; `InvalidError` for what is no such URL."""
    try:
        parsed = URL(url)
        port = parsed.port
    except ValueError as error:
        raise InvalidError(f"not a URL: {url!r} ({error})", field="url") from None
    if parsed.scheme not in SECURE or not parsed.host or not port:
        raise InvalidError(
            f"an endpoint's URL begins with grpc:// or grpcs:// and names host and port: {url!r}", field="url"
        )
    if parsed.user is not None or parsed.password is not None:
        raise InvalidError("a URL must not hold a credential; name its variable with api_key_env", field="url")
    if parsed.path not in {"", "/"} or parsed.query_string or parsed.fragment:
        raise InvalidError(f"a gRPC endpoint's URL ends after its port: {url!r}", field="url")
    host = f"[{parsed.host}]" if ":" in parsed.host else parsed.host
    return f"{host}:{port}", SECURE[parsed.scheme]


class GrpcConversation(Generic[T]):
    """The stream that a method answers with."""

    def __init__(
        self,
        begun: Any,
        *,
        decode: Callable[[bytes], T],
        limits: Limits,
        fault_of: Callable[[Exception], ServiceFaultError],
    ) -> None:
        self._begun = begun
        self._decode = decode
        self._limits = limits
        self._fault_of = fault_of

    async def messages(self) -> AsyncGenerator[T]:
        """Yield messages, whole and in order, until the server ends the stream well."""
        async with aclosing(held_to(self._limits, self._data())) as messages:
            async for message in messages:
                yield self._decode(message)

    async def _data(self) -> AsyncGenerator[bytes]:
        timer = asyncio.timeout(self._limits.opening)
        try:
            async with timer:
                await self._awaited(self._begun.initial_metadata())
        except TimeoutError:
            raise timed_out(Stage.FIRST_BYTE, self._limits.opening) from None
        while isinstance(message := await self._awaited(self._begun.read()), bytes):
            yield message

    async def _awaited(self, answer: Awaitable[Any]) -> Any:
        try:
            return await answer
        except asyncio.CancelledError:
            _pass_on_or_fail()
            raise
        except Exception as error:  # whatever the library raises becomes a failure
            raise self._fault_of(error) from error


class GrpcTransport:
    """Speaks gRPC to one endpoint; it knows paths and bytes, and no service. Raises nothing but `ServiceFaultError`.

    Every call has a deadline, which the server is told, and tells how much time is left for the work that it is part
    of; a call that is given up is cancelled there too. Nothing is
    retried here, no proxy of the environment is used. A credential travels as metadata and is blotted out, byte by
    byte, wherever the server repeats it.
    """

    def __init__(self, base: str, *, api_key: str | None = None, limit: Bytes = MESSAGE_LIMIT) -> None:
        """Take the URL; `limit` is the largest message. `MissingExtraError` where gRPC is not installed."""
        self.target, self.secure = parse_target(base)
        self._grpc = extra("grpc")
        self._aio = extra("grpc.aio")
        self._secret = api_key.encode() if api_key else None
        self._metadata: tuple[tuple[str, str], ...] = (("authorization", f"Bearer {api_key}"),) if api_key else ()
        self._limit = limit
        self._channel: Any = None

    async def __aenter__(self) -> Self:
        options = (
            ("grpc.max_receive_message_length", self._limit),
            ("grpc.max_send_message_length", self._limit),
            ("grpc.max_metadata_size", METADATA_LIMIT),
            ("grpc.absolute_max_metadata_size", METADATA_LIMIT),
            ("grpc.primary_user_agent", f"hostler/{__version__}"),
            ("grpc.enable_retries", 0),
            ("grpc.enable_http_proxy", 0),
            ("grpc.service_config_disable_resolution", 1),
            ("grpc.use_local_subchannel_pool", 1),  # one connector's broken connection is not another's
            ("grpc.initial_reconnect_backoff_ms", 50),
            ("grpc.min_reconnect_backoff_ms", 50),
            ("grpc.max_reconnect_backoff_ms", int(RECONNECT_MOST * 1000)),
        )
        _keep_open()
        if self.secure:
            roots = await asyncio.to_thread(_roots)
            trust = self._grpc.ssl_channel_credentials(root_certificates=roots)
            self._channel = self._aio.secure_channel(self.target, trust, options=options)
        else:
            self._channel = self._aio.insecure_channel(self.target, options=options)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        channel, self._channel = self._channel, None
        if channel is not None:
            await channel.close(grace=None)

    async def call(
        self,
        method: Method[T],
        values: Mapping[str, Any],
        *,
        within: Seconds,
        stage: Stage = Stage.CONNECT,
        codes: Codes = NO_CODES,
    ) -> T:
        """Call a method that answers once, in `within` seconds, blamed on `stage`."""
        request = self._request(method, values, within, stage)
        begun = self._opened().unary_unary(method.path)(request, timeout=within, metadata=self._told_too())
        try:
            answer = await begun
        except asyncio.CancelledError:
            _pass_on_or_fail()
            raise
        except Exception as error:  # whatever the library raises becomes a failure
            raise self._fault(error, stage=stage, seconds=within, codes=codes) from error
        finally:
            begun.cancel()
        return method.decode(self._blotted(answer))

    @asynccontextmanager
    async def stream(
        self,
        method: Method[T],
        values: Mapping[str, Any],
        *,
        within: Seconds,
        stage: Stage = Stage.RUN,
        limits: Limits = LIMITS,
        codes: Codes = NO_CODES,
    ) -> AsyncGenerator["GrpcConversation[T]"]:
        """Call a method that answers with a stream, of at most `within` seconds, blamed on `stage`.

        Leaving the context cancels it, here and in the server. `limits.opening` bounds the wait for the head of the
        answer, which many servers send with their first message.
        """
        request = self._request(method, values, within, stage)
        begun = self._opened().unary_stream(method.path)(request, timeout=within, metadata=self._told_too())

        def fault_of(error: Exception) -> ServiceFaultError:
            return self._fault(error, stage=stage, seconds=within, codes=codes)

        try:
            yield GrpcConversation(
                begun, decode=lambda data: method.decode(self._blotted(data)), limits=limits, fault_of=fault_of
            )
        finally:
            begun.cancel()

    def conversation(
        self,
        target: str,
        opening: bytes = b"",
        *,
        limits: Limits = LIMITS,
        within: Seconds = CONVERSATION_MOST,
        codes: Codes = NO_CODES,
    ) -> AbstractAsyncContextManager["GrpcConversation[bytes]"]:
        """Call a method by its path, whose request is the opening and whose answer is a stream of messages."""
        method = Method(path=target, encode=lambda _: opening, decode=self._told)
        return self.stream(method, {}, within=within, limits=limits, codes=codes)

    def _request(self, method: Method[Any], values: Mapping[str, Any], within: Seconds, stage: Stage) -> bytes:
        if within <= 0:
            raise timed_out(stage, within)
        request = method.encode(values)
        if len(request) > self._limit:
            text = f"a message of {len(request)} bytes is over the limit of {self._limit}"
            raise fault(FailureClass.INVALID_INPUT, text)
        return request

    def _told_too(self) -> tuple[tuple[str, str], ...]:
        """Return what goes with every call; `grpc-timeout` is the call's own limit, so the work's goes beside it."""
        return (*self._metadata, *((name.lower(), text) for name, text in deadline.headers(allowance()).items()))

    def _opened(self) -> Any:
        if self._channel is None:
            raise fault(FailureClass.INTERNAL, "the connector is not open")
        return self._channel

    def _fault(self, error: Exception, *, stage: Stage, seconds: Seconds, codes: Codes) -> ServiceFaultError:
        if not is_status(error):
            return ServiceFaultError(failure_of_exception(error))
        said: Any = error
        message = str(said.details() or "")
        if self._secret is not None:
            message = message.replace(self._secret.decode(), "***")
        trailers = [
            (str(name), self._blotted(value if isinstance(value, bytes) else str(value).encode()))
            for name, value in said.trailing_metadata() or ()
        ]
        return ServiceFaultError(
            failure_of_status(said.code().name, message, trailers, stage=stage, seconds=seconds, codes=codes)
        )

    def _told(self, data: bytes) -> bytes:
        return data if self._secret is None else data.replace(b"*" * len(self._secret), b"***")

    def _blotted(self, data: bytes) -> bytes:
        """Take the credential out of what a server repeats; as many bytes as before, so messages stay whole."""
        return data if self._secret is None else data.replace(self._secret, b"*" * len(self._secret))


@cache
def _keep_open() -> None:
    """Keep the library's thread until the process ends; it would end with the last channel and block the event loop."""
    aio = extra("grpc.aio")
    aio.init_grpc_aio()
    atexit.register(aio.shutdown_grpc_aio)


def _pass_on_or_fail() -> None:
    """Raise a fault where a call was cancelled because its channel or context was closed, and not with its task."""
    task = asyncio.current_task()
    if task is None or not task.cancelling():
        raise fault(FailureClass.TRANSIENT, "the connector was closed while the service was asked") from None


def _roots() -> bytes | None:
    """Return the certificates that this machine trusts (`SSL_CERT_FILE`, OpenSSL's); None for those of the library."""
    file = ssl.get_default_verify_paths().cafile
    return Path(file).read_bytes() if file else None
