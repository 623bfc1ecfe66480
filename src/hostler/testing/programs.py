"""Programs that tests run: servers of others where they are installed, and whether a process has ended."""

import shutil
from pathlib import Path

import psutil


def redis_program() -> Path | None:
    """Return the program of Redis's own server, None where there is none; start it under the name `redis-server`.

    It decides by that name what it is: Debian's package `redis-tools` brings it as `redis-check-rdb`, and
    starts no service.
    """
    found = shutil.which("redis-server") or shutil.which("redis-check-rdb")
    return Path(found) if found else None


def ended(pid: int) -> bool:
    """Return whether a process has ended; one that its parent has not waited for yet has."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
