"""The same fleet for programs without an event loop: the asyncio client on a thread of its own."""

import asyncio
import threading
from collections.abc import AsyncIterator, Coroutine, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, TypeVar, Unpack, overload

from hostler.client.encode import Options
from hostler.client.fleet import Fleet, connect
from hostler.client.handle import JobHandle
from hostler.client.many import Which
from hostler.client.wire import TRIES
from hostler.contracts.api import EVERY_JOB, ActionReport, ActionVerb, Health, JobFilter
from hostler.contracts.event import Event, Timeline
from hostler.contracts.explain import Explanation
from hostler.contracts.job import BlobRef, Job, JobState
from hostler.contracts.limit import LimitView
from hostler.contracts.preview import Preview
from hostler.contracts.queue import QueueView
from hostler.contracts.result import CacheView
from hostler.contracts.worker import Worker
from hostler.kernel.errors import HostlerError
from hostler.kernel.units import Json, Seconds

T = TypeVar("T")


class Portal:
    """Runs coroutines on the thread's loop and waits for them."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Return what the coroutine returns; interrupting the caller cancels it."""
        waiting = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return waiting.result()
        except BaseException:  # an interrupt of the caller as well: the work must not go on unseen
            waiting.cancel()
            raise

    def each(self, items: AsyncIterator[T]) -> Iterator[T]:
        """Yield what the asynchronous iterator yields, and close it."""
        done: Final = object()

        async def following() -> Any:
            return await anext(items, done)

        async def closing() -> None:
            close = getattr(items, "aclose", None)
            if close is not None:
                await close()

        try:
            while (item := self.call(following())) is not done:
                yield item
        finally:
            self.call(closing())


class SyncJob:
    """One submitted job; see `JobHandle`."""

    def __init__(self, portal: Portal, job: JobHandle) -> None:
        self._portal = portal
        self._job = job
        self.id: Final = job.id
        self.created: Final = job.created

    def __repr__(self) -> str:
        return f"SyncJob({self.id!r})"

    def get(self, *, payload: bool = False) -> Job:
        """Return the job as it is now."""
        return self._portal.call(self._job.get(payload=payload))

    def wait(self, *, timeout: Seconds | None = None) -> Job:
        """Return the job once it has ended; `TimeoutError`."""
        return self._portal.call(self._job.wait(timeout=timeout))

    @overload
    def result(self, *, type: type[T], timeout: Seconds | None = None) -> T: ...

    @overload
    def result(self, *, timeout: Seconds | None = None) -> Any: ...

    def result(self, *, type: Any = Any, timeout: Seconds | None = None) -> Any:  # noqa: A002 - reads as asked
        """Wait for the end and return the result; `JobFailedError`, `TimeoutError`."""
        return self._portal.call(self._job.result(type=type, timeout=timeout))

    def follow(self, *, after: int = 0) -> Iterator[Event]:
        """Yield its events until it has ended."""
        return self._portal.each(self._job.follow(after=after))

    def timeline(self) -> Timeline:
        """Return what happened to it, in order."""
        return self._portal.call(self._job.timeline())

    def preview(self) -> Preview:
        """Return its latest picture while it runs; `NotFoundError` when there is none now."""
        return self._portal.call(self._job.preview())

    def explain(self) -> Explanation:
        """Return why it is where it is."""
        return self._portal.call(self._job.explain())

    def cancel(self, *, reason: str = "") -> JobState:
        """Cancel it."""
        return self._portal.call(self._job.cancel(reason=reason))

    def retry(self, *, reason: str = "") -> JobState:
        """Make it ready again if it is dead."""
        return self._portal.call(self._job.retry(reason=reason))


