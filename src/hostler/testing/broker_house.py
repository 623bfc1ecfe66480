"""What the broker suite stands on: any broker with its clock, and short ways to say what tests say often."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import count
from typing import Any

import msgspec
from msgspec import Raw

from hostler.contracts.failure import Failure, FailureClass
from hostler.contracts.job import Job, JobRequest, JobState
from hostler.contracts.lease import (
    Again,
    ClaimRequest,
    Ending,
    Lease,
    LeaseRef,
    Settled,
    Settlement,
    Succeed,
    Suspicion,
)
from hostler.contracts.offer import Offer, Pool, Standing
from hostler.contracts.queue import KindSpec, QueueSpec
from hostler.contracts.worker import Worker, WorkerState
from hostler.ports.broker import Broker, Desk, Foreman
from hostler.ports.registry import Registry

QUEUE = "main"
KIND = "work"
OFFERS = (Offer(kinds=(KIND, "draw", "once")),)
FOREVER = 1e7
"""Seconds that no test lasts."""
TRANSIENT = Failure(class_=FailureClass.TRANSIENT, message="it broke")


@dataclass(frozen=True, kw_only=True)
class BrokerHarness:
    """A broker under test with a clock that the test holds.

    `advance` moves the broker's clock by seconds, `restart` lets the broker find itself restarted
    (for an engine: its process ended and another took over the data).
    """

    broker: Broker
    desk: Desk
    foreman: Foreman
    registry: Registry
    now: Callable[[], datetime]
    advance: Callable[[float], Awaitable[None]]
    restart: Callable[[], Awaitable[None]]


class HouseOfJobs:
    """The half of `House` that submits and looks."""

    def __init__(self, harness: BrokerHarness) -> None:
        self.broker = harness.broker
        self.desk = harness.desk
        self.foreman = harness.foreman
        self.registry = harness.registry
        self.now = harness.now
        self.advance = harness.advance
        self.restart = harness.restart
        self._numbers = count(1)

    def operation(self) -> str:
        """Return an operation id that was never used."""
        return f"op-{next(self._numbers)}"

    async def submit(self, kind: str = KIND, **fields: Any) -> str:
        """Submit one job and return its id; raises what it was refused with."""
        (answer,) = await self.submit_all([request(kind, **fields)])
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def submit_all(self, requests: Sequence[JobRequest]) -> list[str | Exception]:
        """Submit jobs and return an id or a refusal for each."""
        answers = await self.desk.submit(requests, operation=self.operation())
        return [answer if isinstance(answer, Exception) else answer.id for answer in answers]

    async def submit_many(self, number: int, kind: str = KIND, **fields: Any) -> list[str]:
        """Submit `number` equal jobs and return their ids in order."""
        ids: list[str] = []
        for start in range(0, number, 100):
            some = await self.submit_all([request(kind, **fields)] * min(100, number - start))
            ids.extend(one for one in some if isinstance(one, str))
        assert len(ids) == number
        return ids

    async def job(self, job_id: str) -> Job:
        """Return one job with its payload."""
        return await self.desk.get(job_id, payload=True)

    async def state(self, job_id: str) -> JobState:
        """Return the state of one job."""
        return (await self.desk.get(job_id)).state

    async def types(self, job_id: str) -> list[str]:
        """Return the types of a job's events in order."""
        return [event.type for event in (await self.desk.timeline(job_id)).events]

    async def offset(self) -> int:
        """Return the queue's last offset."""
        return (await self.foreman.stats(QUEUE)).offset


