"""A consistent copy of an embedded engine in one file, and a new folder made from such a file.

The archive is a plain tar: `FORMAT`, `engine.rdb` (one snapshot of the server, taken while it runs),
`blobs/...` (taken after the snapshot, so every blob that it names is there), and at the end `MANIFEST.json`
with size and SHA-256 of each. An archive without a manifest was cut off, and is refused.
"""

import asyncio
import contextlib
import hashlib
import io
import os
import shutil
import tarfile
import tempfile
from collections.abc import Generator
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import IO, Final

import msgspec
from msgspec import Struct

from hostler.kernel.errors import ConflictError, EngineDataError, EngineUnavailableError, InvalidError, NotFoundError
from hostler.kernel.units import Bytes, Instant, Seconds
from hostler.kernel.version import __version__
from hostler.valkeyio.engine import Engine
from hostler.valkeyio.folder import Folder, locate, prepare, sync_folder, write_durably
from hostler.valkeyio.locks import exclusive

_SNAPSHOT: Final = "engine.rdb"
_MANIFEST: Final = "MANIFEST.json"
_SNAPSHOT_LIMIT: Final[Seconds] = 600.0
_POLL: Final[Seconds] = 0.02
_CHUNK: Final = 1_048_576


class Part(Struct, frozen=True, kw_only=True):
    """One file of an archive."""

    size: Bytes
    sha256: str


class Manifest(Struct, frozen=True, kw_only=True):
    """What an archive holds; its last member."""

    hostler: str
    engine: str
    made_at: Instant
    parts: dict[str, Part]


async def backup(engine: Engine, target: str | Path) -> Manifest:
    """Write a consistent copy of an embedded engine to the new file `target`, while it goes on working.

    All that was acknowledged before the call is in it. Raises `InvalidError` for an engine by URL,
    `ConflictError` when `target` is there already, `EngineUnavailableError` when the snapshot fails or takes
    over ten minutes. What goes wrong leaves no file.
    """
    if engine.data is None:
        raise not_embedded(engine.url)
    folder = Folder(engine.data)
    archive = await asyncio.to_thread(_new_file, Path(target))
    try:
        async with exclusive(folder.backup, within=_SNAPSHOT_LIMIT):
            snapshot = await _snapshot(engine, folder)
            try:
                return await asyncio.to_thread(_pack, archive, folder, snapshot, engine.version)
            finally:
                await asyncio.to_thread(snapshot.unlink, missing_ok=True)
    except BaseException:  # also when cancelled: no half archive is left
        await asyncio.shield(asyncio.to_thread(archive.unlink, missing_ok=True))
        raise


def restore(archive: str | Path, data: str | Path) -> Manifest:
    """Make the new or empty folder `data` from an archive; blocks, so call it from no event loop.

    Every queue begins a new life there (see `layout.META`), so no number is given twice. Raises
    `NotFoundError` without the archive, `ConflictError` when `data` holds anything, `EngineDataError` when the
    archive is cut off or damaged, `EngineVersionError` when it is of a newer format. What goes wrong leaves no folder.
    """
    source, folder = Path(archive), locate(data)
    if not source.is_file():
        raise NotFoundError(f"there is no archive {source}", archive=str(source))
    if folder.root.exists() and (not folder.root.is_dir() or any(folder.root.iterdir())):
        raise ConflictError(
            f"{folder.root} is not empty: a backup is restored into a new folder only", folder=str(folder.root)
        )
    folder.root.parent.mkdir(parents=True, exist_ok=True)
    place = Path(tempfile.mkdtemp(prefix=f".{folder.root.name}.", dir=folder.root.parent))
    try:
        manifest = _unpack(source, place)
        made = Folder(place)
        made.locks.mkdir(mode=0o700)
        made.server.touch(mode=0o600)
        prepare(made)
        _arrange(made)
        place.replace(folder.root)  # replaces an empty folder, fails on one that filled up meanwhile
        sync_folder(folder.root.parent)
    except BaseException:  # also when interrupted: no half folder is left
        shutil.rmtree(place, ignore_errors=True)
        raise
    return manifest


def not_embedded(url: str) -> InvalidError:
    """Return why no backup is made of an engine by URL, given without credentials."""
    return InvalidError(
        f"{url} is not an embedded engine: back it up with the tools of its server (BGSAVE and a copy of its dump, or "
        "a replica; of a cluster, of each primary)",
        field="engine.url",
    )


def _new_file(target: Path) -> Path:
    try:
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError as error:
        raise ConflictError(f"{target} is there already: a backup never overwrites", target=str(target)) from error
    except OSError as error:
        raise InvalidError(f"{target} cannot be written ({error.strerror})", field="target") from error
    return target


