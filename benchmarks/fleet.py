"""A fleet past one machine, on paper and played: what it says to the engine, what that costs, what a fail-over does.

`python -m benchmarks.fleet [--shards N] [--workers N] [--jobs-a-minute N] [--seconds S] [--seed N]`. A queue of many
shards, each on a primary of its own; each worker serves some of the shards. Jobs, finishes, claims and wake-ups are
played one by one; what comes by the clock alone (hearts, upkeep, idle polls) is added up. Costs are those that
`benchmarks.fleet_costs` measured; how often who says what is what this Hostler does.
"""

import argparse
import heapq
import random
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Final

COSTS: Final[dict[str, float]] = {
    "submit": 183.4,
    "claim": 281.5,
    "settle": 152.8,
    "renew": 33.2,
    "empty claim": 92.1,
    "crew": 8.0,
    "announce": 115.7,
    "roster, each worker": 5.0,
}
"""Microseconds of the engine's one thread for one of each, called alone on two shared cores."""
BEAT: Final = 3.0
"""Seconds between two beats of a heart: an announcement, the renewal of all that it holds."""
POLL: Final = 3.5
"""Seconds after which a worker that hears nothing asks all its shards."""
ASKS: Final = 3.5
"""Seconds after which a worker looks again whether the upkeep of a shard is due, when others do it."""
MUSTERS: Final = 4.0
"""Seconds after which the upkeep of a shard reads the whole roster where some do not claim; ten where all do."""
CONNECTIONS: Final = 3
"""Of one worker to each primary that it speaks to: calls, the wait for wake-ups, its heart's own."""
GAP: Final = 4.0
"""Seconds for which a primary is away until another one serves, as measured (docs/reliability.md)."""

COLUMNS: Final = (
    "shards of a worker",
    "calls/s of a primary",
    "its load",
    "of that for jobs",
    "its connections",
    "load of the registry",
    "wait p50 / p99",
    "after a fail-over",
)


@dataclass(frozen=True, kw_only=True)
class Fleet:
    """What is played."""

    shards: int = 100
    workers: int = 10_000
    jobs: float = 1_000_000 / 60
    """A second."""
    slots: int = 6
    work: float = 3.0
    """Seconds that a job runs, on the average; exponential."""
    served: int = 100
    """Shards that each worker serves: today all of its queue."""


@dataclass
class Played:
    """What happened."""

    seconds: float
    submitted: int = 0
    begun: int = 0
    waits: list[float] = field(default_factory=list[float])
    said: Counter[str] = field(default_factory=Counter[str])
    """Calls about jobs, by function."""
    held: list[int] = field(default_factory=list[int])
    """Jobs that ran at the end, by worker."""

    def wait(self, part: float) -> float:
        """Return how long this part of the jobs waited at most, in seconds."""
        waits = sorted(self.waits)
        return waits[min(len(waits) - 1, int(part * len(waits)))] if waits else 0.0


class Play:
    """Jobs come, wake a worker, are claimed, end, and have the next one claimed."""

    def __init__(self, fleet: Fleet, *, seconds: float, seed: int) -> None:
        self._fleet, self._dice = fleet, random.Random(seed)
        self._lines: list[deque[float]] = [deque() for _ in range(fleet.shards)]
        self._serves = [self._drawn(worker) for worker in range(fleet.workers)]
        self._idle: list[deque[int]] = [deque() for _ in range(fleet.shards)]
        """Workers with room that serve a shard; some of them are full by now."""
        self._running = [0] * fleet.workers
        self._ends: list[tuple[float, int]] = []
        self._seconds = seconds
        self.found = Played(seconds=seconds)
        for worker, shards in enumerate(self._serves):
            for shard in shards:
                self._idle[shard].append(worker)
        for idle in self._idle:
            self._dice.shuffle(idle)

    def _drawn(self, worker: int) -> tuple[int, ...]:
        """Return a worker's shards: neighbours on a ring, so that all shards have equally many workers."""
        fleet = self._fleet
        first = worker * fleet.served
        return tuple((first + step) % fleet.shards for step in range(fleet.served))

    def run(self) -> Played:
        """Play to the end."""
        now, found = 0.0, self.found
        while True:
            now += self._dice.expovariate(self._fleet.jobs)
            while self._ends and self._ends[0][0] <= now:
                self._end(*heapq.heappop(self._ends))
            if now > self._seconds:
                break
            found.submitted += 1
            found.said["submit"] += 1
            self._arrive(self._dice.randrange(self._fleet.shards), now)
        found.held = self._running
        return found

    def _arrive(self, shard: int, now: float) -> None:
        idle = self._idle[shard]
        while idle:
            worker = idle[-1]
            if self._running[worker] < self._fleet.slots:
                self._begin(worker, now, now)
                return
            idle.pop()
        self._lines[shard].append(now)

    def _begin(self, worker: int, now: float, since: float) -> None:
        self._running[worker] += 1
        self.found.begun += 1
        self.found.said["claim"] += 1
        self.found.waits.append(now - since)
        heapq.heappush(self._ends, (now + self._dice.expovariate(1 / self._fleet.work), worker))

    def _end(self, now: float, worker: int) -> None:
        """Settle, and ask the shards in turn until one has work."""
        was_full = self._running[worker] == self._fleet.slots
        self._running[worker] -= 1
        self.found.said["settle"] += 1
        shards = self._serves[worker]
        first = self._dice.randrange(len(shards))
        for step in range(len(shards)):
            shard = shards[(first + step) % len(shards)]
            if self._lines[shard]:
                self._begin(worker, now, self._lines[shard].popleft())
                return
            self.found.said["empty claim"] += 1
        if was_full:
            for shard in shards:
                self._idle[shard].appendleft(worker)


