"""A run on a real engine whose clock is held: the same calls in the same order each time, written down as a history.

It submits, loses answers, claims, renews, loses a worker, settles late and twice, fails, replays, cancels, pauses and
waits; at the end everything is drained and read. Whoever is broken on purpose takes the place of broker, desk or
functions; what the engine then says happened is judged from the record alone.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Protocol

import msgspec

from hostler.chaos.judge import Report, judge
from hostler.chaos.reading import read_history
from hostler.chaos.record import Fault, Header, Roster, Terms
from hostler.chaos.recorder import RecordedBroker, RecordedDesk, read_all
from hostler.chaos.tape import Tape
from hostler.contracts.job import JobRequest, JobState, Submitted
from hostler.contracts.lease import Again, ClaimRequest, Die, Ending, Lease, Settlement, Stopped, Succeed
from hostler.contracts.worker import WorkerState
from hostler.kernel.errors import HostlerError, NotFoundError
from hostler.ports.broker import Broker, Desk
from hostler.testing.broker import BrokerHarness, House
from hostler.testing.broker_house import OFFERS, QUEUE, TRANSIENT, ref, request, slots

LEASE = 10.0
SLOTS = 4
TERMS = Terms(lease=LEASE, attempts=3, crashes=3, depth=100, offers={"w1": OFFERS, "w2": OFFERS})


class StepClock:
    """The engine's clock, and a counter that orders every call."""

    def __init__(self, harness: BrokerHarness) -> None:
        self._harness = harness
        self._began = harness.now()
        self._steps = 0

    def now(self) -> datetime:
        return self._harness.now()

    def monotonic(self) -> float:
        self._steps += 1
        return (self.now() - self._began).total_seconds() + self._steps * 1e-6


class Parts(Protocol):
    """Puts broken parts in the place of whole ones."""

    def broker(self, broker: Broker) -> Broker: ...
    def desk(self, desk: Desk) -> Desk: ...


class Whole:
    """Nothing is broken."""

    def broker(self, broker: Broker) -> Broker:
        return broker

    def desk(self, desk: Desk) -> Desk:
        return desk


