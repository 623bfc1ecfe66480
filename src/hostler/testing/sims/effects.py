"""What a simulated service really did: an append-only log, the proof of every execution."""

import asyncio
import os
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import IO, Literal, Self

import msgspec
from msgspec import Struct

EffectType = Literal["started", "finished", "failed", "cancelled", "adopted", "refused"]


class Effect(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing that happened to a run."""

    number: int
    """From 1, without gaps."""
    at: datetime
    type: EffectType
    job: str
    fence: int
    run: int
    """Counts the runs of this job from 1; `adopted` and `refused` name the run that was there (0 if none)."""
    detail: str | None = None


class EffectLog:
    """Effects in memory and, with a path, in an NDJSON file whose lines are on disk before `append` returns."""

    def __init__(self, path: Path | None = None) -> None:
        self.effects: list[Effect] = []
        self._path = path
        self._file: IO[bytes] | None = None
        self._waiting: list[Effect] = []
        self._writing = asyncio.Lock()

    async def __aenter__(self) -> Self:
        if self._path is not None:
            self._file, known = await asyncio.to_thread(_open, self._path)
            self.effects.extend(known)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            await asyncio.to_thread(self._file.close)
            self._file = None

    async def append(self, type_: EffectType, job: str, fence: int, run: int, detail: str | None = None) -> None:
        """Record an effect; with a file, one sync serves all that wait for it."""
        effect = Effect(
            number=len(self.effects) + 1,
            at=datetime.now(UTC),
            type=type_,
            job=job,
            fence=fence,
            run=run,
            detail=detail,
        )
        self.effects.append(effect)
        if self._file is None:
            return
        self._waiting.append(effect)
        async with self._writing:
            batch, self._waiting = self._waiting, []
            if batch:
                await asyncio.to_thread(_write, self._file, batch)

    def after(self, number: int) -> tuple[Effect, ...]:
        """Return the effects above `number`, oldest first."""
        return tuple(self.effects[max(0, number) :])


def _open(path: Path) -> tuple[IO[bytes], tuple[Effect, ...]]:
    """Open for appending, behind the last whole line."""
    file = path.open("ab+")
    file.seek(0)
    whole = file.read().rpartition(b"\n")
    file.truncate(len(whole[0]) + len(whole[1]))
    return file, read_effects(path)


def _write(file: IO[bytes], batch: list[Effect]) -> None:
    file.write(b"".join(msgspec.json.encode(effect) + b"\n" for effect in batch))
    file.flush()
    os.fsync(file.fileno())


def read_effects(path: Path) -> tuple[Effect, ...]:
    """Read an effect file; a last line that was cut by a kill is left out."""
    lines = path.read_bytes().split(b"\n")
    return tuple(msgspec.json.decode(line, type=Effect) for line in lines[:-1] if line)
