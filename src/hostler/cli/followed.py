"""Which endpoints a worker serves: those that are configured, and those that are followed as they come and go."""

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import msgspec

from hostler.cli.config import Loaded, account_of, build_connector
from hostler.contracts.service import Source
from hostler.dispatch.hints import Hints
from hostler.dispatch.limited import Limited
from hostler.kernel.settings import Settings
from hostler.kernel.spec import Instance, port_of
from hostler.ports.blobs import Blobs
from hostler.ports.connector import Connector
from hostler.ports.discovery import Placed
from hostler.ports.limiter import Limiter
from hostler.ports.registry import EndpointRegistry
from hostler.registry.discovery import EngineDiscovery, Followed, Where, labelled
from hostler.registry.names import Names, Target


def only_followed(instance: Instance, settings: Settings) -> bool:
    """Tell whether an entry stands for found endpoints alone: it names a DNS name, or no address of its own."""
    entry = settings.connectors.get(instance.name)
    return instance.followed and (entry is None or entry.url is None or entry.dns is not None)


def placed(instance: Instance, loaded: Loaded, blobs: Blobs, limiter: Limiter) -> Placed:
    """Return the connector of a configured endpoint, with where its address came from."""
    origin = loaded.reading.origins.get(f"connectors.{instance.name}.url")
    entry = loaded.settings.connectors.get(instance.name)
    source = Source.CONVENTION if entry is None or entry.url is None else Source.STATIC
    if origin is not None and origin == Path(loaded.settings.mapping or "").name:
        source = Source.MAPPING
    connector = limited(instance, loaded.settings, limiter, blobs=blobs)
    return Placed(connector=connector, url=shown(instance.settings.url or ""), source=source)


def limited(
    instance: Instance,
    settings: Settings,
    limiter: Limiter,
    *,
    blobs: Blobs | None = None,
    endpoint: str | None = None,
) -> Connector:
    """Return the connector of an instance, kept to the limits of its entry and to what its endpoint says of its own."""
    hints = Hints(limiter)
    connector = build_connector(instance, settings, blobs=blobs, endpoint=endpoint, on_rate_hint=hints.hear)
    return Limited(connector, limiter, account_of(connector, instance), hints=hints)


def shown(url: str) -> str:
    """Return a URL without the user and password that it may carry."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def discovery_of(
    registry: EndpointRegistry, instances: Sequence[Instance], settings: Settings, blobs: Blobs, limiter: Limiter
) -> EngineDiscovery:
    """Return what follows the sources of these entries, and operators' marks for all."""
    return EngineDiscovery(
        registry,
        tuple(_followed(instance, settings, blobs, limiter) for instance in instances),
        names=Names(settings.discovery.nameservers),
        interval=settings.discovery.interval,
    )


def _followed(instance: Instance, settings: Settings, blobs: Blobs, limiter: Limiter) -> Followed:
    chosen = instance.settings

    def build(where: Where) -> Connector:
        trusted = where.id is None or chosen.trust_announced
        changed = msgspec.structs.replace(
            chosen,
            url=where.url,
            labels=labelled(chosen.labels, where),
            slots=where.slots or chosen.slots,
            api_key_env=chosen.api_key_env if trusted else None,
        )
        moved = msgspec.structs.replace(instance, settings=changed)
        return limited(moved, settings, limiter, blobs=blobs, endpoint=where.id)

    return Followed(
        name=instance.name,
        connector=chosen.connector,
        build=build,
        kinds=build_connector(instance, settings).kinds(),
        announced=chosen.dns is None,
        dns=chosen.dns,
        url_of=lambda target: _url_of(target, chosen.url or ""),
    )


def _url_of(target: Target, pattern: str) -> str:
    parts = urlsplit(pattern)
    host = f"[{target.host}]" if ":" in target.host else target.host
    port = port_of(pattern) if target.port is None else target.port
    return urlunsplit(parts._replace(netloc=f"{host}:{port}"))
