"""A copy taken while the engine works is whole, checked, and opens as a new engine with new fences."""

import asyncio
import tarfile
from pathlib import Path

import pytest

from hostler.kernel.errors import ConflictError, EngineDataError, InvalidError, NotFoundError
from hostler.kernel.settings import EngineSettings
from hostler.valkeyio.backup import backup, restore
from hostler.valkeyio.engine import Engine


@pytest.fixture
async def archive(data_folder: Path, tmp_path: Path) -> Path:
    """A backup of an engine that holds a hundred keys and one blob."""
    target = tmp_path / "backup.tar"
    async with Engine.open(EngineSettings(data=str(data_folder)), role="test") as engine:
        (data_folder / "blobs" / "ab").mkdir(parents=True)
        (data_folder / "blobs" / "ab" / "abcd").write_bytes(b"large thing" * 1000)
        await engine.command("MSET", *(word for n in range(100) for word in (f"key{n}", n)))
        await backup(engine, target)
    return target


async def test_a_backup_taken_under_writes_holds_all_that_was_acknowledged_before(
    data_folder: Path, tmp_path: Path
) -> None:
    acknowledged: list[int] = []
    async with Engine.open(EngineSettings(data=str(data_folder)), role="test") as engine:

        async def write() -> None:
            for number in range(100_000):
                await engine.command("SADD", "written", number)
                acknowledged.append(number)

        writer = asyncio.create_task(write())
        while len(acknowledged) < 200:
            await engine.command("PING")
        before = set(acknowledged)
        await backup(engine, tmp_path / "backup.tar")
        writer.cancel()
        await asyncio.wait({writer})
        assert not list((data_folder / "engine").glob("dump.rdb"))
    await asyncio.to_thread(restore, tmp_path / "backup.tar", data_folder.parent / "other")
    async with Engine.open(EngineSettings(data=str(data_folder.parent / "other")), role="test") as engine:
        assert before <= {int(number) for number in await engine.command("SMEMBERS", "written")}


async def test_a_restored_engine_has_everything(archive: Path, data_folder: Path) -> None:
    other = data_folder.parent / "other"
    manifest = await asyncio.to_thread(restore, archive, other)
    assert manifest.engine.startswith("valkey ")
    for _ in range(2):
        async with Engine.open(EngineSettings(data=str(other)), role="test") as engine:
            assert await engine.command("GET", "key99") == b"99"
            await engine.command("SET", "later", "kept")
    async with Engine.open(EngineSettings(data=str(other)), role="test") as engine:
        assert await engine.command("GET", "later") == b"kept"
    assert (other / "blobs" / "ab" / "abcd").read_bytes() == b"large thing" * 1000
    assert other.stat().st_mode & 0o777 == 0o700


async def test_a_backup_never_overwrites_and_leaves_nothing_when_refused(
    engine: Engine, data_folder: Path, tmp_path: Path
) -> None:
    target = tmp_path / "mine.txt"
    target.write_text("mine")
    async with Engine.open(EngineSettings(data=str(data_folder)), role="test") as embedded:
        with pytest.raises(ConflictError, match="never overwrites"):
            await backup(embedded, target)
        with pytest.raises(InvalidError, match="cannot be written"):
            await backup(embedded, tmp_path / "no" / "folder.tar")
    assert target.read_text() == "mine"
    with pytest.raises(InvalidError, match="tools of its server"):
        await backup(engine, tmp_path / "url.tar")
    assert not (tmp_path / "url.tar").exists()


def test_a_restore_wants_a_new_or_empty_folder(archive: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    with pytest.raises(ConflictError, match="not empty"):
        restore(archive, tmp_path / "full")
    (tmp_path / "empty").mkdir()
    restore(archive, tmp_path / "empty")
    assert (tmp_path / "empty" / "FORMAT").exists()


def test_an_archive_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        restore(tmp_path / "none.tar", tmp_path / "data")


@pytest.mark.parametrize("keep", [0.2, 0.6, 0.95])
def test_an_archive_that_was_cut_off_is_refused_and_leaves_no_folder(
    archive: Path, tmp_path: Path, keep: float
) -> None:
    content = archive.read_bytes()
    end = content.rfind(b"MANIFEST.json")
    archive.write_bytes(content[: int(end * keep)])
    with pytest.raises(EngineDataError, match="cannot be restored"):
        restore(archive, tmp_path / "data")
    assert [path.name for path in tmp_path.iterdir()] == ["backup.tar"]


def test_a_changed_byte_is_found_by_its_sum(archive: Path, tmp_path: Path) -> None:
    content = archive.read_bytes()
    archive.write_bytes(content.replace(b"large thinglarge", b"large thinglarhe", 1))
    with pytest.raises(EngineDataError, match="blobs/ab/abcd is not what the manifest says"):
        restore(archive, tmp_path / "data")
    assert [path.name for path in tmp_path.iterdir()] == ["backup.tar"]


@pytest.mark.parametrize("name", ["../escape", "/etc/escape", "blobs/../../escape", "locks/start"])
def test_an_archive_that_names_other_places_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "evil").write_text("evil")
    with tarfile.open(tmp_path / "evil.tar", "w") as tar:
        tar.add(tmp_path / "evil", arcname=name)
    with tarfile.open(tmp_path / "evil.tar") as tar:
        assert len(tar.getnames()) == 1
    with pytest.raises(EngineDataError):
        restore(tmp_path / "evil.tar", tmp_path / "data")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["evil", "evil.tar"]
