"""A process that opens the engine of a folder, writes as told, and says what was acknowledged.

opener.py FOLDER hold     say the server's pid, then hold the engine until standard input ends
opener.py FOLDER write    the same, writing all the while: one line per acknowledged number
"""

import asyncio
import sys

import structlog

from hostler.kernel.errors import EngineError
from hostler.kernel.settings import EngineSettings
from hostler.valkeyio.engine import Engine


def say(line: object) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


async def write(engine: Engine) -> None:
    number = 0
    while True:
        try:
            await engine.command("SADD", "written", number)
        except EngineError:
            await engine.until_available(20)
        else:
            say(number)
        number += 1


async def main(folder: str, mode: str) -> None:
    async with Engine.open(EngineSettings(data=folder), role="opener") as engine:
        say((await engine.command("INFO", "server"))["process_id"])
        writer = asyncio.create_task(write(engine)) if mode == "write" else None
        await asyncio.to_thread(sys.stdin.read)
        if writer is not None:
            writer.cancel()
            await asyncio.wait({writer})


if __name__ == "__main__":
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    asyncio.run(main(*sys.argv[1:]))
