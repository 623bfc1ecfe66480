"""Blobs in a folder: `<folder>/ab/cd/<sha256>`, written whole or not at all."""

import asyncio
import contextlib
import os
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import BinaryIO, Final, Self

from hostler.blobs.digest import Weighed, judged_name
from hostler.kernel.errors import NotFoundError
from hostler.kernel.units import Bytes, Seconds

CHUNK: Final[Bytes] = 262_144
_UPLOADS: Final = "uploads"
_ABANDONED: Final[Seconds] = 86_400.0


class FolderBlobs:
    """Implements `ports.blobs.Blobs` in one folder of a local file system; several processes may share it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._uploads = folder / _UPLOADS

    async def __aenter__(self) -> Self:
        """Make the folder (for the owner only) and remove uploads that were cut off long ago."""
        await asyncio.to_thread(self._prepare)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Nothing is held open between calls."""

    async def put(self, sha256: str, body: AsyncIterator[bytes], *, limit: Bytes) -> Bytes:
        """Store a blob and return its size."""
        place = self._place(judged_name(sha256))
        known = await self.size(sha256)
        weighed = Weighed(sha256, body, limit=limit)
        if known is not None:
            async for _ in weighed.parts():
                pass
            return weighed.size
        file = await asyncio.to_thread(self._begin)
        try:
            async for part in weighed.parts():
                await asyncio.to_thread(file.write, part)
            await asyncio.to_thread(_settle, file, place)
        finally:
            await asyncio.to_thread(_discard, file)
        return weighed.size

    async def get(self, sha256: str) -> AsyncIterator[bytes]:
        """Stream a blob."""
        try:
            file = await asyncio.to_thread(self._place(judged_name(sha256)).open, "rb")
        except FileNotFoundError as error:
            raise NotFoundError(f"The blob {sha256} is not in the store.", sha256=sha256) from error
        try:
            while part := await asyncio.to_thread(file.read, CHUNK):
                yield part
        finally:
            file.close()

    async def size(self, sha256: str) -> Bytes | None:
        """Return its size, or None when it is not there."""
        try:
            return (await asyncio.to_thread(self._place(judged_name(sha256)).stat)).st_size
        except FileNotFoundError:
            return None

    async def delete(self, sha256: str) -> None:
        """Remove it."""
        await asyncio.to_thread(self._place(judged_name(sha256)).unlink, missing_ok=True)

    def _place(self, sha256: str) -> Path:
        return self._folder / sha256[0:2] / sha256[2:4] / sha256

    def _prepare(self) -> None:
        self._uploads.mkdir(mode=0o700, parents=True, exist_ok=True)
        oldest = time.time() - _ABANDONED
        for left in self._uploads.iterdir():
            with contextlib.suppress(FileNotFoundError):
                if left.stat().st_mtime < oldest:
                    left.unlink()

    def _begin(self) -> BinaryIO:
        handle, name = tempfile.mkstemp(dir=self._uploads)
        os.close(handle)
        return Path(name).open("wb")


def _settle(file: BinaryIO, place: Path) -> None:
    """Make a complete upload durable under its name."""
    file.flush()
    os.fsync(file.fileno())
    made = [folder for folder in (place.parent.parent, place.parent) if not folder.exists()]
    place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    Path(file.name).replace(place)
    for folder in (place.parent, *(folder.parent for folder in made)):
        _sync(folder)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _discard(file: BinaryIO) -> None:
    file.close()
    Path(file.name).unlink(missing_ok=True)
