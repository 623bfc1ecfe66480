"""Plain Python as kinds of work, for the rig: one that takes a while, and one that no worker survives."""

import asyncio
import os
import signal
from typing import Any

import msgspec

from hostler.chaos.load import POISON, QUEUE, WORK
from hostler.kernel.units import Seconds
from hostler.worker.call import Call
from hostler.worker.handlers import handler


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """How long to work, and what to answer."""

    seconds: Seconds
    word: str


@handler(WORK, payload=Wanted, result=str, queue=QUEUE, about="Works for a while, on the worker's loop.")
async def work(call: Call[Wanted]) -> str:
    """Work for a while and answer the word."""
    for done in range(1, 4):
        await asyncio.sleep(call.payload.seconds / 3)
        call.progress(fraction=done / 3, stage="working")
    return call.payload.word


@handler(POISON, queue=QUEUE, about="Kills the worker that runs it.")
async def poison(_call: Call[Any]) -> None:
    """End this very process, without a word."""
    os.kill(os.getpid(), signal.SIGKILL)
