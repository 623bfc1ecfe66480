"""A picture of work that goes on: shown while it is fresh, never kept."""

from typing import Final, Literal

from msgspec import Struct

from hostler.kernel.errors import NotFoundError
from hostler.kernel.units import Bytes, Seconds

PREVIEW_LIMIT: Final[Bytes] = 65_536
"""Largest picture that is shown; the engine holds one for each running job."""
PREVIEW_LIFE: Final[Seconds] = 60.0
"""How long one is shown when none follows it."""
PREVIEW_EVERY: Final[Seconds] = 1.0
"""A job's picture changes at most this often; the latest wins."""

PictureType = Literal["image/png", "image/jpeg", "image/webp"]


class Preview(Struct, frozen=True, kw_only=True):
    """How the work looks now; made by `preview_of`, which judges it."""

    media_type: PictureType
    data: bytes


def preview_of(data: bytes) -> Preview | None:
    """Return a picture by what its own first bytes say that it is; None when it is too large, or none of these."""
    if len(data) > PREVIEW_LIMIT:
        return None
    kind = _type_of(data)
    return None if kind is None else Preview(media_type=kind, data=data)


def _type_of(data: bytes) -> PictureType | None:
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if data.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    return "image/webp" if data.startswith(b"RIFF") and data[8:12] == b"WEBP" else None


def no_preview(job_id: str) -> NotFoundError:
    """Return the error for a job without a picture."""
    return NotFoundError(
        f"{job_id} has no preview now: only work that runs has one, where its service shows any", job=job_id
    )
