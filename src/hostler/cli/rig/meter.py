"""Measures a rig that runs: memory and open files of its processes, memory and keys of its engine."""

import asyncio
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, cast

from hostler.chaos.drift import Unit
from hostler.cli.rig.stage import ENGINE, Stage, names
from hostler.valkeyio.engine import Engine
from hostler.valkeyio.keys import owner_of
from hostler.valkeyio.scans import scan_keys

PROC: Final = Path("/proc")
ALL_KEYS: Final = "*"


def measurable() -> str | None:
    """Return why processes cannot be measured on this machine; None when they can."""
    return None if (PROC / "self" / "statm").exists() else "there is no /proc here: memory and files are not measured"


class Meter:
    """Reads one stage and its engine."""

    def __init__(self, stage: Stage, engine: Engine) -> None:
        self._stage = stage
        self._engine = engine
        self.units: dict[str, Unit] = {}
        """Of every measure so far."""

    async def read(self) -> dict[str, float]:
        """Return all measures; of a process that is not there, none."""
        found = await asyncio.to_thread(self._processes)
        info = cast("Mapping[str, Any]", await self._engine.command("INFO", "memory"))
        found |= self._note(Unit.BYTES, {"engine's data": float(info["used_memory"])})
        lives = await self.lifetimes()
        return found | self._note(Unit.KEYS, {f"keys: {life}": float(count) for life, count in lives.items()})

    async def lifetimes(self) -> Counter[str]:
        """Count the engine's keys by how long they are declared to live; `leaked` are those of no declaration."""
        counts: Counter[str] = Counter()
        async for key in scan_keys(self._engine, ALL_KEYS):
            row = owner_of(key)
            counts["leaked" if row is None else row.lifetime] += 1
        return counts

    def _processes(self) -> dict[str, float]:
        cast_, found = self._stage.cast, dict[str, float]()
        if measurable() is not None:
            return found
        children = (*names("gateway", cast_.gateways), *names("worker", cast_.workers))
        pids = {name: self._stage.child(name).pid for name in children} | {ENGINE: self._stage.engine.pid}
        for name, pid in pids.items():
            if pid is not None:
                found |= self._note(Unit.BYTES, {f"{name}'s memory": float(resident(pid))})
                found |= self._note(Unit.FILES, {f"{name}'s files": float(open_files(pid))})
        return found

    def _note(self, unit: Unit, measures: dict[str, float]) -> dict[str, float]:
        self.units |= dict.fromkeys(measures, unit)
        return measures


def resident(pid: int) -> int:
    """Return the bytes of memory that a process holds now."""
    return int((PROC / str(pid) / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def open_files(pid: int) -> int:
    """Return how many files, sockets and pipes a process has open."""
    return len(list((PROC / str(pid) / "fd").iterdir()))
