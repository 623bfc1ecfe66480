"""What a connector is given when it is built."""

from collections.abc import Callable

from msgspec import Struct, field

from hostler.contracts.rates import RateHint
from hostler.kernel.settings import HttpSettings
from hostler.kernel.units import Json, Name
from hostler.ports.blobs import Blobs

OnRateHint = Callable[[RateHint], None]
"""Told, in the event loop, of every answer that says something about limits; neither blocks nor raises."""


class ConnectorConfig(Struct, frozen=True, kw_only=True):
    """One endpoint to drive; `options` are judged by the connector's own type (`parse_options`)."""

    url: str
    """Base URL: scheme, host, port, perhaps a path; never a credential."""
    endpoint: str
    """Id of the endpoint; two workers that name the same one share its amounts."""
    slots: int | None = None
    """Work in flight; what the endpoint says unless set."""
    api_key: str | None = None
    """Sent as a bearer token; never logged, never part of a failure."""
    labels: dict[Name, str] = field(default_factory=dict[Name, str])
    options: dict[str, Json] = field(default_factory=dict[str, Json])
    http: HttpSettings = field(default_factory=HttpSettings)
    blobs: Blobs | None = None
    """Where files of jobs lie that are too large for payloads and results; none where nothing runs jobs."""
    on_rate_hint: OnRateHint | None = None
    """So that whoever limits calls can slow down before the service refuses one."""

    def __repr__(self) -> str:
        return f"ConnectorConfig(url={self.url!r}, endpoint={self.endpoint!r})"