class SyncQueues:
    """The queues of a fleet."""

    def __init__(self, portal: Portal, fleet: Fleet) -> None:
        self._portal = portal
        self._queues = fleet.queues

    def list(self) -> tuple[QueueView, ...]:
        """Return all queues with kinds and counters, by name."""
        return self._portal.call(self._queues.list())

    def get(self, name: str) -> QueueView:
        """Return one queue."""
        return self._portal.call(self._queues.get(name))

    def pause(self, name: str, *, reason: str = "") -> QueueView:
        """Stop claims from it."""
        return self._portal.call(self._queues.pause(name, reason=reason))

    def resume(self, name: str, *, reason: str = "") -> QueueView:
        """Allow claims from it again."""
        return self._portal.call(self._queues.resume(name, reason=reason))

    def drain(self, name: str, *, reason: str = "") -> QueueView:
        """Refuse new jobs and let what is there run out."""
        return self._portal.call(self._queues.drain(name, reason=reason))

    def configure(
        self,
        name: str,
        *,
        reason: str,
        queue: dict[str, Json] | None = None,
        kinds: dict[str, dict[str, Json]] | None = None,
    ) -> QueueView:
        """Change parts of its row, or of its kinds' rows, while everything runs."""
        return self._portal.call(self._queues.configure(name, reason=reason, queue=queue, kinds=kinds))


class SyncDead:
    """The dead jobs of a fleet."""

    def __init__(self, portal: Portal, fleet: Fleet) -> None:
        self._portal = portal
        self._dead = fleet.dead

    def list(self, which: JobFilter = EVERY_JOB) -> Iterator[Job]:
        """Yield dead jobs, newest first."""
        return self._portal.each(self._dead.list(which))

    def replay(self, **which: Unpack[Which]) -> ActionReport:
        """Make them ready again."""
        return self._portal.call(self._dead.replay(**which))

    def purge(self, **which: Unpack[Which]) -> ActionReport:
        """Remove them."""
        return self._portal.call(self._dead.purge(**which))


class SyncWorkers:
    """The workers of a fleet."""

    def __init__(self, portal: Portal, fleet: Fleet) -> None:
        self._portal = portal
        self._workers = fleet.workers

    def list(self, *, gone: bool = False) -> tuple[Worker, ...]:
        """Return live workers by id."""
        return self._portal.call(self._workers.list(gone=gone))

    def get(self, worker: str) -> Worker:
        """Return one worker."""
        return self._portal.call(self._workers.get(worker))

    def pause(self, worker: str, *, reason: str = "") -> None:
        """Ask it to claim nothing more."""
        self._portal.call(self._workers.pause(worker, reason=reason))

    def resume(self, worker: str, *, reason: str = "") -> None:
        """Ask it to claim again."""
        self._portal.call(self._workers.resume(worker, reason=reason))

    def drain(self, worker: str, *, reason: str = "") -> None:
        """Ask it to finish and stop."""
        self._portal.call(self._workers.drain(worker, reason=reason))


class SyncCache:
    """Results that the fleet keeps for equal jobs."""

    def __init__(self, portal: Portal, fleet: Fleet) -> None:
        self._portal = portal
        self._cache = fleet.cache

    def view(self) -> CacheView:
        """Return how it is used."""
        return self._portal.call(self._cache.view())

    def clear(self, prefix: str) -> int:
        """Drop results whose key begins so; return how many."""
        return self._portal.call(self._cache.clear(prefix))


class SyncLimits:
    """Limits that all processes share."""

    def __init__(self, portal: Portal, fleet: Fleet) -> None:
        self._portal = portal
        self._limits = fleet.limits

    def list(self) -> tuple[LimitView, ...]:
        """Return the limits that are in use or held, by name."""
        return self._portal.call(self._limits.list())

    def lift(self, name: str, *, reason: str = "") -> bool:
        """Let calls go again that a service's word holds; False when nothing held them."""
        return self._portal.call(self._limits.lift(name, reason=reason))


class SyncBlobs:
    """The blob store of a fleet."""

    def __init__(self, portal: Portal, fleet: Fleet) -> None:
        self._portal = portal
        self._blobs = fleet.blobs

    def put(self, content: bytes, *, media_type: str = "application/octet-stream") -> BlobRef:
        """Store a content under its SHA-256."""
        return self._portal.call(self._blobs.put(content, media_type=media_type))

    def get(self, ref: BlobRef | str) -> bytes:
        """Return the content of a blob."""
        return self._portal.call(self._blobs.get(ref))


