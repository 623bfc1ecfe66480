"""A wall clock that jumps, for one process: libfaketime, where it is installed."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from hostler.kernel.errors import ServiceUnavailableError
from hostler.kernel.units import Seconds

PLACES: Final = ("/usr/lib", "/usr/local/lib", "/usr/lib64")
NAME: Final = "faketime/libfaketimeMT.so.1"
CACHED: Final[Seconds] = 1
"""How old the offset that a process goes by may be."""


def library() -> Path | None:
    """Return the library; None where it is not installed."""
    for place in map(Path, PLACES):
        for found in (place / NAME, *place.glob(f"*/{NAME}")):
            if found.exists():
                return found
    return None


class FakedClock:
    """The wall clock of whatever is started with `before`; the monotonic one is left alone."""

    def __init__(self, faketime: Path, file: Path) -> None:
        self._library = faketime
        self._file = file

    @classmethod
    async def make(cls, folder: Path) -> "FakedClock":
        """Make one whose offset stands in this folder; `ServiceUnavailableError` where the library is not installed."""
        found = await asyncio.to_thread(library)
        if found is None:
            raise ServiceUnavailableError("libfaketime is not installed (Debian: libfaketime)")
        made = cls(found, folder / "clock")
        await asyncio.to_thread(made.set, 0)
        return made

    @property
    def before(self) -> Sequence[str]:
        """Words before a command line."""
        return (
            "env", f"LD_PRELOAD={self._library}", f"FAKETIME_TIMESTAMP_FILE={self._file}",
            "FAKETIME_DONT_FAKE_MONOTONIC=1", f"FAKETIME_CACHE_DURATION={CACHED:g}",
        )  # fmt: skip

    def set(self, offset: float) -> None:
        """Set it so many seconds ahead (or behind)."""
        fresh = self._file.with_suffix(".new")
        fresh.write_text(f"{offset:+g}\n")
        fresh.replace(self._file)
