"""Reading an engine's URL: one server, the sentinels that know one, or some nodes of a cluster."""

import re
import ssl
from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from msgspec import Struct
from redis.asyncio.connection import AbstractConnection, Connection, parse_url

from hostler.kernel.errors import SettingsError
from hostler.valkeyio.connections import CLASSES, Address

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

_SENTINELS = re.compile(r"(?:redis|valkey)(s?)\+sentinel\Z")
_CLUSTER = re.compile(r"(?:redis|valkey)(s?)\+cluster\Z")
_PORT_MOST = 65535
_OF_SENTINELS = {"sentinel_username": "username", "sentinel_password": "password"}


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
        raise _wrong(
            url,
            f"begins with {parts.scheme or 'nothing'}://, not unix://, redis://, rediss://, redis+sentinel:// or "
            "redis+cluster://",
        )
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
    return {**found, "connection_class": CLASSES[base]}


class SentinelUrl(Struct, frozen=True, kw_only=True):
    """A URL that names sentinels, taken apart."""

    url: str
    """As it was given."""
    service: str
    places: tuple[Address, ...]
    """Of the sentinels."""
    server: str
    """URL of a server of the service, but for the place."""

    def sentinel(self, place: Address) -> str:
        """Return the URL of one of the sentinels."""
        parts = urlsplit(self.url)
        options = dict(parse_qsl(parts.query))
        kept = {name: value for name, value in options.items() if name.startswith("ssl_")}
        kept |= {name: options[given] for given, name in _OF_SENTINELS.items() if given in options}
        return f"{urlsplit(self.server).scheme}://{place_text(place)}?{urlencode(kept)}"


def place_text(place: Address) -> str:
    """Return HOST:PORT."""
    host, port = place
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def sentinel_url(url: str) -> SentinelUrl | None:
    """Take `redis+sentinel://[user:password@]host:port[,host:port...]/service[?...]` apart; None for any other URL.

    User and password are the servers'; those of the sentinels are the options `sentinel_username` and
    `sentinel_password`. `valkey+sentinel` says the same; with `rediss` or `valkeys` all connections are TLS.
    """
    parts = urlsplit(url)
    if (found := _SENTINELS.match(parts.scheme)) is None:
        return None
    service = parts.path.strip("/")
    if not service or "/" in service:
        raise _wrong(url, "names no service: end it with the name under which the sentinels watch it, as /mymaster")
    places = _places(url, "sentinel")
    options = [(name, value) for name, value in parse_qsl(parts.query) if name not in _OF_SENTINELS]
    server = _server(url, f"redis{found[1]}", places[0], options)
    return SentinelUrl(url=url, service=service, places=places, server=server)


class ClusterUrl(Struct, frozen=True, kw_only=True):
    """A URL that names nodes of a cluster, taken apart."""

    places: tuple[Address, ...]
    """Of the nodes that are asked first; they know the others."""
    server: str
    """URL of a node, but for the place."""

    def node(self, place: Address) -> str:
        """Return the URL of one of the nodes."""
        parts = urlsplit(self.server)
        credentials, at, _ = parts.netloc.rpartition("@")
        return f"{parts.scheme}://{credentials}{at}{place_text(place)}?{parts.query}"


def cluster_url(url: str) -> ClusterUrl | None:
    """Take `redis+cluster://[user:password@]host:port[,host:port...][?...]` apart; None for any other URL.

    `valkey+cluster` says the same; with `rediss` or `valkeys` all connections are TLS.
    """
    parts = urlsplit(url)
    if (found := _CLUSTER.match(parts.scheme)) is None:
        return None
    options = parse_qsl(parts.query)
    if parts.path.strip("/") or "db" in dict(options):
        raise _wrong(url, "names a database: a cluster has only one, so leave it out")
    places = _places(url, "node")
    return ClusterUrl(places=places, server=_server(url, f"redis{found[1]}", places[0], options))


def _places(url: str, what: str) -> tuple[Address, ...]:
    named = urlsplit(url).netloc.rpartition("@")[2]
    places = tuple(_place(url, word) for word in named.split(",") if word)
    if not places:
        raise _wrong(url, f"names no {what}: list them as host:port,host:port,host:port")
    return places


def _server(url: str, scheme: str, place: Address, options: Sequence[tuple[str, str]]) -> str:
    """Return the URL of one server; `SettingsError` about the one that was typed when it is wrong."""
    credentials, at, _ = urlsplit(url).netloc.rpartition("@")
    server = f"{scheme}://{credentials}{at}{place_text(place)}?{urlencode(options)}"
    try:
        connection_options(server)
    except SettingsError as error:
        raise _wrong(url, error.message.partition(f"{redact(server)} ")[2]) from error
    return server


def _place(url: str, word: str) -> Address:
    host, colon, port = word.rpartition(":")
    if not colon or not host.strip("[]") or not port.isdecimal() or not 0 < int(port) <= _PORT_MOST:
        raise _wrong(url, f"has {word!r} where host:port is wanted")
    return host.strip("[]"), int(port)


def check_files(url: str) -> None:
    """Read the certificates and the key that an engine's URL names; `SettingsError` when they cannot be used.

    Blocks on the disk. The client itself would only say that it could not connect.
    """
    options = dict(parse_qsl(urlsplit(url).query))
    if not options.keys() & _FILES:
        return
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