class Workload:
    """One run."""

    def __init__(self, harness: BrokerHarness, tape: Tape, parts: Parts) -> None:
        self.house = House(harness)
        self.tape = tape
        self.desk = RecordedDesk(parts.desk(harness.desk), tape, "client")
        self.workers = {name: RecordedBroker(parts.broker(harness.broker), tape, name) for name in ("w1", "w2")}
        self._numbers = 0

    def operation(self) -> str:
        self._numbers += 1
        return f"op-{self._numbers}"

    async def submit(self, *requests: JobRequest) -> list[str]:
        answers = await self.desk.submit(requests, operation=self.operation(), queue=QUEUE)
        return [one.id for one in answers if isinstance(one, Submitted)]

    async def claim(self, worker: str, limit: int = 1) -> tuple[Lease, ...]:
        wanted = ClaimRequest(queue=QUEUE, worker=worker, limit=limit, offers=OFFERS, pools=slots(worker, SLOTS))
        return await self.workers[worker].claim(wanted, operation=self.operation())

    async def end(self, worker: str, lease: Lease, ending: Ending | None = None) -> None:
        settlement = Settlement(job_id=lease.job_id, fence=lease.fence, ending=ending or Succeed())
        await self.workers[worker].settle(worker, [settlement])

    async def pass_time(self, seconds: int, *held: Lease) -> None:
        """Let time pass; w1 keeps what it holds."""
        for second in range(1, seconds + 1):
            await self.house.advance(1.0)
            if held and second % 3 == 0:
                await self.workers["w1"].renew("w1", [ref(lease) for lease in held])
            while (await self.house.foreman.tick(QUEUE)).more:
                pass

    async def run(self) -> None:
        self.tape.write(Header(began_at=self.house.now(), seed=1, queues={QUEUE: TERMS}))
        self.tape.mark("began")
        await self._open()
        await self._work()
        await self._lose_a_worker()
        await self._end_twice()
        await self._die_and_come_back()
        await self._cancel()
        await self._pause_and_wait()
        await self._drain()

    async def _open(self) -> None:
        await self.house.declare(QUEUE, lease=LEASE)
        for name in ("work", "draw"):
            await self.house.kind(name, retry={"attempts": 3, "crashes": 3})
        await self.house.kind("once", retry={"attempts": 1})
        for worker in self.workers:
            await self.house.hire(worker, slots=SLOTS)
            self.tape.write(
                Roster(worker=worker, at=self.house.now(), state=WorkerState.READY, slots=SLOTS, offers=OFFERS)
            )

    async def _work(self) -> None:
        """Two workers ask at the same moment; a job is seen at each step of its life."""
        jobs = await self.submit(*(request(tenant=tenant) for tenant in ("a", "b", "a")), request(idempotency_key="i"))
        await self.desk.get(jobs[0])
        first, second = await asyncio.gather(self.claim("w1"), self.claim("w2"))
        for worker, leases in (("w1", first), ("w2", second)):
            for lease in leases:
                await self.desk.get(lease.job_id)
                await self.end(worker, lease)
                await self.desk.get(lease.job_id)

    async def _lose_a_worker(self) -> None:
        """w1 renews and keeps its lease; w2 does not, loses its two, and comes back with one result too late."""
        await self.submit(*[request()] * 3)
        (kept, *_), lost = await self.claim("w1", 1), await self.claim("w2", 2)
        now, clock = self.house.now(), self.tape.clock.monotonic()
        self.tape.write(
            Fault(kind="kill", target="w2", begin=clock, end=clock, began_at=now, ended_at=now, workers=("w2",))
        )
        await self.pass_time(13, kept)
        again = await self.claim("w1", 3)
        for lease in lost[:1]:
            await self.end("w2", lease)
        for lease in (kept, *again):
            await self.end("w1", lease)

    async def _end_twice(self) -> None:
        """A second word on an attempt that has ended changes nothing."""
        await self.submit(request())
        for lease in await self.claim("w1"):
            await self.end("w1", lease)
            await self.end("w1", lease, Die(failure=TRANSIENT))
            await self.desk.get(lease.job_id)

    async def _die_and_come_back(self) -> None:
        job, *others = await self.submit(*[request("once")] * 2)
        for lease in await self.claim("w1", 4):
            await self.end("w1", lease, Again(failure=TRANSIENT) if lease.job_id in (job, *others) else None)
        if (await self.desk.get(job)).state is JobState.DEAD:
            await self.desk.replay(job, operation=self.operation())

    async def _cancel(self) -> None:
        waits, runs = await self.submit(request(priority=0), request(priority=100))
        await self.desk.cancel(waits, operation=self.operation())
        for lease in await self.claim("w1", 2):
            if lease.job_id == runs:
                await self.desk.cancel(runs, operation=self.operation())
            await self.end("w1", lease, Stopped() if lease.job_id == runs else None)

    async def _pause_and_wait(self) -> None:
        """A retry waits for its time, a pause stops claims, and a key is known for an hour."""
        await self.submit(request())
        for lease in await self.claim("w1"):
            await self.end("w1", lease, Again(failure=TRANSIENT, delay=5.0))
        await self.submit(request())
        await self.house.foreman.pause(QUEUE, operation=self.operation())
        await self.claim("w2")
        await self.pass_time(7)
        await self.house.foreman.resume(QUEUE, operation=self.operation())
        await self.submit(request(idempotency_key="i"))

    async def _drain(self) -> None:
        (last,) = await self.submit(request(tenant="last"))
        with contextlib.suppress(NotFoundError):
            await self.desk.get(last)
        for _ in range(20):
            leases = await self.claim("w1", SLOTS)
            for lease in leases:
                await self.end("w1", lease)
            if not leases:
                break
        await self.pass_time(2)
        self.tape.mark("healed")
        self.tape.mark("drained")
        harness = self.house
        if await read_all(self.tape.write, QUEUE, harness.desk, harness.foreman):
            self.tape.mark("read")


async def judged(harness: BrokerHarness, folder: Path, parts: Parts) -> Report:
    """Run the workload, and judge the history that it left."""
    file = folder / "history.ndjson"
    with Tape.open(file, StepClock(harness)) as tape:
        workload = Workload(harness, tape, parts)
        try:
            await workload.run()
        except HostlerError as error:  # whoever is broken may break the run: what was recorded is judged
            print(f"the run ended early: {error!r}")  # noqa: T201 - shown by pytest when the test fails
    return judge(read_history(file))


def found(report: Report) -> dict[str, Sequence[str]]:
    """Return what is broken, with its sentences."""
    return {
        ruling.invariant: [msgspec.structs.asdict(one)["sentence"] for one in ruling.findings]
        for ruling in report.rulings
        if ruling.verdict == "broken"
    }
