"""The work that is measured: none at all."""

from typing import Any

from hostler.worker.call import Call
from hostler.worker.handlers import handler

QUEUE = "bench"


@handler("bench.noop", queue=QUEUE, about="Does nothing, for `hostler bench`.")
async def noop(call: Call[Any]) -> None:
    """Do nothing."""
