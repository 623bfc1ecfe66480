"""Servers of others that tests run where they are installed."""

import shutil
from pathlib import Path


def redis_program() -> Path | None:
    """Return the program of Redis's own server, None where there is none; start it under the name `redis-server`.

    It decides by that name what it is: Debian's package `redis-tools` brings it as `redis-check-rdb`, and
    starts no service.
    """
    found = shutil.which("redis-server") or shutil.which("redis-check-rdb")
    return Path(found) if found else None