class SyncFleet:
    """Everything that a program can ask of one gateway; see `Fleet`, whose names these are."""

    def __init__(self, portal: Portal, fleet: Fleet) -> None:
        self._portal = portal
        self._fleet = fleet
        self.queues: Final = SyncQueues(portal, fleet)
        self.dead: Final = SyncDead(portal, fleet)
        self.workers: Final = SyncWorkers(portal, fleet)
        self.cache: Final = SyncCache(portal, fleet)
        self.limits: Final = SyncLimits(portal, fleet)
        self.blobs: Final = SyncBlobs(portal, fleet)

    def submit(self, kind: str, payload: object = None, **options: Unpack[Options]) -> SyncJob:
        """Submit a job; it is durable once this returns."""
        return SyncJob(self._portal, self._portal.call(self._fleet.submit(kind, payload, **options)))

    def submit_many(
        self, jobs: Iterable[tuple[str, object] | tuple[str, object, Mapping[str, Any]]]
    ) -> tuple[SyncJob | HostlerError, ...]:
        """Submit many jobs; one answer each, in order, an error for each refused one."""
        found = self._portal.call(self._fleet.submit_many(jobs))
        return tuple(SyncJob(self._portal, job) if isinstance(job, JobHandle) else job for job in found)

    def job(self, job_id: str) -> SyncJob:
        """Return a handle of a job; nothing is asked yet."""
        return SyncJob(self._portal, self._fleet.job(job_id))

    def jobs(self, which: JobFilter | None = None) -> Iterator[Job]:
        """Yield jobs, newest first."""
        return self._portal.each(self._fleet.jobs(which))

    def get(self, job_id: str, *, payload: bool = False) -> Job:
        """Return a job as it is now."""
        return self.job(job_id).get(payload=payload)

    def wait(self, job_id: str, *, timeout: Seconds | None = None) -> Job:
        """Return a job once it has ended."""
        return self.job(job_id).wait(timeout=timeout)

    @overload
    def result(self, job_id: str, *, type: type[T], timeout: Seconds | None = None) -> T: ...

    @overload
    def result(self, job_id: str, *, timeout: Seconds | None = None) -> Any: ...

    def result(self, job_id: str, *, type: Any = Any, timeout: Seconds | None = None) -> Any:  # noqa: A002 - as asked
        """Wait for a job's end and return its result."""
        return self.job(job_id).result(type=type, timeout=timeout)

    def follow(self, job_id: str, *, after: int = 0) -> Iterator[Event]:
        """Yield a job's events until it has ended."""
        return self.job(job_id).follow(after=after)

    def timeline(self, job_id: str) -> Timeline:
        """Return what happened to a job."""
        return self.job(job_id).timeline()

    def preview(self, job_id: str) -> Preview:
        """Return a running job's latest picture; `NotFoundError` when there is none now."""
        return self.job(job_id).preview()

    def explain(self, job_id: str) -> Explanation:
        """Return why a job is where it is."""
        return self.job(job_id).explain()

    def cancel(self, job_id: str, *, reason: str = "") -> JobState:
        """Cancel a job."""
        return self.job(job_id).cancel(reason=reason)

    def retry(self, job_id: str, *, reason: str = "") -> JobState:
        """Make a dead job ready again."""
        return self.job(job_id).retry(reason=reason)

    def act(self, verb: ActionVerb | str, **which: Unpack[Which]) -> ActionReport:
        """Cancel, retry or purge many jobs."""
        return self._portal.call(self._fleet.act(verb, **which))

    def health(self) -> Health:
        """Return the gateway's readiness."""
        return self._portal.call(self._fleet.health())


@contextmanager
def connect_sync(url: str | None = None, key: str | None = None, *, tries: int = TRIES) -> Generator[SyncFleet]:
    """Speak to the gateway at `url` from plain code; see `connect`. May be shared by threads."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="hostler-client", daemon=True)
    thread.start()
    portal = Portal(loop)
    opened = connect(url, key, tries=tries)
    try:
        fleet = portal.call(opened.__aenter__())
        try:
            yield SyncFleet(portal, fleet)
        finally:
            portal.call(opened.__aexit__(None, None, None))
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
