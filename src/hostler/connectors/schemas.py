"""From the types of payloads and results to the rows that kinds declare, and back to values."""

from typing import Any, TypeVar

import msgspec
from msgspec import Raw, Struct

from hostler.connectors.faults import fault
from hostler.contracts.failure import FailureClass
from hostler.contracts.portable import portable
from hostler.contracts.queue import KindSpec
from hostler.contracts.timeouts import SERVICE_TIMEOUTS, Timeouts
from hostler.kernel.errors import InvalidError
from hostler.kernel.fields import known_fields
from hostler.kernel.units import Json

T = TypeVar("T", bound=Struct)


def kind_spec(
    name: str,
    *,
    queue: str,
    about: str,
    service: str,
    connector: str,
    payload: type[Struct],
    result: Any = None,
    timeouts: Timeouts = SERVICE_TIMEOUTS,
    read: bool | None = None,
    affinity: tuple[str, ...] | None = None,
) -> KindSpec:
    """Return the row of a kind; a result without a type takes any JSON."""
    return KindSpec(
        name=name,
        queue=queue,
        about=about,
        service=service,
        payload=portable(msgspec.json.schema(payload)),
        result=None if result is None else portable(msgspec.json.schema(result)),
        timeouts=timeouts,
        read=read,
        affinity=affinity,
        declared_by=connector,
    )


def open_payload(payload: Raw, shape: type[T]) -> T:
    """Open a sealed payload; raises the fault `invalid_input` with the place of what is wrong."""
    try:
        return msgspec.json.decode(payload, type=shape)
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise fault(FailureClass.INVALID_INPUT, f"the payload does not fit its kind: {error}") from None


def parse_options(options: dict[str, Json], shape: type[T], *, connector: str) -> T:
    """Judge a connector's own options; `InvalidError` names what is wrong."""
    try:
        return msgspec.convert(options, shape)
    except msgspec.ValidationError as error:
        words = f"options of connector {connector}: {error}{known_fields(error, shape)}"
        raise InvalidError(words, field="options") from None
