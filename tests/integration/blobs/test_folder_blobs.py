"""The folder store against its promises, and what only a folder has."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hostler.blobs import open_blobs
from hostler.blobs.folder import FolderBlobs
from hostler.kernel.errors import NotFoundError, SettingsError
from hostler.ports.blobs import Blobs
from hostler.testing.blobs import LIMIT, BlobsConformance, cut_off, in_pieces, name_of, whole


class TestFolder(BlobsConformance):
    @pytest.fixture
    async def blobs(self, tmp_path: Path) -> AsyncIterator[Blobs]:
        async with open_blobs(None, tmp_path) as blobs:
            yield blobs


@pytest.mark.parametrize(
    "url", ["ftp://x/y", "s3://", "s3://key:secret@bucket/", "s3://bucket?color=red", "file://host/path", "blobs"]
)
async def test_an_address_that_is_no_store_is_refused_by_name(url: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as refused:
        async with open_blobs(url, tmp_path):
            pass
    assert refused.value.facts["field"] == "blobs.url"
    assert "secret@" not in refused.value.message


async def test_a_folder_by_url_is_shared_by_two_stores(tmp_path: Path) -> None:
    url = f"file://{tmp_path}/shared%20place"
    async with open_blobs(url, tmp_path) as one, open_blobs(url, tmp_path) as two:
        await one.put(name_of(b"x"), in_pieces(b"x"), limit=LIMIT)
        assert await whole(two, name_of(b"x")) == b"x"
    assert (tmp_path / "shared place").is_dir()


async def test_a_folder_keeps_no_part_of_a_broken_upload_and_clears_what_a_kill_left(tmp_path: Path) -> None:
    async with FolderBlobs(tmp_path) as blobs:
        with pytest.raises(ConnectionResetError):
            await blobs.put(name_of(b"abc"), cut_off(b"abc"), limit=LIMIT)
        assert list((tmp_path / "uploads").iterdir()) == []
    left = tmp_path / "uploads" / "left"
    left.write_bytes(b"half")
    fresh = tmp_path / "uploads" / "fresh"
    fresh.write_bytes(b"half")
    os.utime(left, (0, 0))
    async with FolderBlobs(tmp_path):
        assert not left.exists()
        assert fresh.exists()


async def test_a_blob_lies_in_two_levels_of_folders_for_its_owner_only(tmp_path: Path) -> None:
    name = name_of(b"place")
    async with FolderBlobs(tmp_path / "store") as blobs:
        await blobs.put(name, in_pieces(b"place"), limit=LIMIT)
    place = tmp_path / "store" / name[:2] / name[2:4] / name
    assert place.read_bytes() == b"place"
    assert place.stat().st_mode & 0o077 == 0


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_a_reader_that_stops_early_leaves_no_file_open(tmp_path: Path) -> None:
    async with FolderBlobs(tmp_path) as blobs:
        content = b"z" * 1_000_000
        await blobs.put(name_of(content), in_pieces(content), limit=LIMIT)
        before = open_files()
        for _ in range(20):
            reader = blobs.get(name_of(content))
            await anext(reader)
            await asyncio.create_task(reader.aclose())  # pyright: ignore[reportAttributeAccessIssue, reportUnknownArgumentType, reportUnknownMemberType] - the store's is a generator
        assert open_files() == before
        with pytest.raises(NotFoundError):
            await whole(blobs, name_of(b"absent"))
