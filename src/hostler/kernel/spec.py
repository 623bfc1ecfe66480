"""SPEC, the short way to say which connectors and how many: `simulation-http:2,comfyui-http:*`, or `none`."""

import re
from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import urlsplit, urlunsplit

import msgspec
from msgspec import Struct

from hostler.kernel.names import listed, nearest
from hostler.kernel.settings import ConnectorSettings, Settings

CONVENTIONAL_PORTS: Final[Mapping[str, int]] = {
    "simulation": 8299,
    "simulation-websocket": 8399,
    "simulation-grpc": 8499,
    "comfyui": 8188,
    "a1111": 7860,
    "ollama": 11434,
    "nlp": 8001,
}
"""First port of a service that names none, by connector or service; instance n listens on port + n."""

BY_GPU: Final = frozenset({"simulation", "comfyui", "a1111"})
"""Services of which one instance runs on each GPU: instance n, at port + n of this machine, is that of GPU n."""

COUNT_MAX: Final = 256
_ANY_PORT: Final = 80
_HERE: Final = frozenset({"127.0.0.1", "localhost", "::1"})
_ITEM = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9_.-]*)(?::(?P<count>\d{1,4}|\*)|#(?P<index>\d{1,4}))?")


class SpecItem(Struct, frozen=True, kw_only=True):
    """One part of a SPEC."""

    name: str
    count: int = 1
    index: int | None = None
    """`name#2`: instance 2 alone, counted from 0."""
    all: bool = False
    """`name:*`: every endpoint that discovery knows, followed as they come and go."""

    @property
    def indexes(self) -> range:
        """Return which instances are meant."""
        return range(self.count) if self.index is None else range(self.index, self.index + 1)


class Instance(Struct, frozen=True, kw_only=True):
    """One connector to one endpoint, ready to be built."""

    name: str
    """Its entry in `connectors`, or the connector's own name."""
    index: int
    settings: ConnectorSettings
    """With the URL of this instance."""
    followed: bool = False
    """It stands for every endpoint that discovery knows; its URL is only where they would be by convention."""


def parse_spec(text: str) -> tuple[tuple[SpecItem, ...], tuple[str, ...]]:
    """Return the parts of a SPEC and what is wrong with it; `none` and nothing are no parts."""
    if text.strip() in ("", "none"):
        return (), ()
    items: list[SpecItem] = []
    problems: list[str] = []
    for part in (part.strip() for part in text.split(",")):
        match = _ITEM.fullmatch(part)
        every = match is not None and match["count"] == "*"
        count = int(match["count"] or 1) if match and not every else int(every)
        if match is None or not 1 <= count <= COUNT_MAX:
            problems.append(f"expected name, name:count (1 to {COUNT_MAX}), name:* or name#index, got {part!r}")
            continue
        index = int(match["index"]) if match["index"] else None
        items.append(SpecItem(name=match["name"], count=count, index=index, all=every))
    return tuple(items), tuple(problems)


def resolve_spec(
    text: str, *, name: str, settings: Settings, known: Sequence[str]
) -> tuple[tuple[tuple[SpecItem, tuple[Instance, ...]], ...], tuple[str, ...]]:
    """Return for each part of the SPEC the instances that it stands for, and every problem.

    A name is a worker type, an entry of `connectors`, or a connector; this is the only place that decides it.
    `name` is what the operator typed it into (`--workers`, `HOSTLER_WORKER_CONNECTORS`); `known` are the
    connectors that exist.
    """
    items, wrong = parse_spec(text)
    problems = [f"{name}: {problem}" for problem in wrong]
    resolved: list[tuple[SpecItem, tuple[Instance, ...]]] = []
    for item in items:
        entries = _entries(item.name, settings, known)
        if entries is None:
            types = {*settings.worker_types, *settings.connectors}
            problems.append(
                f"{name}: {item.name!r} is neither a worker type ({listed(types)})"
                f" nor a connector ({listed(known)}){nearest(item.name, (*types, *known))}"
            )
            continue
        instances: list[Instance] = []
        for entry, chosen in entries:
            followed = item.all or chosen.dns is not None
            trouble = _trouble(entry, chosen, known, followed=followed)
            if trouble:
                problems.append(f"{name}: {trouble}")
                continue
            instances.extend(_instance(entry, chosen, index, followed=followed) for index in item.indexes)
        resolved.append((item, tuple(instances)))
    return tuple(resolved), tuple(problems)


def conventional_port(connector: str) -> int | None:
    """Return the first port of a connector's service by convention, or None when there is none."""
    return CONVENTIONAL_PORTS.get(connector) or CONVENTIONAL_PORTS.get(connector.split("-", maxsplit=1)[0])


def runs_here(connector: str) -> bool:
    """Tell whether a connector starts its service itself, as a process beside the worker, and so needs no address."""
    return connector.rpartition("-")[2] == "process"


def port_of(url: str) -> int:
    """Return the port of a URL, named or implied by its scheme."""
    parts = urlsplit(url)
    return parts.port or (443 if parts.scheme in ("https", "wss", "grpcs") else 80)


def _entries(name: str, settings: Settings, known: Sequence[str]) -> list[tuple[str, ConnectorSettings]] | None:
    members = settings.worker_types.get(name, (name,))
    found: list[tuple[str, ConnectorSettings]] = []
    for member in members:
        if member in settings.connectors:
            found.append((member, settings.connectors[member]))
        elif member in known:
            found.append((member, ConnectorSettings(connector=member)))
        else:
            return None
    return found


def _trouble(entry: str, chosen: ConnectorSettings, known: Sequence[str], *, followed: bool) -> str | None:
    if chosen.connector not in known:
        return (
            f"connectors.{entry}.connector: unknown connector {chosen.connector!r}, known are {listed(known)}"
            f"{nearest(chosen.connector, known)}"
        )
    anywhere = runs_here(chosen.connector) or followed
    if chosen.url is None and not anywhere and conventional_port(chosen.connector) is None:
        return f"{entry} has no address: set connectors.{entry}.url in hostler.toml"
    return None


def _instance(entry: str, chosen: ConnectorSettings, index: int, *, followed: bool) -> Instance:
    if runs_here(chosen.connector):
        place = chosen.url or (f"process:///{entry}/{index}" if index else f"process:///{entry}")
        return Instance(name=entry, index=index, settings=msgspec.structs.replace(chosen, url=place))
    url = chosen.url or f"http://127.0.0.1:{conventional_port(chosen.connector) or _ANY_PORT}"
    moved = url if followed else moved_port(url, index * chosen.port_increment)
    labels = chosen.labels if followed else {**_gpu(chosen.connector, url, index), **chosen.labels}
    settings = msgspec.structs.replace(chosen, url=moved, labels=labels)
    return Instance(name=entry, index=index, settings=settings, followed=followed)


def _gpu(connector: str, url: str, index: int) -> dict[str, str]:
    """Return the label that says which GPU an instance is on, where the convention of ports says it."""
    here = urlsplit(url).hostname in _HERE and port_of(url) == conventional_port(connector)
    return {"gpu": str(index)} if here and connector.split("-", maxsplit=1)[0] in BY_GPU else {}


def moved_port(url: str, by: int) -> str:
    """Return the URL with its port raised by `by`."""
    if by == 0:
        return url
    parts = urlsplit(url)
    user, at, _ = parts.netloc.rpartition("@")
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return urlunsplit(parts._replace(netloc=f"{user}{at}{host}:{port_of(url) + by}"))
