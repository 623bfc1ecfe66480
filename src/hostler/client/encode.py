"""Turns what a program has into what the gateway takes."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, TypedDict

import msgspec

from hostler.client.wire import Wire
from hostler.contracts.job import INLINE_LIMIT, JobRequest
from hostler.contracts.needs import Avoid, Needs
from hostler.contracts.reference import as_payload
from hostler.contracts.timeouts import Timeouts
from hostler.kernel.errors import InvalidError
from hostler.kernel.fields import known_fields
from hostler.kernel.units import Seconds


class Options(TypedDict, total=False):
    """What may be said about a job besides its kind and payload; see `contracts.job.JobRequest`."""

    queue: str
    needs: Needs | Mapping[str, Any]
    avoid: Avoid | Mapping[str, Any]
    priority: int
    delay: Seconds | timedelta
    run_at: datetime
    deadline: datetime
    idempotency_key: str
    tenant: str
    concurrency_key: str
    timeouts: Timeouts | Mapping[str, Any]
    webhook: str
    labels: Mapping[str, str]


def to_json(payload: object) -> bytes:
    """Return JSON of anything that has a JSON shape: plain values, structs, dataclasses, pydantic models."""
    try:
        return msgspec.json.encode(payload, enc_hook=_foreign)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidError(f"payload: it has no JSON shape: {error}.", field="payload") from error


def _foreign(value: Any) -> Any:
    dump = getattr(value, "model_dump", None)
    if dump is None:
        raise TypeError(f"{type(value).__name__} cannot be written as JSON")
    return dump(mode="json")


async def request_of(wire: Wire, kind: str, payload: object, options: Mapping[str, Any]) -> JobRequest:
    """Return the request; a payload over 256 KiB is uploaded first and referred to.

    `InvalidError` when it does not fit, before anything was sent.
    """
    given = dict(options)
    if isinstance(given.get("delay"), timedelta):
        given["delay"] = given["delay"].total_seconds()
    try:
        request = msgspec.convert({"kind": kind, **msgspec.to_builtins(given)}, JobRequest)
    except msgspec.ValidationError as error:
        raise InvalidError(f"The job does not fit: {error}{known_fields(error, JobRequest)}.") from error
    sealed = to_json(payload)
    if len(sealed) > INLINE_LIMIT:
        ref = await wire.upload(sealed, media_type="application/json")
        return msgspec.structs.replace(request, payload=as_payload(ref))
    return msgspec.structs.replace(request, payload=msgspec.Raw(sealed))
