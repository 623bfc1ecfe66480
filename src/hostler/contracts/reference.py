"""How a payload says that it lies in the blob store."""

import msgspec
from msgspec import Raw, Struct, field

from hostler.contracts.job import BlobRef

_LONGEST = 1024
"""Bytes; a reference is far shorter, so a large payload is never parsed to find out that it is none."""


class BlobPayload(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The payload `{"$blob": {...}}`: the real one is the content of that blob.

    Whoever runs the job reads the blob first and hands its content on as the payload.
    """

    blob: BlobRef = field(name="$blob")


_DECODER = msgspec.json.Decoder(BlobPayload)


def payload_reference(payload: Raw | bytes) -> BlobRef | None:
    """Return the blob that a payload stands for, or None when the payload is itself."""
    text = bytes(payload)
    if len(text) > _LONGEST or b'"$blob"' not in text:
        return None
    try:
        return _DECODER.decode(text).blob
    except msgspec.MsgspecError:
        return None


def as_payload(ref: BlobRef) -> Raw:
    """Return the payload that stands for the content of a blob."""
    return Raw(msgspec.json.encode(BlobPayload(blob=ref)))
