"""Pictures by `/v1/images/generations`: what comes back is looked at before it is called a picture."""

import binascii
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta, Struct

from hostler.connectors.faults import off_protocol

IMAGE: Final = "openai.image"
_KINDS: Final = ((b"\x89PNG\r\n\x1a\n", "image/png"), (b"\xff\xd8\xff", "image/jpeg"), (b"RIFF", "image/webp"))


class ImagePayload(Struct, frozen=True, kw_only=True):
    """Payload of `openai.image`; any other field of the API passes through as it is."""

    prompt: Annotated[str, Meta(min_length=1)]
    model: str | None = None
    """The connector's option `model`, else the server's own choice, unless set."""
    n: Annotated[int, Meta(ge=1, le=10)] = 1
    size: str | None = None
    """As `1024x1024`."""
    response_format: Literal["b64_json", "url"] | None = None
    """Older models and local servers answer with an address unless this says `b64_json`; newer ones refuse the word."""


class Picture(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One picture, or where it is."""

    data: bytes | None = None
    """Base64 in JSON; a result over 256 KiB lies in the blob store, like that of any job."""
    media_type: str | None = None
    url: str | None = None
    """Where the server put it, for as long as it keeps it; nobody here fetches it."""
    revised_prompt: str | None = None


class ImageResult(Struct, frozen=True, kw_only=True):
    """Result of `openai.image`: as many pictures as were asked for."""

    pictures: tuple[Picture, ...]


class PictureRow(Struct, frozen=True, kw_only=True):
    """One picture as the server says it."""

    b64_json: str | None = None
    url: str | None = None
    revised_prompt: str | None = None


class ImageAnswer(Struct, frozen=True, kw_only=True):
    """Answer of `/v1/images/generations`."""

    data: tuple[PictureRow, ...]


def pictures_of(body: bytes, *, wanted: int) -> ImageResult:
    """Return the pictures; raises the fault of too few, and of what is none."""
    try:
        rows = msgspec.json.decode(body, type=ImageAnswer).data
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise off_protocol(f"the service sent pictures that are not its protocol: {error}") from None
    if len(rows) < wanted:
        raise off_protocol(f"the service sent {len(rows)} pictures where {wanted} were asked for")
    return ImageResult(pictures=tuple(_picture(row) for row in rows))


def _picture(row: PictureRow) -> Picture:
    if row.b64_json is None:
        if not row.url:
            raise off_protocol("the service sent a picture that is neither data nor an address")
        return Picture(url=row.url, revised_prompt=row.revised_prompt)
    try:
        data = binascii.a2b_base64(row.b64_json.encode(), strict_mode=True)
    except (binascii.Error, UnicodeError) as error:
        raise off_protocol(f"the service sent a picture that is not base64: {error}") from None
    media_type = next((kind for start, kind in _KINDS if data.startswith(start)), None)
    if media_type is None:
        raise off_protocol("the service sent data that is no PNG, JPEG or WebP picture")
    return Picture(data=data, media_type=media_type, revised_prompt=row.revised_prompt)
