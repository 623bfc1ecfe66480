"""How the end of an attempt's work is recorded: what the job's next step is."""

import msgspec
import structlog
from msgspec import Raw

from hostler.contracts.failure import Failure, FailureClass
from hostler.contracts.job import INLINE_LIMIT, BlobRef
from hostler.contracts.lease import Again, Die, Ending, Lease, Stopped, Succeed
from hostler.contracts.queue import KindSpec
from hostler.contracts.service import Failed, Finished
from hostler.dispatch.sharing import Later
from hostler.policy.lanes import shun
from hostler.policy.retry import after_failure, refusals, returns
from hostler.worker.restraint import Refrained, Restraint
from hostler.worker.runs import Cause, Tools

_LOG = structlog.stdlib.get_logger("hostler.worker.attempt")

Outcome = Finished | Failed | Later | Refrained


class Endings:
    """Judges for one attempt; `others` tells whether another endpoint of this worker could run the job."""

    def __init__(
        self, lease: Lease, spec: KindSpec, tools: Tools, restraint: Restraint | None, *, others: bool
    ) -> None:
        self._lease, self._spec, self._tools, self._restraint = lease, spec, tools, restraint
        self._others = others

    async def of(self, outcome: Outcome | Cause, *, endpoint: str | None, blob: BlobRef | None) -> Ending | None:
        """Return the ending of work that ended so, at this endpoint; None when there is nothing to record.

        `blob` is where the result is, when it is too large for the broker.
        """
        blamed = (self._others and endpoint) or self._tools.worker
        match outcome:
            case Cause.LOST:
                _LOG.warning("lease lost, work dropped", job=self._lease.job_id, fence=self._lease.fence)
                return None
            case Cause.CANCEL:
                return Stopped()
            case Cause.GIVE_BACK | Later():
                seconds = outcome.seconds if isinstance(outcome, Later) else 0.0
                return Again(failure=None, delay=seconds, counted=False)
            case Refrained():
                return await self._put_off(outcome, blamed)
            case Finished(result=result):
                return _success(result, blob)
            case Failed(failure=failure):
                return await self._after(failure, blamed)

    async def _after(self, failure: Failure, blamed: str) -> Ending:
        lease, tools = self._lease, self._tools
        ending = after_failure(
            failure,
            policy=msgspec.structs.replace(self._spec.retry, attempts=lease.attempts_max),
            attempts_used=lease.attempts_used,
            overloads=lease.overloads,
            dice=tools.dice.roll,
            others_fit=self._others or await tools.others_fit(lease.lane),
            lane=lease.lane,
            worker=blamed,
            losses=_losses(lease),
            came_back=returns(lease, blamed),
            refused=refusals(lease),
        )
        return ending if self._restraint is None else self._restraint.slowed(ending)

    async def _put_off(self, refrained: Refrained, blamed: str) -> Again:
        """Send the job back that was not begun: at once where another endpoint may do better, else when it is said."""
        if refrained.elsewhere and (self._others or await self._tools.others_fit(self._lease.lane)):
            return Again(failure=refrained.failure, counted=False, lane=shun(self._lease.lane, blamed))
        return Again(failure=refrained.failure, counted=False, delay=refrained.again_in)


def _success(result: Raw, blob: BlobRef | None) -> Ending:
    if blob is not None:
        return Succeed(ref=blob)
    size = len(bytes(result))
    if size <= INLINE_LIMIT:
        return Succeed(result=result)
    words = f"a result of {size} bytes is over {INLINE_LIMIT}, and this worker has no blob store for it"
    return Die(failure=Failure(class_=FailureClass.INTERNAL, message=words))


def _losses(lease: Lease) -> int:
    """Return how many earlier attempts of this generation ended because the service had lost the work."""
    return sum(
        attempt.generation == lease.generation
        and attempt.outcome == "retry"
        and attempt.error is not None
        and attempt.error.class_ is FailureClass.LOST
        for attempt in lease.history
    )
