"""The model as a judge: it follows the broker under test where the promise of order leaves a choice."""

from collections.abc import Iterator
from datetime import datetime

from hostler.broker.model import ModelBroker
from hostler.broker.model_core import ACCEPTING
from hostler.broker.model_room import Choice, Room
from hostler.broker.model_state import JobRecord, QueueRecord
from hostler.contracts.job import JobState
from hostler.contracts.lease import ClaimRequest, Lease
from hostler.contracts.needs import Lane
from hostler.policy.lanes import lane_key
from hostler.testing.clock import FakeClock


class JudgingModel(ModelBroker):
    """A model that is told which jobs the broker under test chose, and agrees if it may.

    Jobs of one concurrency key and lane stand in each other's way: one of them holds the place in the line
    until it has run, even if a better one came after it. A job that shuns the worker may be kept from it while
    another live one has not looked at its lane yet. Such a job may keep room for itself, or may not be looked at at
    all; so two rooms are followed, one in which it does and one in which it does not. Everything else must be the very
    job that is due.
    """

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(clock)
        self.chosen: list[str] = []
        self._claims = 0
        self._claimed: dict[str, int] = {}
        """By worker: its last claim."""
        self._lanes: dict[str, int] = {}
        """By lane: the first claim after it came up."""
        self._strict: Room | None = None
        """The room of the claim that is judged now."""
        self._lenient: Room | None = None
        """The same, without what may have been passed over."""
        self._wanted: str | None = None

    def expect(self, chosen: list[str]) -> None:
        """Say which jobs the next claim should find, in order."""
        self.chosen = list(chosen)

    async def claim(self, request: ClaimRequest, *, operation: str) -> tuple[Lease, ...]:
        """Lease the best jobs that this worker fits; note who has looked at which lanes by that."""
        self._claims += 1
        for job in self._queue(request.queue).jobs.values():
            self._lanes.setdefault(lane_key(job.lane), self._claims)
        self._claimed[request.worker] = self._claims
        return await super().claim(request, operation=operation)

    def _choose(self, queue: QueueRecord, request: ClaimRequest, room: Room, now: datetime) -> Choice | None:
        self._wanted = wanted = self.chosen.pop(0) if self.chosen else None
        if self._lenient is None or room is not self._strict:
            self._strict, self._lenient = room, room.copy()
        found = next(self._allowed(queue, request, room, now, wanted), None)
        # In both rooms each time: who is looked at on the way may keep room for itself, in the second one too.
        other = next(self._allowed(queue, request, self._lenient, now, wanted), None)
        if (found is None or found.job.id != wanted) and other is not None and other.job.id == wanted:
            found = other
        if found is not None:
            self._lenient.take(found)
        return found

    def _placed(
        self, queue: QueueRecord, job: JobRecord, request: ClaimRequest, room: Room, now: datetime
    ) -> Iterator[Choice]:
        stands_back = _gives_way(queue, job) or self._kept(job, request.worker, now)
        if room is not self._lenient or job.id == self._wanted or not stands_back:
            yield from super()._placed(queue, job, request, room, now)

    def _allowed(
        self, queue: QueueRecord, request: ClaimRequest, room: Room, now: datetime, wanted: str | None
    ) -> Iterator[Choice]:
        for choice in self._eligible(queue, request, room, now):
            due = not _gives_way(queue, choice.job) and not self._kept(choice.job, request.worker, now)
            if choice.job.id == wanted or due:
                yield choice
                return

    def _others_serve(self, lane: Lane, now: datetime) -> bool:
        """Tell whether another worker serves it that the queue knows: by a claim, not by what it announced."""
        known = [one for one in self._live_workers(now) if one.worker.id in self._claimed]
        return any(
            self._serves(one, lane)
            for one in known
            if one.worker.id not in lane.avoid.shunned and one.worker.state in ACCEPTING
        )

    def _kept(self, job: JobRecord, worker: str, now: datetime) -> bool:
        """Tell whether a job that shuns this worker may wait until another one has looked at its lane."""
        if worker not in job.lane.avoid.shunned:
            return False
        since = self._lanes[lane_key(job.lane)]
        others = [one.worker.id for one in self._live_workers(now) if one.worker.id not in job.lane.avoid.shunned]
        return any(self._claimed.get(other, 0) < since for other in others)


def _gives_way(queue: QueueRecord, job: JobRecord) -> bool:
    """Tell whether another job of its key and lane may hold its place."""
    key = job.request.concurrency_key
    return key is not None and any(
        other is not job and other.request.concurrency_key == key and lane_key(other.lane) == lane_key(job.lane)
        for other in queue.jobs_in(JobState.READY)
    )
