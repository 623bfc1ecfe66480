"""The pictures that ComfyUI's socket sends between its words: whose they are, and what they are."""

import struct
from typing import Any, Final

import msgspec

from hostler.contracts.preview import Preview, preview_of

PLAIN: Final = 1
"""Four bytes of format follow, then the picture: nothing says whose it is."""
NAMED: Final = 4
"""A length and so many bytes of JSON follow, which name the prompt, then the picture."""
_HEAD: Final = 8


def preview_in(message: bytes, prompt_id: str, *, running: bool) -> Preview | None:
    """Return the picture in a binary message if it is the prompt's own, and one that can be shown.

    The server runs one prompt at a time, so a picture that names none is of the one that is `running`.
    """
    if len(message) < _HEAD:
        return None
    kind, length = struct.unpack_from(">II", message)
    if kind == PLAIN:
        return preview_of(message[_HEAD:]) if running else None
    if kind != NAMED or length > len(message) - _HEAD:
        return None
    if _prompt(message[_HEAD : _HEAD + length]) != prompt_id:
        return None
    return preview_of(message[_HEAD + length :])


def _prompt(metadata: bytes) -> Any:
    try:
        return msgspec.json.decode(metadata, type=dict[str, Any]).get("prompt_id")
    except (msgspec.MsgspecError, UnicodeError):
        return None
