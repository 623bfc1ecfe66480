"""The state machine itself: the model agrees with the model, and a broker with a seeded defect is caught."""

from collections.abc import Coroutine, Iterator
from datetime import UTC, datetime
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from hostler.broker.model import ModelBroker
from hostler.broker.model_room import Choice, Room
from hostler.broker.model_state import JobRecord, Kept, QueueRecord
from hostler.contracts.job import JobState
from hostler.contracts.lease import Again, ClaimRequest, Lease, Settlement
from hostler.contracts.queue import UpkeepReport
from hostler.testing.broker import BrokerHarness
from hostler.testing.clock import FakeClock
from hostler.testing.machine import BrokerMachine

T = TypeVar("T")
FOR_EVER = datetime.max.replace(tzinfo=UTC)
FEW = settings(
    max_examples=200,
    stateful_step_count=50,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=(HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much),
    phases=(Phase.generate,),
)


def machine(broker: type[ModelBroker]) -> type[BrokerMachine]:
    class Machine(BrokerMachine):
        def open(self) -> BrokerHarness:
            clock = FakeClock()
            real = broker(clock)

            async def advance(seconds: float) -> None:
                clock.advance(seconds)

            async def restart() -> None:
                real.restart()

            return BrokerHarness(
                broker=real, desk=real, foreman=real, registry=real, now=clock.now, advance=advance, restart=restart
            )

        def run(self, work: Coroutine[Any, Any, T]) -> T:
            return self.twins.at_once(work)

    return Machine


class LateWorkersWin(ModelBroker):
    """No fence is checked."""

    def _find_held(self, job_id: str, fence: int, worker: str) -> tuple[QueueRecord, JobRecord] | None:
        queue = self._queues["main"]
        job = queue.jobs.get(job_id)
        return (queue, job) if job is not None and job.lease is not None else None


class LastInFirstOut(ModelBroker):
    """The latest job goes first."""

    def _rank(self, queue: QueueRecord, job: JobRecord) -> tuple[int, str, int, int]:
        passed, tenant, arrival, number = super()._rank(queue, job)
        return passed, tenant, -arrival, number


class TenantsDoNotCount(ModelBroker):
    """First come, first served, whoever asks."""

    def _rank(self, queue: QueueRecord, job: JobRecord) -> tuple[int, str, int, int]:
        return 0, "", job.arrival, job.number


class KeysDoNotCount(ModelBroker):
    """Concurrency keys are ignored."""

    def _keys_running(self, queue: QueueRecord) -> dict[str, int]:
        return {}


class AmountsAreNeverTaken(ModelBroker):
    """A worker may hold any number of jobs."""

    def _taken(self, queue: QueueRecord) -> dict[tuple[str, str], float]:
        return {}


class RetriesAreFree(ModelBroker):
    """No attempt is ever used up."""

    def _apply(self, queue: QueueRecord, job: JobRecord, settlement: Settlement, worker: str, now: datetime) -> None:
        if isinstance(settlement.ending, Again):
            job.attempts_used = -1
        super()._apply(queue, job, settlement, worker, now)


class CancelIsForgotten(ModelBroker):
    """A running job that was asked to stop may succeed."""

    def _apply(self, queue: QueueRecord, job: JobRecord, settlement: Settlement, worker: str, now: datetime) -> None:
        job.cancel_asked = None
        super()._apply(queue, job, settlement, worker, now)


class LostLeasesAreKept(ModelBroker):
    """Nobody is ever taken for dead."""

    def _reap(self, queue: QueueRecord, now: datetime) -> None:
        return


class PauseIsIgnored(ModelBroker):
    """A paused queue hands out work."""

    async def pause(self, queue: str, *, operation: str, reason: str = "") -> None:
        await super().pause(queue, operation=operation, reason=reason)
        self._queues[queue].paused = False


class DeadlinesAreIgnored(ModelBroker):
    """Nothing expires."""

    def _expires(self, job: JobRecord) -> datetime | None:
        return None


class DeadJobsVanish(ModelBroker):
    """What is dead is not kept."""

    async def tick(self, queue: str) -> UpkeepReport:
        record = self._queues[queue]
        for job in record.jobs_in(JobState.DEAD):
            del record.jobs[job.id]
        return await super().tick(queue)


class SessionsDoNotCount(ModelBroker):
    """A session's job goes wherever any other would; what is told of it is as it should be."""

    def _placed(
        self, queue: QueueRecord, job: JobRecord, request: ClaimRequest, room: Room, now: datetime
    ) -> Iterator[Choice]:
        homes, queue.homes = queue.homes, {}
        found = list(super()._placed(queue, job, request, room, now))
        queue.homes = homes
        yield from found


class SessionsNeverMove(ModelBroker):
    """A session's home is where its first job ran, also once a later one ran elsewhere."""

    def _grant(self, queue: QueueRecord, chosen: Choice, request: ClaimRequest, now: datetime) -> Lease:
        before = {key: home for key, home in queue.homes.items() if home.until > now}
        lease = super()._grant(queue, chosen, request, now)
        queue.homes.update(before)
        return lease


class SessionsAreKeptForEver(ModelBroker):
    """It is never forgotten where a session ran."""

    def _grant(self, queue: QueueRecord, chosen: Choice, request: ClaimRequest, now: datetime) -> Lease:
        lease = super()._grant(queue, chosen, request, now)
        queue.homes = {key: Kept(answer=home.answer, until=FOR_EVER) for key, home in queue.homes.items()}
        return lease


def test_the_model_agrees_with_itself() -> None:
    run_state_machine_as_test(machine(ModelBroker), settings=settings(FEW, max_examples=20))


@pytest.mark.parametrize(
    "defect",
    [
        LateWorkersWin,
        LastInFirstOut,
        TenantsDoNotCount,
        KeysDoNotCount,
        AmountsAreNeverTaken,
        RetriesAreFree,
        CancelIsForgotten,
        LostLeasesAreKept,
        PauseIsIgnored,
        DeadlinesAreIgnored,
        DeadJobsVanish,
        SessionsDoNotCount,
        SessionsNeverMove,
        SessionsAreKeptForEver,
    ],
)
def test_a_broker_with_a_seeded_defect_is_caught(defect: type[ModelBroker]) -> None:
    with pytest.raises(AssertionError):
        run_state_machine_as_test(machine(defect), settings=FEW)
