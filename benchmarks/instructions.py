"""Instructions that the engine executes for each job, by verb and by what they are for; no clock has a part in that.

`python -m benchmarks.instructions [--rounds N]` runs the engine under callgrind (package `valgrind`), switches counting
on for one verb at a time, and sorts its functions into groups by their names. Counts of the same code differ by a
percent or two between runs: the engine's own timers and the order of keys in its tables have a part in them.
"""

import argparse
import asyncio
import re
import subprocess
from collections import Counter
from collections.abc import Awaitable, Callable

import uvloop

from benchmarks.claim_path import fill, job, offer, settle_all
from hostler.broker.engine_submit import submit_jobs
from hostler.contracts.lease import Lease
from hostler.testing.bench import Bench, Server
from hostler.valkeyio.embedded import server_program

LANES, TENANTS, WAITING = 4, 20, 6_000
GROUPS = (
    ("packing and unpacking", r"mp_|table_is_an_array"),
    ("Lua", r"lua|0x|str_format"),
    ("memory", r"_int_|malloc|calloc|realloc|cfree|free$|__mem|zmalloc|zfree|sysmalloc|unlink_chunk"),
    (
        "numbers as text",
        r"_*strto|_*printf|_*vfprintf|str_to_mpn|_*mpn_|ll2string|string2|_*snprintf|_*vsnprintf|hack_digit",
    ),
)
"""First match wins: the server's own functions have names, those of its Lua none but where others call them. What
matches none is the engine's commands, replies and log."""


class Counted(Server):
    """A server under callgrind, which counts nothing until it is told to."""

    def start(self, *more: str) -> None:
        """Start it; it takes some seconds."""
        words = ("--port", "0", "--unixsocket", str(self.socket), "--dir", str(self.folder), "--save", "", *more)
        safe = ("--appendonly", "yes", "--appendfsync", "always", "--maxmemory-policy", "noeviction")
        counting = ("--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={self.folder}/counts")
        self._process = subprocess.Popen(
            ["valgrind", *counting, str(server_program()), *words, *safe],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def control(self, *words: str) -> None:
        """Tell callgrind something."""
        if self._process is None:
            raise AssertionError("the server does not run")
        pid = str(self._process.pid)
        subprocess.run(["callgrind_control", *words, pid], check=True, capture_output=True)

    def counted(self) -> Counter[str]:
        """Return the instructions since the last look, by group, and forget them."""
        before = set(self.folder.glob("counts*"))
        self.control("--dump")
        (dump,) = set(self.folder.glob("counts*")) - before
        words = ["callgrind_annotate", "--threshold=100", "--show-percs=no", str(dump)]
        said = subprocess.run(words, check=True, capture_output=True, text=True)
        found: Counter[str] = Counter()
        for line in said.stdout.splitlines():
            match = re.match(r"\s*([\d,]+)\s+\S*?:(\S+)", line)
            if match is not None:
                found[group_of(match[2])] += int(match[1].replace(",", ""))
        return found


def group_of(function: str) -> str:
    """Return what a function of the server is for."""
    return next((name for name, pattern in GROUPS if re.match(pattern, function)), "commands, replies and log")


async def of(server: Counted, rounds: int, act: Callable[[], Awaitable[object]]) -> Counter[str]:
    """Count one verb that many times."""
    await act()
    await asyncio.to_thread(server.control, "--instr=on")
    for _ in range(rounds):
        await act()
    await asyncio.to_thread(server.control, "--instr=off")
    return await asyncio.to_thread(server.counted)


async def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=40)
    options = parser.parse_args()
    server = Counted()
    server.start()
    try:
        await server.up(within=120.0)
        bench = Bench(server, "q")
        await bench.library.ensure()
        await fill(bench, WAITING, lanes=LANES, tenants=TENANTS)
        names = [*(name for name, _ in GROUPS), "commands, replies and log"]
        print(f"| verb | jobs a call | thousand instructions a job | {' | '.join(names)} |")
        print("|---" * (len(names) + 3) + "|")
        for batch in (1, 16, 64):
            for verb, act in acts(bench, batch).items():
                found = await of(server, options.rounds, act)
                whole = sum(found.values())
                shares = " | ".join(f"{found[name] / whole:.0%}" for name in names)
                print(f"| {verb} | {batch} | {whole / options.rounds / batch / 1000:,.0f} | {shares} |", flush=True)
        await bench.aclose()
    finally:
        server.kill()


def acts(bench: Bench, batch: int) -> dict[str, Callable[[], Awaitable[object]]]:
    """Return one call of each verb; what one claims the next one settles, some claims later."""
    held: list[tuple[Lease, ...]] = []
    jobs = [job(number % TENANTS, number % LANES) for number in range(batch)]

    async def claim() -> None:
        held.append(await bench.claim(batch, offers=[offer(LANES)], slots=100_000))

    async def settle() -> None:
        await settle_all(bench, held.pop())

    return {
        "submit": lambda: submit_jobs(bench.library, bench.queue, jobs, bench.operation()),
        "claim": claim,
        "settle": settle,
    }


if __name__ == "__main__":
    uvloop.run(main())
