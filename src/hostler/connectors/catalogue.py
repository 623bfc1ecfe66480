"""Finds connectors by their names: folder, file, class and configuration name derive from one another.

`services/<service>/<service>_<transport>.py` holds `<Service><Transport>Connector`, which is configured as
`<service>-<transport>`. A connector for any service is named after how it speaks, `<transport>` or
`<transport>-<format>`, and lives in `services/generic/`: `http_json.py` holds `HttpJsonConnector`, configured as
`http-json`. A package of somebody else registers its class under its configuration name in the entry point
group `hostler.connectors`.
"""

import difflib
import importlib
import pkgutil
import platform
import re
from collections.abc import Callable, Iterable
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType
from typing import Final, cast
from urllib.parse import urlsplit

from msgspec import Struct

from hostler.connectors import services
from hostler.connectors.config import ConnectorConfig, OnRateHint
from hostler.kernel.errors import InvalidError
from hostler.kernel.settings import HttpSettings
from hostler.kernel.units import Json
from hostler.ports.blobs import Blobs
from hostler.ports.connector import Connector

GROUP: Final = "hostler.connectors"
TRANSPORTS: Final = ("http", "websocket", "grpc", "process")
SHIPPED: Final = "hostler"
"""The package whose connectors are in `services`."""
GENERIC: Final = "generic"
"""Folder of the connectors for any service."""
OLD_NAMES: Final = MappingProxyType(
    {
        "SimulationConnector": "simulation-http",
        "simulation-connector": "simulation-http",
        "OpenAIConnector": "openai-http",
        "OpenAIResponsesConnector": "openai-http",
        "OpenAITextConnector": "openai-http",
    }
)
"""Names of the prior system that are refused, with the name to use instead."""

ConnectorFactory = Callable[[ConnectorConfig], Connector]
_WORDS: Final = r"[a-z][a-z0-9]*(?:_[a-z0-9]+)*"
_SPOKEN: Final = f"(?:{'|'.join(TRANSPORTS)})"
NAME: Final = re.compile(rf"(?P<service>(?!{_SPOKEN}-){_WORDS})-{_SPOKEN}\Z|{_SPOKEN}(?:-{_WORDS})?\Z")


class BrokenConnector(Struct, frozen=True, kw_only=True):
    """A connector that is there and cannot be used."""

    name: str
    reason: str
    source: str
    """The package that brings it."""


class Catalogue:
    """The connectors of one scan; a broken one does not touch the others."""

    def __init__(
        self, found: dict[str, type[Connector]], broken: Iterable[BrokenConnector], sources: dict[str, str]
    ) -> None:
        self.connectors = MappingProxyType(dict(sorted(found.items())))
        self.broken = tuple(sorted(broken, key=lambda one: one.name))
        self.sources = MappingProxyType(sources)
        """The package that brings a connector, by the connector's name."""

    @classmethod
    def scan(
        cls, modules: Iterable[tuple[str, str]] | None = None, points: Iterable[EntryPoint] | None = None
    ) -> "Catalogue":
        """Import every connector.

        `modules` are pairs of configuration name and module, the shipped ones unless given; `points` are
        entry points, the installed ones unless given.
        """
        found: dict[str, type[Connector]] = {}
        sources: dict[str, str] = {}
        broken: list[BrokenConnector] = []
        loaders: list[tuple[str, str, Callable[[], object]]] = [
            (name, SHIPPED, lambda name=name, module=module: getattr(importlib.import_module(module), class_name(name)))
            for name, module in (shipped_modules() if modules is None else modules)
        ]
        loaders += [
            (point.name, point.dist.name if point.dist else point.module, point.load)
            for point in (entry_points(group=GROUP) if points is None else points)
        ]
        for name, source, load in loaders:
            try:
                if name in found:
                    raise InvalidError(f"a connector named {name} is there already")  # noqa: TRY301 - one list of reasons
                found[name] = _checked(name, load())
                sources[name] = source
            except Exception as error:  # noqa: BLE001 - whatever a foreign module raises, the others go on
                broken.append(BrokenConnector(name=name, reason=f"{type(error).__name__}: {error}", source=source))
        return cls(found, broken, sources)

    def names(self) -> tuple[str, ...]:
        """Return the names that can be built."""
        return tuple(self.connectors)

    def connector_class(self, name: str) -> type[Connector]:
        """Return the class of a configuration name, or of a class name that follows the convention."""
        configured = name if name in self.connectors else configuration_name(name) or name
        if configured in self.connectors:
            return self.connectors[configured]
        for one in self.broken:
            if one.name in {name, configured}:
                raise InvalidError(f"connector {one.name} is broken: {one.reason}", field="connector", name=name)
        if name in OLD_NAMES:
            new = OLD_NAMES[name]
            raise InvalidError(f"connector {name!r} is now {new!r}", field="connector", name=name, new=new)
        near = difflib.get_close_matches(name, self.names(), n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(self.names())}"
        raise InvalidError(f"unknown connector {name!r}; {hint}", field="connector", name=name, near=near)

    def build(
        self,
        name: str,
        *,
        url: str,
        endpoint: str | None = None,
        slots: int | None = None,
        api_key: str | None = None,
        labels: dict[str, str] | None = None,
        options: dict[str, Json] | None = None,
        http: HttpSettings | None = None,
        blobs: Blobs | None = None,
        on_rate_hint: OnRateHint | None = None,
    ) -> Connector:
        """Build a connector for one endpoint, not yet opened.

        `endpoint` is its id, made from name and URL unless given, so that all who drive one URL name it alike.
        `InvalidError` for an unknown name, a URL or options that cannot work.
        """
        found = self.connector_class(name)
        config = ConnectorConfig(
            url=url,
            endpoint=endpoint or endpoint_id(found.name, url),
            slots=slots,
            api_key=api_key,
            labels=labels or {},
            options=options or {},
            http=http or HttpSettings(),
            blobs=blobs,
            on_rate_hint=on_rate_hint,
        )
        return cast("ConnectorFactory", found)(config)


