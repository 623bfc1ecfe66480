"""Pictures that simulated services make: true PNG files of any size, which follow from a seed and words."""

import struct
import zlib
from collections.abc import Iterable

from hostler.testing.sims.knobs import chance


def picture(seed: int, words: str, *, width: int, height: int) -> bytes:
    """Draw stripes of the seed's colours; cheap at any size."""
    tint = [int(chance(seed, words, channel) * 256) for channel in range(3)]
    rows = (bytes((colour + 8 * (y // 8)) % 256 for colour in tint) * width for y in range(height))
    return png(width, height, rows)


def png(width: int, height: int, rows: Iterable[bytes]) -> bytes:
    """Wrap rows of RGB bytes into a PNG file."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows), 1)
    parts = ((b"IHDR", header), (b"IDAT", pixels), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(name, data) for name, data in parts)


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