async def _snapshot(engine: Engine, folder: Folder) -> Path:
    """Have the server write a snapshot, and return its file."""
    saves = (await engine.command("INFO", "persistence"))["rdb_saves"]
    await engine.command("BGSAVE", "SCHEDULE")
    ends = asyncio.get_running_loop().time() + _SNAPSHOT_LIMIT
    while True:
        info = await engine.command("INFO", "persistence")
        if info["rdb_last_bgsave_status"] != "ok":
            raise EngineUnavailableError(f"the engine could not write its snapshot; see {folder.log}")
        if info["rdb_saves"] > saves and not info["rdb_bgsave_in_progress"]:
            return folder.engine / "dump.rdb"
        if asyncio.get_running_loop().time() > ends:
            raise EngineUnavailableError(f"the engine has not written its snapshot within {_SNAPSHOT_LIMIT:g} s")
        await asyncio.sleep(_POLL)


class _Measured(io.RawIOBase):
    """Reads a file on, and measures what went by."""

    def __init__(self, source: IO[bytes]) -> None:
        self._source = source
        self._sum = hashlib.sha256()
        self._size = 0

    def read(self, size: int = -1, /) -> bytes:
        found = self._source.read(size)
        self._sum.update(found)
        self._size += len(found)
        return found

    def part(self) -> Part:
        return Part(size=self._size, sha256=self._sum.hexdigest())


def _pack(archive: Path, folder: Folder, snapshot: Path, engine: str) -> Manifest:
    parts: dict[str, Part] = {}
    with archive.open("wb") as file:
        with tarfile.open(fileobj=file, mode="w") as tar:
            for name, path in _contents(folder, snapshot):
                with path.open("rb") as source:
                    measured = _Measured(source)
                    header = tarfile.TarInfo(name)
                    header.size = os.fstat(source.fileno()).st_size
                    header.mode = 0o600
                    tar.addfile(header, measured)
                    parts[name] = measured.part()
            manifest = Manifest(hostler=__version__, engine=engine, made_at=datetime.now(UTC), parts=parts)
            content = msgspec.json.encode(manifest)
            header = tarfile.TarInfo(_MANIFEST)
            header.size = len(content)
            header.mode = 0o600
            tar.addfile(header, io.BytesIO(content))
        file.flush()
        os.fsync(file.fileno())
    sync_folder(archive.absolute().parent)
    return manifest


def _contents(folder: Folder, snapshot: Path) -> Generator[tuple[str, Path]]:
    yield "FORMAT", folder.format
    yield _SNAPSHOT, snapshot
    if folder.blobs.is_dir():
        for path in sorted(folder.blobs.rglob("*")):
            if path.is_file() and not path.is_symlink():
                yield path.relative_to(folder.root).as_posix(), path


def _unpack(source: Path, place: Path) -> Manifest:
    """Write every member below `place`, and judge them by the manifest."""
    found: dict[str, Part] = {}
    manifest: Manifest | None = None
    try:
        with tarfile.open(source, mode="r:") as tar:
            for member in tar:
                content = tar.extractfile(member)
                if content is None or not _is_ours(member.name):
                    raise _damaged(source, f"it holds {member.name!r}, which no backup does")
                if member.name == _MANIFEST:
                    manifest = msgspec.json.decode(content.read(), type=Manifest)
                else:
                    found[member.name] = _write(content, place / member.name)
    except (tarfile.TarError, msgspec.DecodeError, EOFError) as error:
        raise _damaged(source, str(error)) from error
    if manifest is None:
        raise _damaged(source, "it has no manifest, so it was cut off")
    if found != manifest.parts:
        wrong = sorted(
            name for name in found.keys() | manifest.parts.keys() if found.get(name) != manifest.parts.get(name)
        )
        raise _damaged(source, f"{', '.join(wrong[:3])} is not what the manifest says")
    return manifest


def _is_ours(name: str) -> bool:
    if name in {"FORMAT", _SNAPSHOT, _MANIFEST}:
        return True
    path = PurePosixPath(name)
    return path.parts[:1] == ("blobs",) and ".." not in path.parts


def _write(content: IO[bytes], path: Path) -> Part:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    measured = _Measured(content)
    with path.open("xb") as file:
        while chunk := measured.read(_CHUNK):
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
    return measured.part()


def _damaged(source: Path, why: str) -> EngineDataError:
    return EngineDataError(f"{source} cannot be restored: {why}; take another backup", archive=str(source))


def _arrange(folder: Folder) -> None:
    """Make the snapshot the base of an append-only log: alone, a server that keeps such a log would not read it."""
    log = folder.engine / "appendonlydir"
    log.mkdir(mode=0o700)
    with contextlib.suppress(FileNotFoundError):
        (folder.root / _SNAPSHOT).replace(log / "appendonly.aof.1.base.rdb")
    write_durably(log / "appendonly.aof.manifest", b"file appendonly.aof.1.base.rdb seq 1 type b\n")
