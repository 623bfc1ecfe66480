"""Plain Python as kinds of work, for the demo: one on the loop, one in a thread, one in a process of its own."""

import asyncio
import hashlib

import msgspec

from hostler.worker.call import Call
from hostler.worker.handlers import handler


class Text(msgspec.Struct, frozen=True, kw_only=True):
    """Some text."""

    text: str


class Words(msgspec.Struct, frozen=True, kw_only=True):
    """How long a text is."""

    words: int
    letters: int


class Sum(msgspec.Struct, frozen=True, kw_only=True):
    """How often to hash."""

    rounds: int
    seed: str


@handler("demo.words", payload=Text, result=Words, queue="demo", about="Counts words, on the worker's loop.")
async def words(call: Call[Text]) -> Words:
    """Count words and letters."""
    found = call.payload.text.split()
    for done in range(1, 5):
        call.progress(fraction=done / 4, stage="counting")
        await asyncio.sleep(0.02)
    return Words(words=len(found), letters=sum(map(len, found)))


@handler("demo.digest", payload=Sum, result=str, queue="demo", about="Hashes, in a thread.")
def digest(call: Call[Sum]) -> str:
    """Hash a seed many times."""
    return _hashed(call)


@handler("demo.crunch", payload=Sum, result=str, queue="demo", about="Hashes, in a process.", run="process")
def crunch(call: Call[Sum]) -> str:
    """Hash a seed many times, where it can be killed."""
    return _hashed(call)


def _hashed(call: Call[Sum]) -> str:
    state = call.payload.seed.encode()
    for done in range(call.payload.rounds):
        state = hashlib.sha256(state).digest()
        if done % 5_000 == 0:
            call.progress(fraction=done / call.payload.rounds)
            if call.cancelled:
                break
    return state.hex()
