"""Play many stories: `python -m hostler.testing.simulation [--seeds N] [--first SEED] [--processes N]`.

Prints each story in which a promise was broken, with its seed, and how many there were, by the clock and by the minute
of one processor, which depends less on what else the machine does; exit code 1 when there is a broken one.
`--first SEED --seeds 1` plays one again.
"""

import argparse
import gc
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor

from hostler.kernel.units import Seconds
from hostler.testing.simulation.judging import Told
from hostler.testing.simulation.plot import plot
from hostler.testing.simulation.story import tell


def told(seed: int) -> Told:
    """Play one story."""
    return tell(plot(seed))


def begin() -> None:
    """Leave out what is imported when what is left over is looked for at the end of every story."""
    gc.collect()
    gc.freeze()


def played(seeds: range, processes: int) -> Iterator[Told]:
    """Play the stories of these seeds."""
    if processes == 1:
        begin()
        yield from map(told, seeds)
        return
    with ProcessPoolExecutor(processes, initializer=begin) as pool:
        yield from pool.map(told, seeds, chunksize=8)


def processors() -> Seconds:
    """Return how long processors have worked for this process and those that it has ended."""
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system


def say(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> int:
    """Play and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    began, before = time.monotonic(), processors()
    stories = broken = 0
    jobs = claims = 0
    for one in played(range(options.first, options.first + options.seeds), options.processes):
        stories, jobs, claims = stories + 1, jobs + one.jobs, claims + one.claims
        if one.findings:
            broken += 1
            say(f"seed {one.seed}: " + "; ".join(one.findings))
        if options.seeds == 1:
            say(f"{one.jobs} jobs, {one.claims} claims, {one.seconds:g} s, digest {one.digest}")
    took, busy = time.monotonic() - began, processors() - before
    say(
        f"{stories} stories, {jobs} jobs, {claims} claims, {broken} broken, "
        f"{stories / took * 60:.0f} a minute, {stories / busy * 60:.0f} a processor-minute"
    )
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