def by_the_clock(fleet: Fleet, held: float) -> tuple[dict[str, float], dict[str, float]]:
    """Return the calls a second that come without any job: to all shards together, and to the registry.

    `held` is the average number of jobs that a worker runs.
    """
    shards = {
        "renew": fleet.workers * held / BEAT,
        "empty claim": fleet.workers * fleet.served / POLL,
        "crew": fleet.workers * fleet.served / ASKS,
    }
    registry = {
        "announce": fleet.workers / BEAT,
        "roster, each worker": fleet.shards * fleet.workers / MUSTERS,
    }
    return shards, registry


def load(calls: dict[str, float]) -> float:
    """Return the share of one engine's thread that so many calls a second take."""
    return sum(count * COSTS[name] for name, count in calls.items()) / 1e6


def fail_over(fleet: Fleet) -> tuple[float, float]:
    """Return the jobs that wait when another primary serves, and the seconds until its one thread has caught up.

    Their submits, claims and settlements are all said at once; meanwhile as many come as ever.
    """
    rate = fleet.jobs / fleet.shards
    late = rate * GAP
    each = (COSTS["submit"] + COSTS["claim"] + COSTS["settle"]) / 1e6
    asking = fleet.workers * fleet.served / fleet.shards * COSTS["empty claim"] / 1e6
    return late, (late * each + asking) / max(1e-9, 1 - rate * each)


def report(fleet: Fleet, *, seconds: float, seed: int) -> str:
    """Play a fleet and return a row of the table."""
    found = Play(fleet, seconds=seconds, seed=seed).run()
    held = sum(found.held) / fleet.workers
    shards, registry = by_the_clock(fleet, held)
    for name, count in found.said.items():
        shards[name] = shards.get(name, 0.0) + count / seconds
    of_jobs = load({name: shards[name] for name in ("submit", "claim", "settle")}) / fleet.shards
    late, until = fail_over(fleet)
    cells = (
        f"{fleet.served}",
        f"{sum(shards.values()) / fleet.shards:,.0f}",
        f"{load(shards) / fleet.shards:.0%}",
        f"{of_jobs:.0%}",
        f"{fleet.workers * fleet.served / fleet.shards * CONNECTIONS:,.0f}",
        f"{load(registry):.0%}",
        f"{found.wait(0.5) * 1000:.0f} / {found.wait(0.99) * 1000:.0f} ms",
        f"{late:,.0f} jobs, {until:.2f} s",
    )
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shards", type=int, default=100)
    parser.add_argument("--workers", type=int, default=10_000)
    parser.add_argument("--jobs-a-minute", type=float, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    print(f"| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|")
    for served in sorted({options.shards, *(n for n in (16, 4, 2, 1) if n < options.shards)}, reverse=True):
        fleet = Fleet(shards=options.shards, workers=options.workers, jobs=options.jobs_a_minute / 60, served=served)
        print(report(fleet, seconds=options.seconds, seed=options.seed), flush=True)


if __name__ == "__main__":
    main()
