"""What several runs of one scenario came to together: recoveries are too few in one run for a p99."""

from collections import Counter
from collections.abc import Sequence
from itertools import chain
from typing import Literal

from msgspec import Struct

from hostler.chaos.outcome import VIOLATIONS_MOST, Facts, Outcome
from hostler.chaos.recovery import Spread, failovers, recoveries, spread
from hostler.kernel.units import Seconds


class Times(Struct, frozen=True, kw_only=True):
    """How long one run's work waited."""

    struck: tuple[tuple[str, Seconds], ...]
    """Of each job that a fault struck: the kind of fault, and how long it waited for its next claim."""
    failovers: tuple[Seconds, ...]


class Series(Struct, frozen=True, kw_only=True):
    """The last line of several runs: sums, and the spread over every job that was struck in any of them."""

    verdict: Literal["ok", "failed"]
    runs: int
    submitted: int
    lost: int
    recorded_twice: int
    executed_again: int
    faults: dict[str, int]
    recovery_s: Spread
    recovery_by_fault_s: dict[str, Spread]
    failover_s: Spread
    lost_in_window: int
    violations: tuple[str, ...]
    scenario: str
    seeds: tuple[int, ...]
    folder: str


def times_of(facts: Facts) -> Times:
    """Return how long the work of one run waited."""
    struck = ((one.fault.kind, one.waited) for one in recoveries(facts.whole) if one.waited is not None)
    return Times(struck=tuple(struck), failovers=tuple(gap for _, gap in failovers(facts.whole)))


def series_of(outcomes: Sequence[Outcome], times: Sequence[Times], *, folder: str) -> Series:
    """Put runs of one scenario together; there is one at least."""
    struck = list(chain.from_iterable(one.struck for one in times))
    faults: Counter[str] = Counter()
    for outcome in outcomes:
        faults.update(outcome.faults)
    told = tuple(f"seed {one.seed}: {sentence}" for one in outcomes for sentence in one.violations)
    return Series(
        verdict="ok" if all(one.verdict == "ok" for one in outcomes) else "failed",
        runs=len(outcomes),
        submitted=sum(one.submitted for one in outcomes),
        lost=sum(one.lost for one in outcomes),
        recorded_twice=sum(one.recorded_twice for one in outcomes),
        executed_again=sum(one.executed_again for one in outcomes),
        faults=dict(faults),
        recovery_s=spread([waited for _, waited in struck]),
        recovery_by_fault_s={
            kind: spread([waited for other, waited in struck if other == kind])
            for kind in sorted({kind for kind, _ in struck})
        },
        failover_s=spread([gap for one in times for gap in one.failovers]),
        lost_in_window=sum(one.lost_in_window for one in outcomes),
        violations=told[:VIOLATIONS_MOST],
        scenario=outcomes[0].scenario,
        seeds=tuple(one.seed for one in outcomes),
        folder=folder,
    )
