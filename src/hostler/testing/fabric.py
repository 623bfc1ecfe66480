"""A broker with short ways to use it, and workers that run beside a test."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec
from msgspec import Raw

from hostler.contracts.event import Event
from hostler.contracts.job import Job, JobRequest
from hostler.contracts.worker import WorkerState
from hostler.kernel.settings import WorkerSettings
from hostler.ports.blobs import Blobs
from hostler.ports.broker import Broker, Desk, Foreman
from hostler.ports.connector import Connector
from hostler.ports.discovery import Discovery, Placed
from hostler.ports.limiter import Limiter
from hostler.ports.registry import Registry
from hostler.ports.results import Results
from hostler.testing.eventually import eventually
from hostler.worker.fitness import Check
from hostler.worker.handlers import HandlerSet
from hostler.worker.heartbeat import Link, Tempo
from hostler.worker.system import SystemClock, SystemDice
from hostler.worker.worker import Worker


class Whole(Broker, Desk, Foreman, Registry, Protocol):
    """All four ports in one object, as the model broker has them."""


@dataclass(frozen=True, kw_only=True)
class Ports:
    """The four ports, of whatever adapters."""

    broker: Broker
    desk: Desk
    foreman: Foreman
    registry: Registry

    @classmethod
    def of(cls, whole: Whole) -> "Ports":
        """Return one object as all four."""
        return cls(broker=whole, desk=whole, foreman=whole, registry=whole)


class Fabric:
    """Submits, waits for ends and runs workers; `within` is in seconds everywhere."""

    def __init__(self, ports: Ports) -> None:
        self.ports = ports
        self._submits = 0

    async def submit(self, kind: str, payload: object = None, **more: Any) -> str:
        """Submit one job with any JSON value as payload and return its id; raises what refused it."""
        self._submits += 1
        request = JobRequest(kind=kind, payload=Raw(msgspec.json.encode(payload)), **more)
        (answer,) = await self.ports.desk.submit([request], operation=f"{id(self)}/submit/{self._submits}")
        if isinstance(answer, Exception):
            raise answer
        return answer.id

    async def get(self, job_id: str) -> Job:
        """Return a job as it is now."""
        return await self.ports.desk.get(job_id)

    async def running(self, job_id: str, *, within: float = 10.0) -> Job:
        """Return a job once it runs."""
        return await self._once(job_id, lambda job: job.state == "running", within)

    async def ended(self, job_id: str, *, within: float = 10.0) -> Job:
        """Return a job once it has ended."""
        return await self._once(job_id, lambda job: job.state.terminal, within)

    async def result(self, job_id: str, *, within: float = 10.0) -> Any:
        """Return the result of a job once it has one; an `AssertionError` with its error when it failed."""
        job = await self.ended(job_id, within=within)
        if job.state != "succeeded":
            raise AssertionError(f"{job_id} ended {job.state} without a result: {job.error}")
        return msgspec.json.decode(job.result)

    async def _once(self, job_id: str, true: Callable[[Job], bool], within: float) -> Job:
        async def look() -> tuple[Job, ...]:
            job = await self.get(job_id)
            return (job,) if true(job) else ()

        return (await eventually(look, within=within))[0]

    async def events(self, job_id: str) -> tuple[Event, ...]:
        """Return what happened to a job."""
        return (await self.ports.desk.timeline(job_id)).events

    @asynccontextmanager
    async def worker(
        self,
        *functions: Callable[..., Any],
        connectors: Sequence[Connector | Placed] = (),
        broker: Broker | None = None,
        blobs: Blobs | None = None,
        discovery: Discovery | None = None,
        results: Results | None = None,
        limiter: Limiter | None = None,
        link: Link | None = None,
        tempo: Tempo | None = None,
        checks: Sequence[tuple[str, Check]] = (),
        **settings: Any,
    ) -> AsyncGenerator[Worker]:
        """Run a worker of these handlers and connectors inside `async with`; at the end it gives back what it runs.

        It beats and polls faster than a worker in earnest; `settings` are those of `WorkerSettings`.
        """
        quick: dict[str, Any] = {"idle_poll": 0.05, "probe_interval": 0.1, "progress_interval": 0.05, **settings}
        ports = self.ports
        worker = Worker(
            broker or ports.broker,
            ports.foreman,
            ports.registry,
            connectors,
            HandlerSet.of(*functions),
            WorkerSettings(**quick),
            clock=SystemClock(),
            dice=SystemDice(),
            blobs=blobs,
            discovery=discovery,
            results=results,
            limiter=limiter,
            heartbeat_link=link,
            tempo=tempo or Tempo(beat=0.1),
            checks=checks,
        )
        task = asyncio.create_task(worker.run())
        try:
            await eventually(lambda: task.done() or worker.state in {WorkerState.READY, WorkerState.BUSY}, within=20)
            yield worker
        finally:
            worker.drain(at_once=True)
            await asyncio.wait_for(task, 20)
