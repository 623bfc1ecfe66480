"""What every side of the comparison has in common; runs with the standard library in each peer's own environment.

A side is one module beside this one, as `celery_side`. `python side.py SIDE worker WORK` becomes a worker process of
that peer as its documents start one; `python side.py SIDE client` reads orders, one JSON object a line, does them with
that peer's own client (`CLIENT`), and answers each with a line. `WORK` is `noop`, or `io`: 10 ms asleep, 64 at a time
where the peer can.
"""

import asyncio
import json
import os
import socket
import struct
import sys
import time
from importlib import import_module
from typing import Any

URL = os.environ.get("PEER_URL", "redis://127.0.0.1:6379/0")
AT_ONCE = 64
IO = 0.010
_TOLD = struct.Struct("qqq")
_socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)


def host_and_port() -> tuple[str, int]:
    """Return where the engine is, for peers that take no URL."""
    host, _, port = URL.removeprefix("redis://").partition("/")[0].partition(":")
    return host, int(port)


def begun(sent: int, data: str) -> None:
    """Tell the harness that a job begins with this data; `sent` is when it was submitted, or is due, in ns."""
    _socket.sendto(_TOLD.pack(sent, time.monotonic_ns(), len(data)), os.environ["PEER_BEACON"])


def nap() -> None:
    """Do the work of `io` in a thread."""
    time.sleep(IO)  # noqa: TID251 - the work itself


class Client:
    """One peer's client; `one`, `many` and `later` are that peer's own ways."""

    async def open(self) -> None:
        """Connect."""

    async def close(self) -> None:
        """Close."""

    async def one(self, work: str, sent: int, data: str) -> None:
        """Submit one job and wait until the engine has it."""
        raise NotImplementedError

    async def many(self, work: str, jobs: list[tuple[int, str]]) -> None:
        """Submit these in the fastest way that the peer's documents have; one by one when there is none."""
        for sent, data in jobs:
            await self.one(work, sent, data)

    async def later(self, work: str, due: int, seconds: float) -> None:
        """Submit one job that begins after `seconds`."""
        raise NotImplementedError


async def _singly(client: Client, order: dict[str, Any]) -> int:
    data, ends, done = "x" * order["size"], time.monotonic() + order["seconds"], 0
    while done < order["count"] and time.monotonic() < ends:
        await client.one(order["work"], time.monotonic_ns(), data)
        done += 1
    return done


async def _batched(client: Client, order: dict[str, Any]) -> int:
    data, ends, done = "x" * order["size"], time.monotonic() + order["seconds"], 0
    while done < order["count"] and time.monotonic() < ends:
        most = min(order["batch"], order["count"] - done)
        await client.many(order["work"], [(time.monotonic_ns(), data)] * most)
        done += most
    return done


async def _paced(client: Client, order: dict[str, Any]) -> int:
    began = time.monotonic()
    for number in range(order["count"]):
        await asyncio.sleep(max(0.0, began + number / order["rate"] - time.monotonic()))
        await client.one(order["work"], time.monotonic_ns(), "x" * order["size"])
    return int(order["count"])


async def _delayed(client: Client, order: dict[str, Any]) -> int:
    for number in range(order["count"]):
        seconds = order["after"] + number * order["apart"]
        await client.later(order["work"], time.monotonic_ns() + int(seconds * 1e9), seconds)
    return int(order["count"])


ORDERS = {"singly": _singly, "batched": _batched, "paced": _paced, "delayed": _delayed}


async def _serve(client: Client) -> None:
    await client.open()
    print(json.dumps({"ready": True}), flush=True)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        order = json.loads(line)
        began = time.monotonic()
        done = await ORDERS[order["do"]](client, order)
        print(json.dumps({"done": done, "took": time.monotonic() - began}), flush=True)
    await client.close()


def become(*words: str) -> None:
    """Become a program of this environment."""
    os.execv(f"{sys.prefix}/bin/{words[0]}", words)


def main(name: str, part: str, *words: str) -> None:
    """Be the part of a side that the command line asks for."""
    side = import_module(name)
    if part == "worker":
        side.worker(*words)
    else:
        asyncio.run(_serve(side.CLIENT()))


if __name__ == "__main__":
    main(*sys.argv[1:])
