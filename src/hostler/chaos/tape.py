"""Writes a history while things happen.

    with Tape.open(path, clock) as tape:
        tape.write(Header(began_at=clock.now()))
        client = Process(tape, "c1")
        with client.doing("submit", Requests(requests=(asked,))) as doing:
            doing.ok(Answers(answers=(...,)))

A history is one file, or all files `*.ndjson` of one folder: each process may write a file of its own.
`reading.py` reads it back.
"""

import asyncio
import contextlib
import os
import threading
from collections.abc import Generator
from pathlib import Path
from queue import Empty, Queue
from typing import Final, Self

import msgspec

from hostler.chaos.record import Line, Mark, Op, OpType
from hostler.chaos.values import Refused, Value
from hostler.kernel.errors import EngineError, GatewayUnavailableError, HostlerError, InternalError
from hostler.ports.clock import Clock

WAITING_MOST: Final = 10_000
"""Writes that may wait for the disk; the next one waits itself."""

_UNCERTAIN: Final = (EngineError, GatewayUnavailableError, InternalError)
"""Errors after which nobody knows whether it happened."""


class Tape:
    """Appends lines to one file, in a thread of its own; a crash leaves a readable beginning."""

    def __init__(self, fd: int, clock: Clock) -> None:
        self.clock = clock
        self._fd = fd
        self._lines: Queue[bytes | None] = Queue(WAITING_MOST)
        self._broken: OSError | None = None
        self._thread = threading.Thread(target=self._run, name="history", daemon=True)

    @classmethod
    @contextlib.contextmanager
    def open(cls, path: Path, clock: Clock) -> Generator[Self]:
        """Append to this file; on leaving, all that was written is in it. `OSError` when it cannot be opened."""
        tape = cls(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600), clock)
        tape._thread.start()
        try:
            yield tape
        finally:
            tape._lines.put(None)
            tape._thread.join()
            os.close(tape._fd)
        if tape._broken is not None:
            raise tape._broken

    def write(self, *lines: Line) -> None:
        """Append lines; `OSError` when an earlier one could not be written."""
        if self._broken is not None:
            raise self._broken
        self._lines.put(b"".join(msgspec.json.encode(line) + b"\n" for line in lines))

    def mark(self, what: str) -> None:
        """Write a turn in the run, as of now; `what` is one of `Mark.what`."""
        facts = {"what": what, "t_mono": self.clock.monotonic(), "t_wall": self.clock.now()}
        self.write(msgspec.convert(facts, Mark))

    def _run(self) -> None:
        ended = False
        while not ended:
            batch = [self._lines.get()]
            with contextlib.suppress(Empty):
                while len(batch) < WAITING_MOST:
                    batch.append(self._lines.get_nowait())
            ended = batch[-1] is None
            try:
                _write_all(self._fd, b"".join(lines for lines in batch if lines is not None))
            except OSError as error:
                self._broken = self._broken or error  # go on taking lines, so that nobody waits for room


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


class Doing:
    """One operation on its way."""

    def __init__(self) -> None:
        self.type: OpType = "ok"
        self.value: Value | None = None

    def ok(self, value: Value | None = None) -> None:
        """Say what was answered."""
        self.value = value

    def refused(self, code: str) -> None:
        """Say that it did not happen, without an error being raised."""
        self.type, self.value = "fail", Refused(code=code)


class Process:
    """One client: it has one operation at a time, and goes on under a new name after an answer that never came."""

    def __init__(self, tape: Tape, name: str) -> None:
        self._tape = tape
        self._base = name
        self._lives = 1

    @property
    def name(self) -> str:
        """Return the name under which it acts now."""
        return self._base if self._lives == 1 else f"{self._base}/{self._lives}"

    @contextlib.contextmanager
    def doing(
        self,
        op: str,
        value: Value | None = None,
        *,
        job: str | None = None,
        queue: str | None = None,
        operation: str | None = None,
    ) -> Generator[Doing]:
        """Record an operation around its call: `ok` unless the call raises.

        An error of ours that says *it was refused* is a `fail`; any other way out, a cancelled task included, is
        `info`. The error goes on.
        """
        doing, about = Doing(), _About(op=op, job=job, queue=queue, operation=operation)
        self._note(about, "invoke", value)
        try:
            yield doing
        except HostlerError as error:
            if isinstance(error, _UNCERTAIN):
                self._lost(about, Refused(code=error.code))
            else:
                told = error.facts.get("retry_after")
                wait = float(told) if isinstance(told, int | float) else None
                self._note(about, "fail", Refused(code=error.code, retry_after=wait))
            raise
        except (Exception, asyncio.CancelledError):  # whatever it was: nobody knows what happened
            self._lost(about, None)
            raise
        self._note(about, doing.type, doing.value)

    def _lost(self, about: "_About", value: Value | None) -> None:
        self._note(about, "info", value)
        self._lives += 1

    def _note(self, about: "_About", type_: OpType, value: Value | None) -> None:
        clock = self._tape.clock
        self._tape.write(
            Op(
                process=self.name,
                op=about.op,
                type=type_,
                t_mono=clock.monotonic(),
                t_wall=clock.now(),
                job=about.job,
                queue=about.queue,
                operation=about.operation,
                value=value,
            )
        )


class _About(msgspec.Struct, frozen=True, kw_only=True):
    """What an operation is about."""

    op: str
    job: str | None
    queue: str | None
    operation: str | None
