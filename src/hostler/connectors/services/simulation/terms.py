"""What is the same whatever protocol the simulated service is driven over: kinds, codes, states."""

from typing import Final

from msgspec import Struct

from hostler.connectors.schemas import kind_spec
from hostler.connectors.services.simulation.messages import EchoPayload, ImagePayload, ImageResult
from hostler.contracts.failure import FailureClass
from hostler.contracts.queue import KindSpec
from hostler.contracts.service import EndpointState, RemoteState

SERVICE: Final = "simulation"
PAYLOADS: Final[dict[str, type[Struct]]] = {"image.generate": ImagePayload, "sim.echo": EchoPayload}

CODES: Final[dict[str, FailureClass]] = {
    "invalid_input": FailureClass.INVALID_INPUT,
    "input_conflict": FailureClass.INVALID_INPUT,
    "unknown_kind": FailureClass.CAPABILITY_MISMATCH,
    "unknown_model": FailureClass.CAPABILITY_MISMATCH,
    "unknown_job": FailureClass.LOST,
    "stale_fence": FailureClass.LOST,
    "overloaded": FailureClass.OVERLOADED,
    "loading": FailureClass.OVERLOADED,
    "burst": FailureClass.TRANSIENT,
    "internal_error": FailureClass.TRANSIENT,
    "out_of_memory": FailureClass.OUT_OF_MEMORY,
    "quota_exceeded": FailureClass.QUOTA,
    "unauthorized": FailureClass.AUTH,
    "content_refused": FailureClass.REFUSED,
}
"""The service's own codes."""

ENDPOINT_STATES: Final = {state.value: state for state in EndpointState}
ALIVE: Final = frozenset({RemoteState.PENDING, RemoteState.RUNNING, RemoteState.SUCCEEDED})
"""States of a run that a holder with a higher fence goes on with."""


def kinds_of(connector: str) -> tuple[KindSpec, ...]:
    """Return `image.generate` and `sim.echo` as a connector declares them."""
    image = kind_spec(
        "image.generate",
        queue="image",
        about="Make a picture from a prompt",
        service=SERVICE,
        connector=connector,
        payload=ImagePayload,
        result=ImageResult,
    )
    echo = kind_spec(
        "sim.echo",
        queue="image",
        about="Give a value back after a while",
        service=SERVICE,
        connector=connector,
        payload=EchoPayload,
    )
    return image, echo
