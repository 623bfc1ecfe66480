"""What the simulated service takes and says."""

from typing import Annotated

from msgspec import Meta, Raw, Struct

from hostler.contracts.service import RemoteState
from hostler.kernel.units import Fraction, Seconds


class ImagePayload(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Payload of `image.generate`."""

    prompt: Annotated[str, Meta(min_length=1, max_length=20_000)]
    width: Annotated[int, Meta(ge=8, le=8192)] = 512
    height: Annotated[int, Meta(ge=8, le=8192)] = 512
    steps: Annotated[int, Meta(ge=1, le=10_000)] | None = None
    """The service's own number unless set."""
    seed: int | None = None
    model: str | None = None
    duration: Seconds | None = None
    """How long the run takes; the service's own unless set."""


class ImageResult(Struct, frozen=True, kw_only=True):
    """Result of `image.generate`."""

    prompt: str
    width: int
    height: int
    steps: int
    seed: int
    model: str | None
    preview_png: bytes
    """A small PNG, base64 in JSON."""


class EchoPayload(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Payload of `sim.echo`: `value` comes back as it is."""

    value: Raw
    steps: Annotated[int, Meta(ge=1, le=10_000)] | None = None
    duration: Seconds | None = None


class ErrorView(Struct, frozen=True, kw_only=True):
    """Why a run failed."""

    code: str
    message: str = ""


class RunView(Struct, frozen=True, kw_only=True):
    """How a run is."""

    id: str
    fence: int
    state: RemoteState
    fraction: Fraction | None = None
    stage: str | None = None
    message: str | None = None
    eta_s: Seconds | None = None


class RunEnd(Struct, frozen=True, kw_only=True):
    """How a run ended."""

    state: RemoteState
    result: Raw
    error: ErrorView | None = None


class HealthView(Struct, frozen=True, kw_only=True):
    """How the service is."""

    state: str
    version: str | None = None
    slots: int | None = None
    busy: int | None = None


class CapabilitiesView(Struct, frozen=True, kw_only=True):
    """What the service has."""

    kinds: tuple[str, ...]
    models: tuple[str, ...]
    slots: int
    version: str
    labels: dict[str, str] = {}
