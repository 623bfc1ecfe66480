"""A list of the engine and nothing else, as bare as it goes: what the engine, its log and one Python process allow."""

import json
import time
from importlib import import_module
from typing import Any

from side import IO, URL, Client, begun

QUEUE = "bare"
TAKEN = 64
"""Jobs of one pop at most."""


def _redis() -> Any:
    return import_module("redis").Redis.from_url(URL)


class Bare(Client):
    """`LPUSH`; all of a batch in one command. No delays."""

    async def open(self) -> None:
        self._redis = _redis()

    async def one(self, work: str, sent: int, data: str) -> None:
        self._redis.lpush(QUEUE, json.dumps([work, sent, data]))

    async def many(self, work: str, jobs: list[tuple[int, str]]) -> None:
        self._redis.lpush(QUEUE, *(json.dumps([work, *job]) for job in jobs))


def worker(_: str) -> None:
    redis = _redis()
    while True:
        found = redis.rpop(QUEUE, TAKEN)
        if not found:
            _, first = redis.brpop(QUEUE)
            found = [first]
        for job in found:
            work, sent, data = json.loads(job)
            begun(sent, data)
            if work == "io":
                time.sleep(IO)  # noqa: TID251 - the work itself


CLIENT = Bare
