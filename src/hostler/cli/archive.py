"""`hostler backup` and `hostler restore`: a data folder as one file, and back."""

import asyncio
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from hostler.cli.config import load
from hostler.cli.flags import Common, ToEngine
from hostler.cli.output import OK, Out


async def backup(
    target: Annotated[Path, Parameter(help="The new file; one that is there already is never overwritten.")],
    /,
    *,
    common: ToEngine = ToEngine(),
) -> int:
    """Save a data folder to one file while everything goes on working."""
    from hostler.valkeyio.backup import backup as write
    from hostler.valkeyio.backup import not_embedded
    from hostler.valkeyio.engine import Engine
    from hostler.valkeyio.urls import redact

    out = Out(json=common.json)
    loaded = load(common.settings(), config=common.config)
    if (url := loaded.settings.engine.url) is not None:
        raise not_embedded(redact(url))
    async with Engine.open(loaded.settings.engine, role="backup") as engine:
        manifest = await write(engine, target)
    size = await asyncio.to_thread(lambda: target.stat().st_size)
    out.answer({"file": str(target), "size": size, "manifest": manifest}, f"saved {size:,} bytes to {target}")
    return OK


def restore(
    archive: Annotated[Path, Parameter(help="A file that `hostler backup` wrote.")],
    data: Annotated[Path, Parameter(help="The new or empty folder to fill.")],
    /,
    *,
    common: Common = Common(),
) -> int:
    """Fill a new data folder from a backup; then run `hostler up --data FOLDER`."""
    from hostler.valkeyio.backup import restore as read

    manifest = read(archive, data)
    Out(json=common.json).answer(
        {"folder": str(data), "manifest": manifest},
        f"restored {data} as it was on {manifest.made_at:%Y-%m-%d %H:%M:%S} UTC; run: hostler up --data {data}",
    )
    return OK