class House(HouseOfJobs):
    """A harness with one queue `main`, kinds `work`, `draw` (retried) and `once` (one attempt)."""

    def __init__(self, harness: BrokerHarness) -> None:
        super().__init__(harness)
        self._holders: dict[tuple[str, int], str] = {}
        self._hired: dict[str, Sequence[Offer]] = {}

    async def open(self) -> None:
        """Declare the queue and its kinds."""
        await self.declare()
        for name in (KIND, "draw"):
            await self.kind(name)
        await self.kind("once", retry={"attempts": 1})

    async def declare(self, name: str = QUEUE, **row: Any) -> None:
        """Declare or change a queue."""
        await self.foreman.declare_queue(msgspec.convert({"name": name, **row}, QueueSpec))

    async def kind(self, name: str, **row: Any) -> None:
        """Declare or change a kind of the queue."""
        await self.foreman.declare_kind(msgspec.convert({"name": name, "queue": QUEUE, **row}, KindSpec))

    # workers

    async def hire(
        self,
        worker: str = "w1",
        *,
        offers: Sequence[Offer] = OFFERS,
        slots: int = 64,
        ttl: float = FOREVER,
        state: WorkerState = WorkerState.READY,
    ) -> str:
        """Announce a worker and let it ask for work once; it lives on while time passes unless `ttl` ends it."""
        await self.registry.announce(self.worker(worker, offers=offers, slots=slots, state=state), ttl=ttl)
        if ttl == FOREVER:
            self._hired[worker] = offers
        await self.show_up(worker, offers)
        return worker

    async def dismiss(self, worker: str) -> None:
        """Let a worker leave."""
        self._hired.pop(worker, None)
        await self.registry.withdraw(worker)

    async def show_up(self, worker: str, offers: Sequence[Offer]) -> None:
        """Ask for work with no slot free: that a worker lives, and how it is, is known by its claims."""
        assert await self.claim(worker=worker, offers=offers, pools=slots(worker, 64, free=0)) == ()

    def worker(
        self,
        worker: str,
        *,
        offers: Sequence[Offer] = OFFERS,
        slots: int = 64,
        state: WorkerState = WorkerState.READY,
    ) -> Worker:
        """Return what a worker announces."""
        return Worker(
            id=worker,
            state=state,
            machine="here",
            pid=1,
            version="1",
            slots=slots,
            running=0,
            queues=(QUEUE,),
            offers=tuple(offers),
            started_at=self.now(),
            seen_at=self.now(),
            expires_at=self.now(),
            loop_age=0.0,
        )

    async def claim(
        self,
        limit: int = 1,
        *,
        worker: str = "w1",
        offers: Sequence[Offer] = OFFERS,
        standings: Sequence[Standing] = (),
        pools: dict[str, Pool] | None = None,
        operation: str | None = None,
        lease_s: float | None = None,
        suspicion: Suspicion = Suspicion.NONE,
    ) -> tuple[Lease, ...]:
        """Claim as `worker`; its own pool has 64 slots unless `pools` says otherwise."""
        wanted = ClaimRequest(
            queue=QUEUE,
            worker=worker,
            limit=limit,
            offers=tuple(offers),
            standings=tuple(standings),
            pools=slots(worker, 64) if pools is None else pools,
            lease_s=lease_s,
            suspicion=suspicion,
        )
        leases = await self.broker.claim(wanted, operation=operation or self.operation())
        self._holders.update({(lease.job_id, lease.fence): worker for lease in leases})
        return leases

    async def claim_one(self, job_id: str | None = None, **claim: Any) -> Lease:
        """Claim exactly one job, `job_id` if given."""
        (lease,) = await self.claim(1, **claim)
        assert job_id in (None, lease.job_id)
        return lease

    async def drain_line(self, **claim: Any) -> list[str]:
        """Claim one job after the other until none comes, and return their ids in that order."""
        order: list[str] = []
        while leases := await self.claim(1, **claim):
            order.extend(lease.job_id for lease in leases)
        return order

    async def end(self, lease: Lease, ending: Ending | None = None, *, worker: str | None = None) -> Settled:
        """End an attempt as its holder (or `worker`); succeeds unless told otherwise."""
        settlement = Settlement(job_id=lease.job_id, fence=lease.fence, ending=ending or Succeed())
        holder = worker or self._holders[lease.job_id, lease.fence]
        (settled,) = await self.broker.settle(holder, [settlement])
        return settled

    async def fail(self, lease: Lease, **again: Any) -> Settled:
        """End an attempt as failed; it may run again at once unless told otherwise."""
        return await self.end(lease, msgspec.structs.replace(Again(failure=TRANSIENT), **again))

    async def dead(self, **fields: Any) -> str:
        """Submit a job that has one attempt, let it fail, and return its id."""
        job_id = await self.submit("once", **fields)
        (lease,) = [lease for lease in await self.claim(64) if lease.job_id == job_id]
        await self.fail(lease)
        return job_id

    # time

    async def tick(self) -> None:
        """Let a little more than one round of upkeep happen (0.6 s)."""
        await self.advance(0.6)
        while (await self.foreman.tick(QUEUE)).more:
            pass

    async def pass_time(self, seconds: float) -> None:
        """Let time pass with upkeep every second and workers that ask every third, as in a system that runs."""
        passed = 0
        while seconds > 0:
            step = min(1.0, seconds)
            await self.advance(step)
            passed += 1
            for worker, offers in self._hired.items() if passed % 3 == 0 else ():
                await self.show_up(worker, offers)
            while (await self.foreman.tick(QUEUE)).more:
                pass
            seconds -= step
        await self.tick()


def request(kind: str = KIND, **fields: Any) -> JobRequest:
    """Return a submit of `kind`; `payload` may be any JSON value."""
    payload = Raw(msgspec.json.encode(fields.pop("payload", None)))
    return msgspec.convert({"kind": kind, "payload": payload, **fields}, JobRequest)


def slots(worker: str, total: float, *, free: float | None = None) -> dict[str, Pool]:
    """Return a worker's own pool of slots."""
    return {"slots": Pool(id=worker, total=total, free=free)}


def ref(lease: Lease) -> LeaseRef:
    """Return the reference of a lease."""
    return LeaseRef(job_id=lease.job_id, fence=lease.fence)
