"""The flags of the simulated services that share one set of knobs, whatever protocol they speak."""

from dataclasses import dataclass
from typing import Annotated

from cyclopts import Parameter

from hostler.cli.sim_run import judged, shares
from hostler.testing.sims.knobs import FAILURE_CODES, SimKnobs


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class KnobFlags:
    """The knobs of `SimKnobs` that can be set when a service starts."""

    duration: float | None = None
    """Seconds that a run takes, unless its input says."""
    steps: int | None = None
    """Steps of a run."""
    fail: Annotated[
        tuple[str, ...], Parameter(help=f"CODE=SHARE of runs that fail: {', '.join(FAILURE_CODES)}.", negative="")
    ] = ()
    hang: float | None = None
    """Share of runs that never end."""
    missed: float | None = None
    """Share of runs whose end is not said, only shown."""
    drop: float | None = None
    """Share of streams that are cut."""
    burst: float | None = None
    """Share of requests that begin a burst of server errors."""
    burst_length: int | None = None
    """Requests in one burst."""
    health_failures: float | None = None
    """Share of health checks that fail."""
    loading: float | None = None
    """Seconds that it says it loads."""
    slots: int | None = None
    """Runs at the same time."""
    backlog: int | None = None
    """Runs that may wait for a slot."""
    seed: int | None = None
    """One seed gives one story."""

    def knobs(self, command: str) -> SimKnobs:
        """Return the knobs; `SettingsError` of the command for what makes no sense."""
        named: dict[str, object] = {
            "duration": self.duration,
            "steps": self.steps,
            "failures": shares("--fail", self.fail),
            "hang_rate": self.hang,
            "missed_rate": self.missed,
            "drop_rate": self.drop,
            "burst_rate": self.burst,
            "burst_length": self.burst_length,
            "health_failure_rate": self.health_failures,
            "loading": self.loading,
            "slots": self.slots,
            "backlog": self.backlog,
            "seed": self.seed,
        }
        return judged(command, named, SimKnobs)
