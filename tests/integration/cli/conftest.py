"""The real command, in a folder of its own, with nothing of this environment's settings."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest


@dataclass(frozen=True, kw_only=True)
class Ran:
    """How one command ended."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[Any]:
        """Return stdout as JSON lines; anything else on stdout fails."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def last(self) -> Any:
        return self.lines[-1]


class Shell:
    """Runs `hostler` in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("HOSTLER_")}

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "hostler", *arguments]

    def run(self, *arguments: str, stdin: str | None = None, within: float = 45, **environment: str) -> Ran:
        done = subprocess.run(
            self.command(*arguments),
            cwd=self.folder,
            env={**self.environment, **environment},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=within,
            check=False,
        )
        return Ran(code=done.returncode, out=done.stdout, err=done.stderr)


@pytest.fixture
def shell() -> Iterator[Shell]:
    """A folder with a short path: it holds the engine's socket."""
    folder = Path(tempfile.mkdtemp(prefix="hcli", dir="/tmp"))
    yield Shell(folder)
    shutil.rmtree(folder, ignore_errors=True)
