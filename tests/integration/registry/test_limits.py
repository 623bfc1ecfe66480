"""Shared limits, asked for by several real processes as fast as they can."""

import asyncio
import sys
from asyncio.subprocess import PIPE, Process
from datetime import datetime

import pytest

from hostler.testing.bench import Server
from hostler.testing.limits import most_in_a_window

WORKERS = 4
EACH = 40
GREEDY = """
import asyncio, os, sys
from pathlib import Path
from hostler.contracts.limit import Grant, Want
from hostler.policy.limits import parse
from hostler.registry.limits import EngineLimiter
from hostler.testing.bench import Clients

async def main(socket, text, most):
    clients = Clients(Path(socket))
    limiter = EngineLimiter(clients)
    limit = parse(text, name="shared")
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    granted = refused = 0
    while granted < int(most):
        call, wants = f"{os.getpid()}-{granted}", [Want(limit=limit, units=1 + granted % 9 if limit.unit else 1)]
        answer = await limiter.take(call, wants)
        if isinstance(answer, Grant):
            granted += 1
            (look,) = await limiter.look([limit])
            print(answer.at.isoformat(), wants[0].units, look.leases, flush=True)
            if limit.per is None:
                await limiter.settle(call, wants)
        else:
            refused += 1
    print("refused", refused, flush=True)
    await clients.aclose()

asyncio.run(main(*sys.argv[1:]))
"""


async def ready(server: Server, text: str) -> Process:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", GREEDY, str(server.socket), text, str(EACH), stdin=PIPE, stdout=PIPE
    )
    assert process.stdout is not None
    assert (await process.stdout.readline()) == b"ready\n"
    return process


@pytest.mark.row("003:330")
@pytest.mark.parametrize(("text", "most"), [("60/s", 60), ("100/s burst 40", 100), ("200 tokens/s burst 80", 200)])
@pytest.mark.usefixtures("clients")
async def test_what_four_processes_are_granted_together_keeps_to_the_limit(
    server: Server, text: str, most: int
) -> None:
    lines = await said_by_all(server, text)
    grants = sorted((datetime.fromisoformat(line[0]), int(line[1])) for line in lines if len(line) == 3)
    assert len(grants) == WORKERS * EACH
    assert most_in_a_window([at for at, _ in grants], 1.0, [units for _, units in grants]) <= most
    assert all(int(line[1]) > 0 for line in lines if line[0] == "refused")  # each of them was held back


@pytest.mark.row("003:330")
@pytest.mark.usefixtures("clients")
async def test_four_processes_never_have_more_in_flight_than_the_limit(server: Server) -> None:
    lines = await said_by_all(server, "in_flight 3")
    leases = [int(line[2]) for line in lines if len(line) == 3]
    assert len(leases) == WORKERS * EACH
    assert max(leases) == 3


async def said_by_all(server: Server, text: str) -> list[list[str]]:
    """Return what processes that ask as fast as they can say: each grant with units and leases, and refusals."""
    workers = await asyncio.gather(*(ready(server, text) for _ in range(WORKERS)))
    said = await asyncio.gather(*(worker.communicate(b"go\n") for worker in workers))
    return [line.split() for out, _ in said for line in out.decode().splitlines()]
