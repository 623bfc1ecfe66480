"""The model as a judge: it follows the broker under test where the promise of order leaves a choice."""

from collections.abc import Iterator
from datetime import datetime

from hostler.broker.model import ModelBroker
from hostler.broker.model_room import Choice, Room
from hostler.broker.model_state import JobRecord, QueueRecord
from hostler.contracts.job import JobState
from hostler.contracts.lease import ClaimRequest
from hostler.policy.lanes import lane_key


class JudgingModel(ModelBroker):
    """A model that is told which jobs the broker under test chose, and agrees if it may.

    Jobs of one concurrency key and lane stand in each other's way: one of them holds the place in the line
    until it has run, even if a better one came after it. Everything else must be the very job that is due.
    """

    chosen: list[str]

    def expect(self, chosen: list[str]) -> None:
        """Say which jobs the next claim should find, in order."""
        self.chosen = list(chosen)

    def _choose(self, queue: QueueRecord, request: ClaimRequest, room: Room, now: datetime) -> Choice | None:
        wanted = self.chosen.pop(0) if self.chosen else None
        return next(self._allowed(queue, request, room, now, wanted), None)

    def _allowed(
        self, queue: QueueRecord, request: ClaimRequest, room: Room, now: datetime, wanted: str | None
    ) -> Iterator[Choice]:
        for choice in self._eligible(queue, request, room, now):
            if choice.job.id == wanted or not _gives_way(queue, choice.job):
                yield choice
                return


def _gives_way(queue: QueueRecord, job: JobRecord) -> bool:
    """Tell whether another job of its key and lane may hold its place."""
    key = job.request.concurrency_key
    return key is not None and any(
        other is not job and other.request.concurrency_key == key and lane_key(other.lane) == lane_key(job.lane)
        for other in queue.jobs_in(JobState.READY)
    )
