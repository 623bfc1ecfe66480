"""What a worker process does when it is told to end."""

import asyncio
import signal

import structlog

from hostler.worker.worker import Worker

_LOG = structlog.stdlib.get_logger("hostler.worker")


async def run_until_told(worker: Worker) -> None:
    """Run a worker in the main thread; the first SIGTERM or SIGINT drains it, the second ends it at once.

    Returns when it has stopped; raises what kept it from starting.
    """
    loop = asyncio.get_running_loop()
    times = 0

    def told(number: signal.Signals) -> None:
        nonlocal times
        times += 1
        _LOG.info("told to end", signal=number.name, at_once=times > 1)
        worker.drain(at_once=times > 1)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told, number)
    try:
        await worker.run()
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
