"""A history is written as things happen, survives its writer, and is read back or refused with the line at fault."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from hostler.chaos.reading import LINE_MOST, read_history
from hostler.chaos.record import Effect, Header, Mark, Op, Text
from hostler.chaos.tape import Process, Tape
from hostler.chaos.values import Answer, Answers, Refused, Requests, Seen
from hostler.contracts.job import JobState
from hostler.kernel.errors import EngineTimeoutError, InvalidError, NotFoundError
from hostler.testing.broker_house import request
from hostler.testing.clock import FakeClock

CLOCK = FakeClock()
HEAD = Header(began_at=CLOCK.now(), seed=7, canaries=("s3cr3t-canary",))


def written(folder: Path, *lines: bytes) -> Path:
    file = folder / "history.ndjson"
    file.write_bytes(b"".join(lines))
    return file


def line(text: str) -> bytes:
    return text.encode() + b"\n"


def test_what_is_written_is_read_back_in_its_order(tmp_path: Path) -> None:
    file = tmp_path / "h.ndjson"
    with Tape.open(file, CLOCK) as tape:
        tape.write(HEAD)
        tape.write(*(Effect(job="q.1", fence=n) for n in range(100)))
        tape.mark("read")
    record = read_history(file)
    assert record.header == HEAD
    assert [one.fence for one in record.lines if isinstance(one, Effect)] == list(range(100))
    assert isinstance(record.lines[-1], Mark)
    assert record.torn == ()


def test_files_of_one_folder_are_one_history(tmp_path: Path) -> None:
    for name, first in (("a", Effect(job="q.1", fence=1)), ("b", HEAD)):
        with Tape.open(tmp_path / f"{name}.ndjson", CLOCK) as tape:
            tape.write(first, Effect(job="q.2", fence=1))
    record = read_history(tmp_path)
    assert (record.header.seed, len(record.lines)) == (7, 3)


def test_operations_stand_in_the_log_as_they_ended(tmp_path: Path) -> None:
    file = tmp_path / "h.ndjson"
    with Tape.open(file, CLOCK) as tape:
        tape.write(HEAD)
        client = Process(tape, "c")
        with client.doing("submit", Requests(requests=(request(),)), queue="q") as doing:
            doing.ok(Answers(answers=(Answer(id="q.1"),)))
        with pytest.raises(NotFoundError), client.doing("get", job="q.9"):
            raise NotFoundError("no such job")
        with client.doing("get", job="q.1") as doing:
            doing.ok(Seen(state=JobState.READY))
        with pytest.raises(EngineTimeoutError), client.doing("cancel", job="q.1"):
            raise EngineTimeoutError("no answer")
        with pytest.raises(asyncio.CancelledError), client.doing("cancel", job="q.1"):
            raise asyncio.CancelledError
        with client.doing("get", job="q.1") as doing:
            doing.refused("not-found")
    ops = [one for one in read_history(file).lines if isinstance(one, Op)]
    ends = [(one.process, one.op, one.type) for one in ops if one.type != "invoke"]
    assert ends == [
        ("c", "submit", "ok"),
        ("c", "get", "fail"),
        ("c", "get", "ok"),
        ("c", "cancel", "info"),
        ("c/2", "cancel", "info"),
        ("c/3", "get", "fail"),
    ]
    assert ops[3].value == Refused(code="not-found")


WRITER = """
import os, sys
from pathlib import Path
from hostler.chaos.record import Effect, Header
from hostler.chaos.tape import Tape
from hostler.testing.clock import FakeClock
with Tape.open(Path(sys.argv[1]), FakeClock()) as tape:
    tape.write(Header(began_at=FakeClock().now()))
    for n in range(1, 5000):
        tape.write(*[Effect(job="q.1", fence=n)] * 50)
        if n == 20:
            print("going", flush=True)
"""


def test_a_writer_that_is_killed_leaves_a_readable_beginning(tmp_path: Path) -> None:
    file = tmp_path / "h.ndjson"
    with subprocess.Popen([sys.executable, "-c", WRITER, str(file)], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        while file.stat().st_size < 10_000:
            os.sched_yield()
        writer.send_signal(signal.SIGKILL)
    with file.open("ab") as torn:
        torn.write(b'{"line":"effe')
    record = read_history(file)
    assert len(record.lines) > 50
    assert record.torn == ("h.ndjson",)


@pytest.mark.parametrize(
    ("lines", "number", "words"),
    [
        ([line("not json")], 1, "is no line of a history"),
        ([msgspec.json.encode(HEAD) + b"\n", line('{"line":"rumour"}')], 2, "is no line of a history"),
        ([msgspec.json.encode(HEAD) + b"\n", line('{"line":"effect","job":"q.1"}')], 2, "fence"),
        ([msgspec.json.encode(HEAD) + b"\n", line('{"line":"effect","job":"q.1","fence":1,"x":1}')], 2, "x"),
        ([msgspec.json.encode(HEAD) + b"\n"] * 2, 2, "is a header"),
        ([msgspec.json.encode(HEAD) + b"\n", b" " * LINE_MOST + b"\n"], 2, "longer than"),
        ([line('{"line":"header","version":2,"began_at":"2026-01-01T00:00:00Z"}')], 1, "version"),
    ],
)
def test_a_line_that_cannot_be_read_is_named(lines: list[bytes], number: int, words: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidError, match=rf"line {number}: .*{words}"):
        read_history(written(tmp_path, *lines))


def test_a_history_without_a_header_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidError, match="no file"):
        read_history(tmp_path)
    with pytest.raises(InvalidError, match="cannot be read"):
        read_history(tmp_path / "absent.ndjson")
    with pytest.raises(InvalidError, match="no header"):
        read_history(written(tmp_path, msgspec.json.encode(Effect(job="q.1", fence=1)) + b"\n"))


def test_a_secret_is_found_in_any_line_and_named_without_its_text(tmp_path: Path) -> None:
    file = tmp_path / "h.ndjson"
    with Tape.open(file, CLOCK) as tape:
        tape.write(HEAD, Text(source="log", text="all is well"), Text(source="log", text="key=s3cr3t-canary"))
    (leak,) = read_history(file).leaks
    assert (leak.place.number, leak.canary) == (3, 1)
    assert "s3cr3t" not in str(leak)
