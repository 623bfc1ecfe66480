"""A fleet as an asyncio program sees it."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar, Unpack, overload

import msgspec

from hostler.client.address import address
from hostler.client.encode import Options, request_of
from hostler.client.handle import JobHandle
from hostler.client.limits import Limits
from hostler.client.many import Blobs, Cache, Dead, Queues, Which, Workers, act, action, narrowed, pages
from hostler.client.problems import error_of
from hostler.client.services import Services
from hostler.client.wire import TRIES, Wire
from hostler.contracts.api import BATCH_LIMIT, ActionReport, ActionVerb, Batch, BatchAnswer, Health, JobFilter, Listing
from hostler.contracts.event import Event, Timeline
from hostler.contracts.explain import Explanation
from hostler.contracts.job import Job, JobState
from hostler.contracts.preview import Preview
from hostler.kernel.errors import HostlerError
from hostler.kernel.units import Bytes, Seconds

T = TypeVar("T")

_BATCH_BYTES: Final[Bytes] = 4_194_304
"""A batch is sent before it grows beyond this."""


class Fleet:
    """Everything that a program can ask of one gateway.

    Every error is one of `hostler.kernel.errors`, as the gateway named it. What changes something is sent
    again, under the same operation id, while the gateway or its engine does not answer: it happens once.
    """

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self.queues: Final = Queues(wire)
        self.dead: Final = Dead(wire)
        self.workers: Final = Workers(wire)
        self.services: Final = Services(wire)
        self.cache: Final = Cache(wire)
        self.limits: Final = Limits(wire)
        self.blobs: Final = Blobs(wire)

    async def submit(self, kind: str, payload: object = None, **options: Unpack[Options]) -> JobHandle:
        """Submit a job; it is durable once this returns.

        The payload is anything with a JSON shape; over 256 KiB it goes through the blob store by itself.
        `UnknownKindError`, `PayloadError`, `InvalidError`, `IdempotencyConflictError`, `QueueFullError`.
        """
        request = await request_of(self._wire, kind, payload, options)
        created, job = await self._wire.create("v1/jobs", request, Job)
        return JobHandle(self._wire, job.id, created=created)

    async def submit_many(
        self, jobs: Iterable[tuple[str, object] | tuple[str, object, Mapping[str, Any]]]
    ) -> tuple[JobHandle | HostlerError, ...]:
        """Submit `(kind, payload)` or `(kind, payload, options)` many at a time; one answer each, in order.

        A refused job's answer is its error; it does not keep the others out.
        """
        answers: list[JobHandle | HostlerError] = []
        batch: list[msgspec.Raw] = []
        size = 0
        for kind, payload, *options in jobs:
            request = await request_of(self._wire, kind, payload, options[0] if options else {})
            sealed = msgspec.json.encode(request)
            if batch and (len(batch) == BATCH_LIMIT or size + len(sealed) > _BATCH_BYTES):
                answers.extend(await self._send_batch(batch))
                batch, size = [], 0
            batch.append(msgspec.Raw(sealed))
            size += len(sealed)
        if batch:
            answers.extend(await self._send_batch(batch))
        return tuple(answers)

    async def _send_batch(self, batch: list[msgspec.Raw]) -> list[JobHandle | HostlerError]:
        answer = await self._wire.change("v1/jobs/batch", Batch(jobs=tuple(batch)), BatchAnswer)
        return [
            JobHandle(self._wire, item.id, created=item.created)
            if item.id is not None
            else error_of(item.problem)
            if item.problem is not None
            else HostlerError("The gateway answered neither a job nor a problem.")
            for item in answer.items
        ]

    def job(self, job_id: str) -> JobHandle:
        """Return a handle of a job; nothing is asked yet."""
        return JobHandle(self._wire, job_id)

    def jobs(self, which: JobFilter | None = None) -> AsyncIterator[Job]:
        """Yield jobs, newest first, page by page."""
        wanted = which or JobFilter()
        query = {**narrowed(wanted), "state": list(wanted.states), "worker": wanted.worker}
        return pages(self._wire, "v1/jobs", Listing[Job], query)

    async def get(self, job_id: str, *, payload: bool = False) -> Job:
        """Return a job as it is now; `NotFoundError`."""
        return await self.job(job_id).get(payload=payload)

    async def wait(self, job_id: str, *, timeout: Seconds | None = None) -> Job:
        """Return a job once it has ended; `TimeoutError`."""
        return await self.job(job_id).wait(timeout=timeout)

    @overload
    async def result(self, job_id: str, *, type: type[T], timeout: Seconds | None = None) -> T: ...

    @overload
    async def result(self, job_id: str, *, timeout: Seconds | None = None) -> Any: ...

    async def result(self, job_id: str, *, type: Any = Any, timeout: Seconds | None = None) -> Any:  # noqa: A002 - as asked
        """Wait for a job's end and return its result; `JobFailedError`, `TimeoutError`."""
        return await self.job(job_id).result(type=type, timeout=timeout)

    def follow(self, job_id: str, *, after: int = 0) -> AsyncIterator[Event]:
        """Yield a job's events until it has ended."""
        return self.job(job_id).follow(after=after)

    async def timeline(self, job_id: str) -> Timeline:
        """Return what happened to a job, in order."""
        return await self.job(job_id).timeline()

    async def preview(self, job_id: str) -> Preview:
        """Return a running job's latest picture; `NotFoundError` when there is none now."""
        return await self.job(job_id).preview()

    async def explain(self, job_id: str) -> Explanation:
        """Return why a job is where it is."""
        return await self.job(job_id).explain()

    async def cancel(self, job_id: str, *, reason: str = "") -> JobState:
        """Cancel a job; `StateConflictError` when it ended otherwise."""
        return await self.job(job_id).cancel(reason=reason)

    async def retry(self, job_id: str, *, reason: str = "") -> JobState:
        """Make a dead job ready again, as a new generation."""
        return await self.job(job_id).retry(reason=reason)

    async def act(self, verb: ActionVerb | str, **which: Unpack[Which]) -> ActionReport:
        """Cancel, retry or purge many jobs: `ids=`, `filter=` or `all=True`; with `dry_run` only say which."""
        return await act(self._wire, "v1/jobs/actions", action(ActionVerb(verb), which))

    async def health(self) -> Health:
        """Return the gateway's readiness; `EngineUnavailableError` when its engine does not answer."""
        return await self._wire.read("readyz", Health)


@asynccontextmanager
async def connect(url: str | None = None, key: str | None = None, *, tries: int = TRIES) -> AsyncGenerator[Fleet]:
    """Speak to the gateway at `url`; connections are made as they are needed and closed with the block.

    Without a URL it is the gateway that the commands speak to, with the credential that they send (`HOSTLER_URL` and
    `HOSTLER_KEY`, else the settings file, else this machine's); `SettingsError` when those are wrong. A URL that is
    given gets no credential but `key`.

    Nothing is sent yet: a gateway that is not there shows at the first call (`GatewayUnavailableError`).
    `tries` is how often one request is sent in all while nobody answers.
    """
    if url is None:
        url, usual = await asyncio.to_thread(address)
        key = usual if key is None else key
    async with Wire.open(url, key, tries=tries) as wire:
        yield Fleet(wire)
