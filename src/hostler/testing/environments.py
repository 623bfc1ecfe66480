"""Virtual environments for programs that tests run and that must not share Hostler's own, built once from locks."""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from hostler.kernel.errors import ServiceUnavailableError
from hostler.kernel.units import Seconds

BUILD_LIMIT: Final[Seconds] = 160.0


def environment_python(lock: Path, cache: Path) -> Path:
    """Return the interpreter of an environment below `cache`, which is built unless it is there.

    `lock` is a file of requirements with hashes, and its name that of the environment. Raises
    `ServiceUnavailableError` when it cannot be built here.
    """
    name = lock.stem
    digest = hashlib.sha256(lock.read_bytes()).hexdigest()[:12]
    folder = cache / f"{name}-{sys.version_info.major}.{sys.version_info.minor}-{digest}"
    python, ready = folder / "bin" / "python", folder / "ready"
    if ready.exists():
        return python
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / f"{name}.lock").open("w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        if not ready.exists():
            shutil.rmtree(folder, ignore_errors=True)
            _build(folder, lock)
            ready.touch()
    return python


def _build(folder: Path, lock: Path) -> None:
    beside = Path(sys.executable).with_name("uv")
    uv = str(beside) if beside.exists() else shutil.which("uv")
    if uv is None:
        raise ServiceUnavailableError(f"the environment of {lock.stem} is built with uv, which is not installed")
    install = [uv, "pip", "install", "--quiet", "--require-hashes", "--requirement", str(lock)]
    for command in ([sys.executable, "-m", "venv", "--without-pip", str(folder)], install):
        try:
            done = subprocess.run(  # noqa: S603 - our own command
                command,
                env={**os.environ, "VIRTUAL_ENV": str(folder)},
                capture_output=True,
                text=True,
                timeout=BUILD_LIMIT,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise ServiceUnavailableError(f"{lock.stem} could not be installed in {BUILD_LIMIT:g} s") from None
        if done.returncode != 0:
            raise ServiceUnavailableError(f"{lock.stem} could not be installed: {done.stderr[-400:]}")
