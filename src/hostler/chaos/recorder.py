"""Ports that write down what they are asked and answered, around any adapter."""

import contextlib
from collections.abc import Callable, Generator, Sequence
from typing import Final

import msgspec

from hostler.chaos.record import Books, Events
from hostler.chaos.record import Final as FinalJob
from hostler.chaos.tape import Doing, Process, Tape
from hostler.chaos.values import (
    Answer,
    Answers,
    Ended,
    Endings,
    How,
    Leased,
    Leases,
    Refs,
    Requests,
    Seen,
    Stale,
    Value,
    Wanted,
    Word,
    Words,
)
from hostler.contracts.api import JobFilter
from hostler.contracts.job import Job, JobRequest, JobState, Submitted
from hostler.contracts.lease import (
    Again,
    ClaimRequest,
    Die,
    Ending,
    Hold,
    Lease,
    LeaseRef,
    Renewal,
    Settled,
    Settlement,
    Stopped,
    Succeed,
    Update,
)
from hostler.kernel.errors import HostlerError
from hostler.ports.broker import Broker, Desk, Foreman

PAGE: Final = 1000
JOBS_MOST: Final = 200_000
TRIES: Final = 3
"""How often a queue that does not rest is read again."""
_HOW: Final[dict[type[Ending], How]] = {
    Succeed: "succeed",
    Again: "again",
    Hold: "hold",
    Die: "die",
    Stopped: "stopped",
}


class Clients:
    """Processes of one name: each call has one of its own for as long as it takes."""

    def __init__(self, tape: Tape, name: str) -> None:
        self._tape = tape
        self._name = name
        self._free: list[Process] = []
        self._count = 0

    @contextlib.contextmanager
    def doing(
        self,
        op: str,
        value: Value | None = None,
        *,
        job: str | None = None,
        queue: str | None = None,
        operation: str | None = None,
    ) -> Generator[Doing]:
        """Record one operation around its call."""
        if self._free:
            process = self._free.pop()
        else:
            self._count += 1
            process = Process(self._tape, f"{self._name}-{self._count}")
        try:
            with process.doing(op, value, job=job, queue=queue, operation=operation) as doing:
                yield doing
        finally:
            self._free.append(process)


class RecordedBroker:
    """What a worker asks of a broker, with a record of it."""

    def __init__(self, broker: Broker, tape: Tape, name: str) -> None:
        self._broker = broker
        self._clients = Clients(tape, name)

    async def claim(self, request: ClaimRequest, *, operation: str) -> tuple[Lease, ...]:
        """Lease jobs."""
        wanted = Wanted(worker=request.worker, limit=request.limit)
        with self._clients.doing("claim", wanted, queue=request.queue, operation=operation) as doing:
            leases = await self._broker.claim(request, operation=operation)
            found = tuple(Leased(job=one.job_id, fence=one.fence, generation=one.generation) for one in leases)
            doing.ok(Leases(leases=found))
        return leases

    async def renew(self, worker: str, leases: Sequence[LeaseRef]) -> Renewal:
        """Extend leases."""
        with self._clients.doing("renew", Refs(worker=worker, leases=tuple(leases))) as doing:
            renewal = await self._broker.renew(worker, leases)
            doing.ok(Stale(lost=renewal.lost, cancelled=renewal.cancelled))
        return renewal

    async def progress(self, worker: str, updates: Sequence[Update]) -> tuple[LeaseRef, ...]:
        """Store progress."""
        refs = tuple(LeaseRef(job_id=one.job_id, fence=one.fence) for one in updates)
        with self._clients.doing("progress", Refs(worker=worker, leases=refs)) as doing:
            lost = await self._broker.progress(worker, updates)
            doing.ok(Stale(lost=lost))
        return lost

    async def settle(self, worker: str, settlements: Sequence[Settlement]) -> tuple[Settled, ...]:
        """End attempts."""
        endings = tuple(
            Ended(
                job=one.job_id,
                fence=one.fence,
                how=_HOW[type(one.ending)],
                delay=one.ending.delay if isinstance(one.ending, Again) else None,
            )
            for one in settlements
        )
        with self._clients.doing("settle", Endings(worker=worker, endings=endings)) as doing:
            settled = await self._broker.settle(worker, settlements)
            doing.ok(Words(words=tuple(_word(one) for one in settled)))
        return settled


