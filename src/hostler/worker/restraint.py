"""Whether an attempt hands its work over, or had better not: judged in the moment before."""

from typing import Final

from msgspec import Struct, structs

from hostler.contracts.failure import Failure, FailureClass, Stage
from hostler.contracts.job import Attempt
from hostler.contracts.lease import Again, Ending, Lease
from hostler.dispatch.gauge import Gauge
from hostler.dispatch.repeats import Repeats
from hostler.kernel.units import Seconds
from hostler.policy.deadline import worth_it

PAST: Seconds = 0.25
"""So long after its deadline a job comes back that cannot be done by then: it has expired by that time."""

STORMS: Final = frozenset(
    {
        FailureClass.TRANSIENT,
        FailureClass.TIMEOUT,
        FailureClass.INTERNAL,
        FailureClass.OUT_OF_MEMORY,
        FailureClass.LOST,
    }
)
"""Failures after which the worker itself tries again; what has no room, or no credential, says when to come back."""
MESSAGE_MOST: Final = 2_000


class Refrained(Struct, frozen=True, kw_only=True):
    """The work was not begun, and uses no attempt."""

    failure: Failure
    """Why; `unsent` in its details says that the service has no part in it."""
    again_in: Seconds
    elsewhere: bool = False
    """Another endpoint may do better, at once."""


class Restraint:
    """Judges for one attempt at one endpoint; `repeats` is the retry budget of its service."""

    def __init__(self, lease: Lease, *, endpoint: str, gauge: Gauge | None, repeats: Repeats | None) -> None:
        self._lease = lease
        self._endpoint = endpoint
        self._gauge = gauge
        self._repeats = repeats
        self._took = False

    def judge(self, left: Seconds | None) -> Refrained | None:
        """Return why the work is better not begun, if it is; `left` are the seconds to the job's deadline.

        Work that is begun is counted: for the first time, or out of the retry budget.
        """
        return self._too_late(left) or self._too_often()

    def went_well(self) -> None:
        """Note that the work has a result: a repeat that worked costs nothing."""
        if self._took and self._repeats is not None:
            self._repeats.give_back()

    def unsent(self) -> None:
        """Note that the work was never handed over: neither a call nor a repeat was made."""
        if self._repeats is not None:
            (self._repeats.give_back if self._took else self._repeats.unsaid)()
        self._took = False

    def slowed(self, ending: Ending) -> Ending:
        """Return an ending that does not add to a storm: with the retry budget used up, the next try comes later."""
        if not isinstance(ending, Again) or ending.failure is None or self._repeats is None or not self._repeats.spent:
            return ending
        if ending.failure.class_ not in STORMS:
            return ending
        delay = max(ending.delay, self._repeats.pause())
        why = f"; {_used_up(self._repeats)}: again in {delay:.1f} s"
        words = ending.failure.message[: MESSAGE_MOST - len(why)] + why
        return structs.replace(ending, delay=delay, failure=structs.replace(ending.failure, message=words))

    def _too_late(self, left: Seconds | None) -> Refrained | None:
        if left is None:
            return None
        median = None if self._gauge is None else self._gauge.median(self._lease.kind)
        if worth_it(left, median):
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
            elsewhere=not any(
                each.endpoint == self._endpoint and each.error is not None and each.error.stage is Stage.DEADLINE
                for each in self._tries()
            ),
        )

    def _too_often(self) -> Refrained | None:
        if self._repeats is None:
            return None
        if not any(
            each.outcome == "retry" and each.error is not None and each.error.class_ in STORMS and not each.error.unsent
            for each in self._tries()
        ):
            self._repeats.called()
            return None
        self._took = self._repeats.take()
        if self._took:
            return None
        pause = self._repeats.pause()
        words = f"not begun: {_used_up(self._repeats)}: again in {pause:.1f} s"
        failure = Failure(class_=FailureClass.TRANSIENT, message=words, details={"unsent": True})
        return Refrained(failure=failure, again_in=pause)

    def _tries(self) -> list[Attempt]:
        """Return the earlier attempts of this generation."""
        return [each for each in self._lease.history if each.generation == self._lease.generation]


def _used_up(repeats: Repeats) -> str:
    return f"the retry budget of {repeats.service} is used up"
