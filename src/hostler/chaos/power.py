"""A power cut of the engine's machine: it is killed, and of its files only what was synced is left.

A kill alone shows nothing: what a dead process has written is still in the system's cache. So a small library,
preloaded into the server, notes how much of each file every sync has brought to the disk; the rest is cut off.
"""

import asyncio
import shutil
import struct
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Final

from hostler.kernel.errors import ServiceUnavailableError
from hostler.kernel.units import Bytes, Seconds

COMPILING: Final[Seconds] = 60.0
COMPILERS: Final = ("cc", "gcc", "clang")
_SIZE: Final = struct.Struct("q")


def compiler() -> str | None:
    """Return a C compiler of this machine; None where there is none."""
    return next((found for name in COMPILERS if (found := shutil.which(name))), None)


class PowerCut:
    """The library, built for one run, and its notes."""

    def __init__(self, library: Path, notes: Path) -> None:
        self._library = library
        self._notes = notes

    @classmethod
    async def build(cls, folder: Path) -> "PowerCut":
        """Compile the library into this folder, where its notes lie too; `ServiceUnavailableError` when that fails."""
        program = await asyncio.to_thread(compiler)
        if program is None:
            raise ServiceUnavailableError(f"there is no C compiler here ({', '.join(COMPILERS)})")
        library, notes = folder / "power_cut.so", folder / "synced"
        await asyncio.to_thread(notes.mkdir)
        source = files("hostler.chaos").joinpath("power_cut.c")
        words = ("-shared", "-fPIC", "-O1", "-o", str(library), str(source))
        process = await asyncio.create_subprocess_exec(
            program, *words, "-ldl", stderr=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL
        )
        try:
            async with asyncio.timeout(COMPILING):
                _, said = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode:
            raise ServiceUnavailableError(
                f"{program} could not build the library of power cuts: {said.decode()[-500:]}"
            )
        return cls(library, notes)

    @property
    def environment(self) -> Mapping[str, str]:
        """What the server's environment must say."""
        return {"LD_PRELOAD": str(self._library), "SYNCED_NOTES": str(self._notes)}

    def cut(self, folder: Path) -> Bytes:
        """Cut off all that was not synced, of every file in this folder; return how much that was.

        The server must be dead. A file that was never synced is empty afterwards.
        """
        lost = 0
        for file in (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()):
            size = file.stat().st_size
            synced = min(size, self._synced(file.stat().st_ino))
            if synced < size:
                with file.open("rb+") as stream:
                    stream.truncate(synced)
                lost += size - synced
        return lost

    def _synced(self, inode: int) -> Bytes:
        try:
            return int(_SIZE.unpack((self._notes / str(inode)).read_bytes())[0])
        except FileNotFoundError:
            return 0
