"""Hostler beside its peers, on one machine in one run.

`python -m benchmarks.peers [--peers A,B] [--cells A,B] [--sync always,everysec] [--seconds S]`

Every peer has an environment of its own (locks in `requirements/peers`), the same engine with AOF `always` and again
with `everysec`, one client process and one worker process at its best documented settings (each side says which). All
are measured alike: a job tells a socket of the harness when it begins. A cell takes about `--seconds` at most, 30
unless set.
"""

import argparse
import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from benchmarks.peers.catalogue import PEERS, Peer
from benchmarks.peers.harness import Place, delays, place, rate
from hostler.kernel.errors import ServiceUnavailableError

Cell = Callable[[Place, float], Awaitable[str]]
BATCH: Final = 100
SMALL: Final = 100
"""Bytes of a job's data unless the cell is about size."""


def _client(there: Place):
    assert there.client is not None
    return there.client


async def enqueue_singly(there: Place, seconds: float) -> str:
    done, took = await _client(there).do(do="singly", work="noop", count=20_000, size=SMALL, seconds=seconds / 3)
    return f"{done / took:,.0f}/s"


async def enqueue_batched(there: Place, seconds: float) -> str:
    done, took = await _client(there).do(
        do="batched", work="noop", count=100_000, batch=BATCH, size=SMALL, seconds=seconds / 3
    )
    return f"{done / took:,.0f}/s"


async def _drain(there: Place, seconds: float, work: str, *, size: int = SMALL, count: int, workers: int = 1) -> str:
    """Fill the queue while nobody works, then let the workers at it."""
    done, _ = await _client(there).do(do="batched", work=work, count=count, batch=BATCH, size=size, seconds=seconds / 3)
    begun = await there.drain(work, done, workers=workers, seconds=seconds / 2)
    if there.beacon.sizes != {size}:
        return f"data of {there.beacon.sizes} bytes arrived"
    return f"{rate(begun):,.0f}/s"


async def noop(there: Place, seconds: float) -> str:
    return await _drain(there, seconds, "noop", count=20_000)


async def noop_by_two(there: Place, seconds: float) -> str:
    return await _drain(there, seconds, "noop", count=20_000, workers=2)


async def io(there: Place, seconds: float) -> str:
    return await _drain(there, seconds, "io", count=10_000)


async def small_payload(there: Place, seconds: float) -> str:
    return await _drain(there, seconds, "noop", size=1_000, count=10_000)


async def large_payload(there: Place, seconds: float) -> str:
    return await _drain(there, seconds, "noop", size=64_000, count=2_000)


async def backlog(there: Place, seconds: float) -> str:
    return await _drain(there, seconds, "noop", count=100_000)


async def latency(there: Place, seconds: float) -> str:
    """From submit to start at a tenth of what the peer does, by two short looks at that first."""
    await there.work("noop")
    client, possible = _client(there), 50.0
    for _ in range(2):
        most = min(2_000, int(2 * possible))
        count, _ = await client.do(do="batched", work="noop", count=most, batch=BATCH, size=SMALL, seconds=seconds / 6)
        begun = list(await there.beacon.until(count, seconds=seconds / 2))
        if len(begun) < count:
            return f"{len(begun)} of {count} jobs began in {seconds / 2:g} s"
        possible = rate(begun)
        there.beacon.begun.clear()
    pace = max(1.0, possible / 10)
    wanted = max(20, int(pace * seconds / 6))
    await client.do(do="paced", work="noop", count=wanted, rate=pace, size=SMALL)
    median, worst = delays(await there.beacon.until(wanted, seconds=5.0))
    return f"{median:.1f} / {worst:.1f} ms at {pace:,.0f}/s"


async def delayed(there: Place, _: float) -> str:
    """How late 200 jobs begin that are due 10 ms apart."""
    await there.work("noop")
    try:
        await _client(there).do(do="delayed", work="noop", count=200, after=3.0, apart=0.01)
    except RuntimeError as error:
        return "cannot" if "NotImplementedError" in str(error) else f"failed: {error}"
    begun = await there.beacon.until(200, seconds=15.0)
    if not begun:
        return "none began"
    median, worst = delays(begun)
    early = sum(at < due for due, at in begun)
    return f"{median:.0f} / {worst:.0f} ms" + (f", {early} early" if early else "")


CELLS: Final[dict[str, Cell]] = {
    each.__name__.replace("_", "-"): each
    for each in (
        enqueue_singly,
        enqueue_batched,
        noop,
        noop_by_two,
        io,
        small_payload,
        large_payload,
        latency,
        delayed,
        backlog,
    )
}


async def measure(peer: Peer, cell: Cell, sync: str, seconds: float) -> str:
    try:
        async with place(peer, sync) as there, asyncio.timeout(2 * seconds + 60):
            return await cell(there, seconds)
    except (RuntimeError, TimeoutError, ServiceUnavailableError) as error:
        print(f"  {peer.name}: {error!r}", flush=True)
        return "failed"


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers", default=",".join(peer.name for peer in PEERS))
    parser.add_argument("--cells", default=",".join(CELLS))
    parser.add_argument("--sync", default="always,everysec")
    parser.add_argument("--seconds", type=float, default=30.0)
    options = parser.parse_args()
    known = {peer.name.lower(): peer for peer in PEERS}
    names, cells = options.peers.lower().split(","), options.cells.split(",")
    if unknown := [*(name for name in names if name not in known), *(name for name in cells if name not in CELLS)]:
        parser.error(f"unknown: {', '.join(unknown)}; peers: {', '.join(known)}; cells: {', '.join(CELLS)}")
    peers = [known[name] for name in names]
    for sync in options.sync.split(","):
        print(f"\n## AOF {sync}\n", flush=True)
        print("| | " + " | ".join(peer.name for peer in peers) + " |\n|---" + "|---" * len(peers) + "|", flush=True)
        for name in cells:
            row = [await measure(peer, CELLS[name], sync, options.seconds) for peer in peers]
            print(f"| {name} | " + " | ".join(row) + " |", flush=True)
    print("\n" + "\n".join(f"- {peer.name} gives up: {peer.gives_up}" for peer in peers))


if __name__ == "__main__":
    asyncio.run(main())
