"""Reads a history back, with bounds and clear errors."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from hostler.chaos.record import VERSION, Header, Line
from hostler.kernel.errors import InvalidError

LINE_MOST: Final = 16 << 20
"""Bytes of one line."""
LINES_MOST: Final = 5_000_000
"""Lines of one history."""
FILES_MOST: Final = 1000
SUFFIX: Final = ".ndjson"


class Place(Struct, frozen=True, kw_only=True):
    """Where a line stands."""

    file: str
    number: int


class Leak(Struct, frozen=True, kw_only=True):
    """A line in which a secret stands; which one by its place in the header, never by its text."""

    place: Place
    canary: int


class Record(Struct, frozen=True, kw_only=True):
    """A history as it was read."""

    header: Header
    lines: tuple[Line, ...]
    """All others, file by file."""
    torn: tuple[str, ...] = ()
    """Files whose last line was cut: the writer died."""
    leaks: tuple[Leak, ...] = ()


def read_history(path: Path) -> Record:
    """Read a history from its file or folder.

    `InvalidError` names the file and the line of what cannot be read: not JSON, not a line of this version, no header
    or two, or beyond a bound. A last line without its end is left out and named in `torn`.
    """
    header = _header(path, files := _files(path))
    lines: list[Line] = []
    torn: list[str] = []
    leaks: list[Leak] = []
    secrets = [secret.encode() for secret in header.canaries]
    for file in files:
        for number, text in enumerate(_texts(file), 1):
            if not text.endswith(b"\n"):
                torn.append(file.name)
                continue
            line = _line(file, number, text)
            if isinstance(line, Header):
                if number > 1:
                    raise _wrong(file, number, "is a header: it stands in the first line of one file")
                continue
            lines.append(line)
            if len(lines) > LINES_MOST:
                raise _wrong(file, number, f"is one more than the {LINES_MOST} lines that a history may have")
            place = Place(file=file.name, number=number)
            leaks.extend(Leak(place=place, canary=n) for n, secret in enumerate(secrets, 1) if secret in text)
    return Record(header=header, lines=tuple(lines), torn=tuple(torn), leaks=tuple(leaks))


def _files(path: Path) -> list[Path]:
    try:
        if not path.is_dir():
            return [path]
        files = sorted(file for file in path.iterdir() if file.suffix == SUFFIX)
    except OSError as error:
        raise InvalidError(f"{path} cannot be read: {error.strerror}", file=str(path)) from error
    if not files:
        raise InvalidError(f"{path} has no file *{SUFFIX}: it is no history", file=str(path))
    if len(files) > FILES_MOST:
        raise InvalidError(f"{path} has {len(files)} files, a history has {FILES_MOST} at most", file=str(path))
    return files


def _header(path: Path, files: list[Path]) -> Header:
    """Return the header: the first line of one of the files."""
    found: list[Header] = []
    for file in files:
        for text in _texts(file):
            if text.endswith(b"\n"):
                line = _line(file, 1, text)
                found.extend([line] if isinstance(line, Header) else [])
            break
    if len(found) != 1:
        many = "no header" if not found else f"{len(found)} headers"
        raise InvalidError(f"{path} has {many}: one file of a history begins with one", file=str(path))
    return found[0]


def _texts(file: Path) -> Iterator[bytes]:
    """Yield the lines of a file with their ends; a longer one than is allowed is an error."""
    try:
        with file.open("rb") as stream:
            number = 0
            while text := stream.readline(LINE_MOST + 1):
                number += 1
                if len(text) > LINE_MOST:
                    raise _wrong(file, number, f"is longer than {LINE_MOST >> 20} MiB")
                yield text
    except OSError as error:
        raise InvalidError(f"{file} cannot be read: {error.strerror}", file=str(file)) from error


_DECODER: Final = msgspec.json.Decoder(Line)


def _line(file: Path, number: int, text: bytes) -> Line:
    try:
        return _DECODER.decode(text)
    except msgspec.DecodeError as error:
        raise _wrong(file, number, f"is no line of a history (version {VERSION}): {error}") from error


def _wrong(file: Path, number: int, what: str) -> InvalidError:
    return InvalidError(f"{file}, line {number}: {what}", file=str(file), line=number)
