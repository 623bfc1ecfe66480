"""Plain Python as kinds of work; run it with `hostler worker --handlers handlers` in this folder."""

import asyncio
from dataclasses import dataclass
from pathlib import Path

import hostler


@dataclass(frozen=True)
class Text:
    """What `text.count` takes."""

    text: str


@dataclass(frozen=True)
class Count:
    """What `text.count` gives."""

    words: int
    letters: int


@hostler.handler("text.count", payload=Text, result=Count)
async def count(call: hostler.Call[Text]) -> Count:
    """Run on the worker's loop: for work that mostly waits."""
    text = call.payload.text
    call.progress(fraction=0.5, stage="counting")
    await asyncio.sleep(0)
    return Count(words=len(text.split()), letters=sum(letter.isalpha() for letter in text))


@dataclass(frozen=True)
class File:
    """What `file.lines` takes."""

    path: str


@hostler.handler("file.lines", payload=File, result=int)
def lines(call: hostler.Call[File]) -> int:
    """Run in a thread: for libraries that block."""
    try:
        return len(Path(call.payload.path).read_text().splitlines())
    except FileNotFoundError as error:
        raise hostler.Failed("invalid_input", f"there is no file {call.payload.path}") from error


@dataclass(frozen=True)
class Below:
    """What `primes.count` takes."""

    below: int


@hostler.handler("primes.count", payload=Below, result=int, run="process")
def primes(call: hostler.Call[Below]) -> int:
    """Run in a process of its own, which can be killed: for work that needs a processor."""
    limit = call.payload.below
    sieve = bytearray([1]) * max(limit, 2)
    sieve[:2] = b"\0\0"
    for number in range(2, int(limit**0.5) + 1):
        if sieve[number]:
            sieve[number * number :: number] = bytes(len(range(number * number, limit, number)))
        call.progress(fraction=number * number / limit)
    return sum(sieve[:limit])
