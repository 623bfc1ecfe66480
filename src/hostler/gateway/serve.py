"""Serves the gateway on one loopback address, inside the process that wires it."""

import asyncio
import contextlib
import errno
import socket
from collections.abc import Callable, Generator
from typing import Final

import litestar
import uvicorn

from hostler.gateway.app import HUB
from hostler.gateway.doorman import is_loopback
from hostler.gateway.hub import Hub
from hostler.kernel.errors import AddressInUseError, SettingsError
from hostler.kernel.units import Seconds
from hostler.telemetry.logs import logger

_LOG = logger("gateway")
GRACE: Final[Seconds] = 5.0
"""How long requests may still take after the order to stop; long polls and streams end at once."""
KEEP_ALIVE: Final[Seconds] = 75.0
BACKLOG: Final = 1024
HEADERS_LIMIT: Final = 16_384
"""Bytes of one request's head."""


class _Server(uvicorn.Server):
    """Leaves signals to the process, and ends streams before it waits for requests."""

    def __init__(self, config: uvicorn.Config, hub: Hub) -> None:
        super().__init__(config)
        self._hub = hub
        self.began = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.began.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._hub.close()
        await super().shutdown(sockets)


def split_address(bind: str) -> tuple[str, int]:
    """Return host and port of `HOST:PORT` or `[IPV6]:PORT`; `SettingsError`."""
    host, colon, port = bind.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65535 or not host:  # noqa: PLR2004 - the largest port
        raise SettingsError(
            f"gateway.bind: {bind!r} is no address; expected HOST:PORT as 127.0.0.1:7700.",
            field="gateway.bind",
            problems=(),
        )
    return host.removeprefix("[").removesuffix("]"), int(port)


def listen(bind: str) -> socket.socket:
    """Return a socket that listens on a loopback address.

    `SettingsError` for any other address, `AddressInUseError` when somebody listens there already.
    """
    host, port = split_address(bind)
    if not is_loopback(host):
        raise SettingsError(
            f"gateway.bind: {host} is not a loopback address. Without API keys anybody who reaches it could run "
            "jobs, so it is refused; bind 127.0.0.1 and let a proxy that checks who asks stand before it.",
            field="gateway.bind",
            problems=(),
        )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            raise AddressInUseError(
                f"{bind} is in use: another process listens there. Stop it, or choose another address with --bind.",
                address=bind,
            ) from error
        raise SettingsError(
            f"gateway.bind: {bind} cannot be used: {error.strerror}.", field="gateway.bind", problems=()
        ) from error
    return sock


def url_of(sock: socket.socket) -> str:
    """Return the URL that a listening socket serves."""
    host, port = sock.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


async def serve(
    app: litestar.Litestar,
    bind: str,
    *,
    ready: Callable[[str], None] | None = None,
    stop: asyncio.Event | None = None,
) -> None:
    """Serve until `stop` is set or the task is cancelled; then end streams at once and requests within `GRACE`.

    `bind` is `HOST:PORT`, port 0 takes a free one; `ready` gets the URL once requests are taken. Signals are
    the caller's. `SettingsError` and `AddressInUseError` come before anything has started.
    """
    sock = listen(bind)
    url = url_of(sock)
    config = uvicorn.Config(
        app,
        loop="none",
        http="httptools",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_keep_alive=int(KEEP_ALIVE),
        timeout_graceful_shutdown=int(GRACE),
    )
    hub: Hub = app.state[HUB]
    server = _Server(config, hub)
    serving = asyncio.create_task(server.serve(sockets=[sock]), name="gateway-serve")
    waiting = asyncio.create_task(_until(stop), name="gateway-stop")
    try:
        began = asyncio.create_task(server.began.wait())
        await asyncio.wait({serving, began}, return_when=asyncio.FIRST_COMPLETED)
        began.cancel()
        if server.began.is_set():
            _LOG.info("gateway.listening", url=url)
            if ready is not None:
                ready(url)
        await asyncio.wait({serving, waiting}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()
        server.should_exit = True
        await asyncio.shield(serving)
        sock.close()
        _LOG.info("gateway.stopped")


async def _until(stop: asyncio.Event | None) -> None:
    await (stop or asyncio.Event()).wait()
