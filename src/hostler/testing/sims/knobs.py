"""How a simulated service behaves, and the dice that make it repeat itself."""

import hashlib
from typing import Annotated

from msgspec import Meta, Struct, field

from hostler.kernel.units import Fraction, Seconds

FAILURE_CODES = (
    "invalid_input",
    "unknown_model",
    "internal_error",
    "out_of_memory",
    "quota_exceeded",
    "unauthorized",
    "content_refused",
)
"""Codes that a run may fail with, in the service's own words."""


class SimKnobs(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All knobs; each rate is the share of runs (or requests) that it strikes.

    What strikes a run follows from the seed, the job's id and the number of the run alone, so one seed
    gives one story.
    """

    duration: Seconds = 1.0
    """How long a run takes, unless its input says."""
    steps: Annotated[int, Meta(ge=1, le=10_000)] = 10
    failures: dict[str, Fraction] = field(default_factory=dict[str, float])
    """Share of runs that end with each code of `FAILURE_CODES`."""
    hang_rate: Fraction = 0.0
    """Runs that stop moving half-way and never end unless cancelled."""
    missed_rate: Fraction = 0.0
    """Runs that end well while their stream falls silent: only a status query tells."""
    drop_rate: Fraction = 0.0
    """Streams that are cut at a step, once per run; the run goes on."""
    burst_rate: Fraction = 0.0
    """Requests about jobs that begin a burst of server errors."""
    burst_length: Annotated[int, Meta(ge=1, le=10_000)] = 5
    """Requests that one burst answers with 500, 502 or 503."""
    health_failure_rate: Fraction = 0.0
    """Health checks that are answered 503; work is not touched."""
    loading: Seconds = 0.0
    """How long it reports itself as loading after its start; submits are refused as overload meanwhile."""
    slots: Annotated[int, Meta(ge=1, le=10_000)] = 4
    backlog: Annotated[int, Meta(ge=0, le=100_000)] = 0
    """Jobs that may wait for a slot; one more is answered 429."""
    retry_after: Seconds = 0.5
    """What a 429 says."""
    models: tuple[str, ...] = ("sim-small", "sim-large")
    labels: dict[str, str] = field(default_factory=dict[str, str])
    seed: int = 0

    def __post_init__(self) -> None:
        unknown = sorted(set(self.failures) - set(FAILURE_CODES))
        if unknown:
            raise ValueError(f"unknown failure codes {', '.join(unknown)}; there are {', '.join(FAILURE_CODES)}")
        if sum(self.failures.values()) > 1:
            raise ValueError("the failure rates add up to more than 1")


def chance(seed: int, *what: object) -> float:
    """Return a number in [0, 1) that follows from the seed and these words alone."""
    digest = hashlib.blake2b(repr((seed, *what)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2.0**64


class Fate(Struct, frozen=True, kw_only=True):
    """What one run is going to meet."""

    failure: str | None
    hangs: bool
    missed: bool
    drop_at: int | None
    """The step at which its stream is cut."""

    @classmethod
    def draw(cls, knobs: SimKnobs, job: str, run: int, steps: int) -> "Fate":
        """Draw the fate of the n-th run of a job."""
        roll = chance(knobs.seed, job, run, "failure")
        failure = None
        for code in FAILURE_CODES:
            roll -= knobs.failures.get(code, 0.0)
            if roll < 0:
                failure = code
                break
        drops = chance(knobs.seed, job, run, "drop") < knobs.drop_rate
        return cls(
            failure=failure,
            hangs=chance(knobs.seed, job, run, "hang") < knobs.hang_rate,
            missed=chance(knobs.seed, job, run, "missed") < knobs.missed_rate,
            drop_at=1 + int(chance(knobs.seed, job, run, "drop step") * steps) if drops else None,
        )