def _word(one: Settled) -> Word:
    known = one.state in frozenset(JobState)
    return Word(accepted=one.accepted, state=JobState(one.state) if known else None)


class RecordedDesk:
    """What a client asks of a desk, with a record of it."""

    def __init__(self, desk: Desk, tape: Tape, name: str) -> None:
        self._desk = desk
        self._clients = Clients(tape, name)

    async def submit(
        self, requests: Sequence[JobRequest], *, operation: str, queue: str | None = None
    ) -> tuple[Submitted | Exception, ...]:
        """Store jobs."""
        asked = Requests(requests=tuple(requests))
        with self._clients.doing("submit", asked, queue=queue, operation=operation) as doing:
            answers = await self._desk.submit(requests, operation=operation)
            doing.ok(Answers(answers=tuple(_answer(one) for one in answers)))
        return answers

    async def get(self, job_id: str) -> Job:
        """Look at a job."""
        with self._clients.doing("get", job=job_id) as doing:
            job = await self._desk.get(job_id)
            doing.ok(Seen(state=job.state, attempt=job.attempt, generation=job.generation))
        return job

    async def cancel(self, job_id: str, *, operation: str) -> JobState:
        """Cancel a job."""
        with self._clients.doing("cancel", job=job_id, operation=operation) as doing:
            state = await self._desk.cancel(job_id, operation=operation)
            doing.ok(Seen(state=state))
        return state

    async def replay(self, job_id: str, *, operation: str) -> JobState:
        """Make a dead job ready again."""
        with self._clients.doing("replay", job=job_id, operation=operation) as doing:
            state = await self._desk.replay(job_id, operation=operation)
            doing.ok(Seen(state=state))
        return state


def _answer(one: Submitted | Exception) -> Answer:
    if isinstance(one, Submitted):
        return Answer(id=one.id, created=one.created)
    return Answer(code=one.code if isinstance(one, HostlerError) else type(one).__name__)


async def read_all(write: Callable[..., None], queue: str, desk: Desk, foreman: Foreman) -> bool:
    """Hand all lines that can be read of a queue, or a shard of it, to `write`: events, books and, when it rests, jobs.

    False when it never rested while it was read: then what is in the record is its events and books as of one offset,
    and no job, since those would be of another moment.
    """
    jobs: list[Job] | None = None
    stats, pages = await foreman.stats(queue), list[Events]()
    for _ in range(TRIES):
        stats = await foreman.stats(queue)
        pages = await _events(desk, queue, stats.offset)
        jobs = await _jobs(desk, queue)
        if (await foreman.stats(queue)).offset == stats.offset:
            break
        jobs = None
    for page in pages:
        write(page)
    audit = await foreman.audit(queue)
    lives = (await desk.timeline(jobs[0].id)).lives if jobs else ()
    write(Books(queue=queue, stats=stats, audit=audit, lives=lives), *(FinalJob(job=job) for job in jobs or ()))
    return jobs is not None


async def _events(desk: Desk, queue: str, until: int) -> list[Events]:
    """Return the events that are kept, up to this offset."""
    pages: list[Events] = []
    after = 0
    while after < until:
        page = await desk.events(queue, after=after, limit=PAGE)
        events = tuple(event for event in page.events if event.offset <= until)
        pages.append(Events(queue=queue, epoch=page.epoch, events=events, gap=page.gap))
        if not page.events:
            break
        after = page.next
    return pages


async def _jobs(desk: Desk, queue: str) -> list[Job]:
    """Return the jobs that are kept, JOBS_MOST at most."""
    jobs: list[Job] = []
    cursor: str | None = None
    while len(jobs) < JOBS_MOST:
        found, cursor = await desk.find(JobFilter(queue=queue), cursor=cursor, limit=100)
        jobs.extend(msgspec.structs.replace(job, queue=queue) for job in found)
        if cursor is None:
            break
    return jobs
