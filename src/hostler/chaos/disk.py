"""A small disk that can be full: a tmpfs which only its keeper and whoever joins it can see.

It lies in a mount namespace of its own and is gone with the keeper, which the kernel ends with this process:
whatever happens, no mount outlives it.
"""

import asyncio
import os
import shutil
import sys
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from hostler.chaos.tied import TIED
from hostler.kernel.errors import ServiceUnavailableError
from hostler.kernel.units import Bytes, Seconds

SIZE: Final[Bytes] = 67_108_864
MOUNTING: Final[Seconds] = 20.0
PROGRAMS: Final = ("unshare", "nsenter", "mount", "setpriv")
_BLOCK: Final = 65_536
_SCRIPT: Final = 'mount -t tmpfs -o "size=$1,mode=700" small "$2" && echo mounted && exec cat'


def why_not() -> str | None:
    """Return why there can be no small disk here; None when there can."""
    if not sys.platform.startswith("linux"):
        return "only Linux has it"
    if os.geteuid() != 0:
        return "only root may mount"
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    return f"{', '.join(missing)} not found" if missing else None


class SmallDisk:
    """`async with` mounts it on `folder`, which must exist."""

    def __init__(self, folder: Path, *, size: Bytes = SIZE) -> None:
        self.folder = folder
        self._size = size
        self._keeper: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        pipe = asyncio.subprocess.PIPE
        words = ("unshare", "--mount", "--propagation", "private", "sh", "-c", _SCRIPT, "sh", str(self._size))
        self._keeper = await asyncio.create_subprocess_exec(
            *TIED, *words, str(self.folder), stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True
        )
        try:
            await self._until_mounted(self._keeper)
        except BaseException:  # also when cancelled: the keeper does not stay
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._keeper is not None:
            if self._keeper.returncode is None:
                self._keeper.kill()
            await self._keeper.wait()

    @property
    def joining(self) -> tuple[str, ...]:
        """Return the words before a command line that make it see the disk."""
        return ("nsenter", f"--mount=/proc/{self._pid}/ns/mnt", "--")

    @property
    def seen(self) -> Path:
        """Return the disk's path for this process, which is outside."""
        return Path(f"/proc/{self._pid}/root{self.folder}")

    def fill(self) -> Bytes:
        """Take all the room that is left; return how much that was."""
        taken = 0
        with (self.seen / "ballast").open("wb", buffering=0) as ballast:
            block = b"\0" * _BLOCK
            while block:
                try:
                    taken += ballast.write(block)
                except OSError:
                    block = block[: len(block) // 2]
        return taken

    def free(self) -> None:
        """Give the room back. Idempotent."""
        (self.seen / "ballast").unlink(missing_ok=True)

    @property
    def _pid(self) -> int:
        if self._keeper is None:
            raise ServiceUnavailableError("the small disk is not mounted")
        return self._keeper.pid

    async def _until_mounted(self, keeper: asyncio.subprocess.Process) -> None:
        if keeper.stdout is None or keeper.stderr is None:
            raise ServiceUnavailableError("the keeper of the small disk has no output")
        async with asyncio.timeout(MOUNTING):
            if await keeper.stdout.readline() != b"mounted\n":
                said = (await keeper.stderr.read()).decode(errors="replace").strip()
                raise ServiceUnavailableError(f"a small disk could not be mounted: {said[-300:]}")
