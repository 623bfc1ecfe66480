"""Whether an attempt hands its work over, or had better not: judged in the moment before."""

from msgspec import Struct

from hostler.contracts.failure import Failure, FailureClass, Stage
from hostler.contracts.lease import Lease
from hostler.dispatch.gauge import Gauge
from hostler.kernel.units import Seconds
from hostler.policy.deadline import worth_it

PAST: Seconds = 0.25
"""So long after its deadline a job comes back that cannot be done by then: it has expired by that time."""


class Refrained(Struct, frozen=True, kw_only=True):
    """The work was not begun, and uses no attempt."""

    failure: Failure
    """Why; `unsent` in its details says that the service has no part in it."""
    again_in: Seconds
    elsewhere: bool = False
    """Another endpoint may do better, at once."""


class Restraint:
    """Judges for one attempt at one endpoint."""

    def __init__(self, lease: Lease, *, endpoint: str, gauge: Gauge | None) -> None:
        self._lease = lease
        self._endpoint = endpoint
        self._gauge = gauge

    def judge(self, left: Seconds | None) -> Refrained | None:
        """Return why the work is better not begun, if it is; `left` are the seconds to the job's deadline."""
        median = None if self._gauge is None else self._gauge.median(self._lease.kind)
        if left is None or worth_it(left, median):
            return None
        left = max(0.0, left)
        usual = "" if median is None else f", and half of the last calls at {self._endpoint} took {median:.3g} s"
        return Refrained(
            failure=Failure(
                class_=FailureClass.TIMEOUT,
                stage=Stage.DEADLINE,
                message=f"not begun: {left:.3g} s are left until the deadline{usual}",
                details={"unsent": True},
            ),
            again_in=left + PAST,
            elsewhere=not self._judged_before(),
        )

    def _judged_before(self) -> bool:
        """Tell whether an earlier attempt found too little time at this endpoint: then others did no better."""
        return any(
            each.endpoint == self._endpoint and each.error is not None and each.error.stage is Stage.DEADLINE
            for each in self._lease.history
            if each.generation == self._lease.generation
        )