def class_name(name: str) -> str:
    """Return the class name of a configuration name: `simulation-http` is `SimulationHttpConnector`."""
    return "".join(part.capitalize() for part in re.split("[-_]", name)) + "Connector"


def configuration_name(class_: str) -> str | None:
    """Return the configuration name of a class name by the convention, or None when it does not follow it."""
    words = [word.lower() for word in re.findall(r"[A-Z][a-z0-9]*", class_)]
    if "".join(words) != class_.lower() or words[-1:] != ["connector"]:
        return None
    match words[:-1]:
        case [transport] if transport in TRANSPORTS:
            return transport
        case [transport, *form] if transport in TRANSPORTS and form:
            return f"{transport}-{'_'.join(form)}"
        case [*service, transport] if service:
            return f"{'_'.join(service)}-{transport}"
        case _:
            return None


def service_of(name: str) -> str | None:
    """Return the service in a configuration name, or None when the connector is for any service."""
    match = NAME.match(name)
    return match["service"] if match else None


def endpoint_id(name: str, url: str) -> str:
    """Return the id of an endpoint that was given none; opaque. A process is one only on its own machine."""
    parts = urlsplit(url)
    place = platform.node() if parts.scheme == "process" else parts.netloc.rpartition("@")[2]
    return f"{name}@{place}{parts.path.rstrip('/').replace('/', '~')}"


def shipped_modules() -> tuple[tuple[str, str], ...]:
    """Return configuration name and module of every connector file in `services`."""
    found: list[tuple[str, str]] = []
    for folder in pkgutil.iter_modules(services.__path__):
        if not folder.ispkg:
            continue
        package = f"{services.__name__}.{folder.name}"
        for path in services.__path__:
            for module in pkgutil.iter_modules([f"{path}/{folder.name}"]):
                name = _name_of(folder.name, module.name)
                if name is not None:
                    found.append((name, f"{package}.{module.name}"))
    return tuple(sorted(found))


def _name_of(folder: str, module: str) -> str | None:
    """Return the configuration name of a connector's file, or None for a file that holds none."""
    if folder == GENERIC:
        return module.replace("_", "-", 1) if module.partition("_")[0] in TRANSPORTS else None
    transport = module.removeprefix(f"{folder}_")
    return f"{folder}-{transport}" if transport != module else None


def _checked(name: str, found: object) -> type[Connector]:
    if not NAME.match(name):
        raise InvalidError(
            f"{name!r} is not <service>-<transport>, nor <transport>-<format> for any service, with a transport of"
            f" {', '.join(TRANSPORTS)}"
        )
    if not isinstance(found, type):
        raise InvalidError(f"{found!r} is not a class")
    if found.__name__ != class_name(name):
        raise InvalidError(f"the class of {name} is named {class_name(name)}, not {found.__name__}")
    if getattr(found, "name", None) != name:
        raise InvalidError(f"{found.__name__}.name is {getattr(found, 'name', None)!r}, not {name!r}")
    missing = [verb for verb in VERBS if not callable(getattr(found, verb, None))]
    if missing:
        raise InvalidError(f"{found.__name__} lacks {', '.join(missing)}")
    return cast("type[Connector]", found)


VERBS: Final = ("kinds", "probe", "capabilities", "submit", "observe", "reconcile", "fetch", "cancel", "release")


INSTALLED: Final = Catalogue.scan()
"""The catalogue of this installation; scanned when this module is imported, since that reads files."""


def connector_names() -> tuple[str, ...]:
    """Return the names that can be built here."""
    return INSTALLED.names()


def broken_connectors() -> tuple[BrokenConnector, ...]:
    """Return the connectors that are there and cannot be used, with their reasons."""
    return INSTALLED.broken


def connector_class(name: str) -> type[Connector]:
    """Return the class of a name; `InvalidError` with the nearest names for an unknown one."""
    return INSTALLED.connector_class(name)


def build(
    name: str,
    *,
    url: str,
    endpoint: str | None = None,
    slots: int | None = None,
    api_key: str | None = None,
    labels: dict[str, str] | None = None,
    options: dict[str, Json] | None = None,
    http: HttpSettings | None = None,
    blobs: Blobs | None = None,
    on_rate_hint: OnRateHint | None = None,
) -> Connector:
    """Build a connector for one endpoint, not yet opened; see `Catalogue.build`."""
    return INSTALLED.build(
        name,
        url=url,
        endpoint=endpoint,
        slots=slots,
        api_key=api_key,
        labels=labels,
        options=options,
        http=http,
        blobs=blobs,
        on_rate_hint=on_rate_hint,
    )
