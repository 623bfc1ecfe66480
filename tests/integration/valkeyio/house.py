"""A broker on one engine with one worker, for tests that open engines of their own."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from msgspec import Raw

from hostler.broker.desk import EngineDesk
from hostler.broker.engine import EngineBroker
from hostler.broker.foreman import EngineForeman
from hostler.contracts.event import Event
from hostler.contracts.job import JobRequest, Submitted
from hostler.contracts.lease import Again, ClaimRequest, Lease, Settled, Settlement, Succeed
from hostler.contracts.offer import Offer, Pool
from hostler.contracts.queue import KindSpec
from hostler.kernel.errors import HostlerError
from hostler.kernel.settings import EngineSettings
from hostler.valkeyio.engine import Engine

KIND, LATER = KindSpec(name="work.do", queue="main"), KindSpec(name="work.later", queue="later")


class House:
    """A broker on one engine, with one worker `w1` that may have lived through a restore."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.broker, self.desk, self.foreman = EngineBroker(engine), EngineDesk(engine), EngineForeman(engine)
        self._operations = 0

    def operation(self) -> str:
        self._operations += 1
        return f"{id(self)}-{self._operations}"

    async def submit(self, kind: KindSpec = KIND) -> str:
        request = JobRequest(kind=kind.name, payload=Raw(b"{}"))
        (answer,) = await self.desk.submit([request], operation=self.operation())
        if not isinstance(answer, Submitted):
            raise answer
        return answer.id

    async def claim(self, kind: KindSpec = KIND, **more: Any) -> Lease:
        (lease,) = await self.claim_some(kind, **more)
        return lease

    async def claim_some(self, kind: KindSpec = KIND, *, worker: str = "w1", **more: Any) -> tuple[Lease, ...]:
        request = ClaimRequest(
            queue=kind.queue,
            worker=worker,
            limit=1,
            offers=(Offer(kinds=(kind.name,)),),
            pools={"slots": Pool(id=worker, total=10.0)},
            **more,
        )
        return await self.broker.claim(request, operation=self.operation())

    async def settle(self, lease: Lease, ending: Succeed | Again | None = None) -> Settled:
        settlement = Settlement(job_id=lease.job_id, fence=lease.fence, ending=ending or Succeed())
        (settled,) = await self.broker.settle("w1", [settlement])
        return settled

    async def epoch(self, queue: str = "main") -> int:
        return (await self.desk.events(queue, after=0)).epoch

    async def events(self, queue: str = "main") -> list[Event]:
        found: list[Event] = []
        after = 0
        while (page := await self.desk.events(queue, after=after)).events:
            found += page.events
            after = page.next
        return found


class Load:
    """Submits, claims and settles one job after another; what fails is tried again, as a client would."""

    def __init__(self, home: House, kind: KindSpec = KIND) -> None:
        self._home = home
        self._kind = kind
        self.submitted: list[str] = []
        self.settled: list[Lease] = []
        self.refusals: list[HostlerError] = []

    async def run(self) -> None:
        while True:
            try:
                self.submitted.append(await self._home.submit(self._kind))
                for lease in await self._home.claim_some(self._kind):
                    if (await self._home.settle(lease)).accepted:
                        self.settled.append(lease)
            except HostlerError as error:
                self.refusals.append(error)
                await asyncio.sleep(0.02)  # not waiting: a refused connection comes back at once


@asynccontextmanager
async def house(settings: EngineSettings) -> AsyncGenerator[House]:
    """Open an engine and declare `KIND` on it."""
    async with Engine.open(settings, role="test") as engine:
        opened = House(engine)
        await opened.foreman.declare_kind(KIND)
        yield opened
        await opened.broker.aclose()
        await opened.desk.aclose()
