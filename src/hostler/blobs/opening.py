"""Opens the blob store that the settings name."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

from hostler.blobs.folder import FolderBlobs
from hostler.blobs.s3 import S3Blobs
from hostler.kernel.errors import SettingsError
from hostler.ports.blobs import Blobs

FOLDER = "blobs"
"""Name of the default store inside the data folder."""


@asynccontextmanager
async def open_blobs(url: str | None, data_folder: Path) -> AsyncGenerator[Blobs]:
    """Open the store of `url`: `file:///path`, `s3://bucket/prefix?...`, or a folder in `data_folder` if None.

    `SettingsError` for another URL, `MissingExtraError` for S3 without its extra.
    """
    if url is None:
        async with FolderBlobs(data_folder / FOLDER) as blobs:
            yield blobs
        return
    parts = urlsplit(url)
    if parts.scheme == "s3":
        async with S3Blobs.open(url) as blobs:
            yield blobs
    elif parts.scheme == "file" and parts.netloc in {"", "localhost"} and parts.path.startswith("/"):
        async with FolderBlobs(Path(unquote(parts.path))) as blobs:
            yield blobs
    else:
        raise SettingsError(
            f"blobs.url: {url!r} is no blob store; expected file:///path or s3://bucket/prefix.",
            field="blobs.url",
            problems=(),
        )
