"""Errors as the API says them (RFC 9457)."""

from msgspec import Struct

from hostler.kernel.units import Json


class Problem(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Body of every error, media type `application/problem+json`."""

    type: str
    title: str
    status: int
    code: str
    retry: str
    detail: str = ""
    request_id: str = ""
    instance: str = ""
    field: str | None = None
    """JSON pointer-like path of what is wrong."""
    retry_after: float | None = None
    facts: dict[str, Json] = {}
