"""Everything that the routes speak to, handed to them in one piece."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from hostler.gateway.hub import Hub
from hostler.kernel.settings import Settings
from hostler.ports.blobs import Blobs
from hostler.ports.broker import Desk, Foreman
from hostler.ports.limiter import Limiter
from hostler.ports.registry import EndpointRegistry, Registry
from hostler.ports.results import Results
from hostler.telemetry.metrics import LabelValues, Metrics

Gauges = Mapping[str, Mapping[LabelValues, float]]
"""Values of gauges that only the wiring knows (the engine's pools), by the catalogue's names."""


def nothing_degraded() -> tuple[str, ...]:
    """Say that nothing is degraded."""
    return ()


def no_gauges() -> Gauges:
    """Say that the wiring has nothing to add."""
    return {}


@dataclass(frozen=True, kw_only=True)
class Rooms:
    """The ports, the settings and the gateway's own parts."""

    desk: Desk
    foreman: Foreman
    registry: Registry
    endpoints: EndpointRegistry
    blobs: Blobs
    results: Results
    limiter: Limiter
    settings: Settings
    metrics: Metrics
    hub: Hub
    degraded: Callable[[], tuple[str, ...]] = field(default=nothing_degraded)
    gauges: Callable[[], Gauges] = field(default=no_gauges)
