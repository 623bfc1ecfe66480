"""A gateway that serves real HTTP on a free port, on the real engine."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import litestar
import msgspec
import pytest
from yarl import URL

from hostler.blobs import open_blobs
from hostler.broker.desk import EngineDesk
from hostler.broker.engine import EngineBroker
from hostler.broker.foreman import EngineForeman
from hostler.contracts.lease import ClaimRequest, Ending, Lease, Settlement, Succeed
from hostler.contracts.offer import Offer, Pool
from hostler.contracts.queue import KindSpec
from hostler.contracts.worker import Worker, WorkerState
from hostler.gateway.app import build_app
from hostler.gateway.serve import serve
from hostler.kernel.settings import BlobSettings, GatewaySettings, Settings
from hostler.ports.blobs import Blobs
from hostler.ports.broker import Broker, Desk, Foreman
from hostler.ports.registry import Registry
from hostler.registry.endpoints import EngineEndpoints
from hostler.registry.engine import EngineRegistry
from hostler.registry.limits import EngineLimiter
from hostler.registry.results import EngineResults
from hostler.telemetry.metrics import Metrics
from hostler.valkeyio.engine import Engine

KIND = "text.echo"


@dataclass(kw_only=True)
class Answered:
    """One HTTP answer, read whole."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)


@dataclass(kw_only=True)
class House:
    """A running gateway and the ports behind it."""

    url: str
    app: litestar.Litestar
    session: aiohttp.ClientSession
    broker: Broker
    desk: Desk
    foreman: Foreman
    registry: Registry
    blobs: Blobs
    metrics: Metrics
    stop: asyncio.Event
    served: asyncio.Task[None]
    worker_id: str = "w-test"
    offers: tuple[Offer, ...] = field(default=(Offer(kinds=(KIND,), service="echo"),))

    async def ask(self, method: str, path: str | URL, **given: Any) -> Answered:
        async with self.session.request(method, path, allow_redirects=False, **given) as answer:
            body = await answer.read()
            headers = {name.lower(): value for name, value in answer.headers.items()}
            return Answered(status=answer.status, headers=headers, body=body)

    async def submit(self, **fields: Any) -> str:
        answer = await self.ask("POST", "/v1/jobs", json={"kind": KIND, **fields})
        assert answer.status == 201, answer.body
        job_id: str = answer.json["id"]
        return job_id

    def record(self, worker: str) -> Worker:
        now = datetime.now(UTC)
        return Worker(
            id=worker,
            state=WorkerState.READY,
            machine="here",
            pid=1,
            version="0",
            slots=8,
            running=0,
            queues=("default",),
            offers=self.offers,
            started_at=now,
            seen_at=now,
            expires_at=now + timedelta(seconds=10),
            loop_age=0.0,
        )

    async def announce(self) -> None:
        await self.registry.announce(self.record(self.worker_id))

    async def claim(self) -> Lease:
        await self.announce()
        request = ClaimRequest(
            queue="default",
            worker=self.worker_id,
            limit=1,
            offers=self.offers,
            pools={"slots": Pool(id=self.worker_id, total=8)},
        )
        (lease,) = await self.broker.claim(request, operation=f"claim-{asyncio.get_running_loop().time()}")
        return lease

    async def finish(self, lease: Lease, ending: Ending | None = None) -> None:
        ending = ending or Succeed(result=msgspec.Raw(b'{"said":"hello"}'))
        settlement = Settlement(job_id=lease.job_id, fence=lease.fence, ending=ending)
        (settled,) = await self.broker.settle(self.worker_id, [settlement])
        assert settled.accepted, settled


Opening = Callable[..., AbstractAsyncContextManager[House]]


@pytest.fixture
def opening(tmp_path: Path) -> Opening:
    """Make gateways on a given engine."""

    @asynccontextmanager
    async def opened(engine: Engine, **gateway: Any) -> AsyncGenerator[House]:
        desk, foreman, registry = EngineDesk(engine), EngineForeman(engine), EngineRegistry(engine)
        settings = Settings(gateway=GatewaySettings(**gateway), blobs=BlobSettings(limit=30_000_000))
        metrics, stop = Metrics(), asyncio.Event()
        async with open_blobs(None, tmp_path) as blobs:
            endpoints = EngineEndpoints(engine)
            app = build_app(
                desk,
                foreman,
                registry,
                endpoints,
                blobs,
                settings,
                results=EngineResults(engine),
                limiter=EngineLimiter(engine),
                metrics=metrics,
                degraded=lambda: engine.degraded,
            )
            ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
            served = asyncio.create_task(serve(app, "127.0.0.1:0", ready=ready.set_result, stop=stop))
            url = await ready
            try:
                async with aiohttp.ClientSession(url) as session:
                    yield House(
                        url=url,
                        app=app,
                        session=session,
                        broker=EngineBroker(engine),
                        desk=desk,
                        foreman=foreman,
                        registry=registry,
                        blobs=blobs,
                        metrics=metrics,
                        stop=stop,
                        served=served,
                    )
            finally:
                stop.set()
                await served

    return opened


@pytest.fixture
async def house(engine: Engine, opening: Opening) -> AsyncIterator[House]:
    """A gateway on an empty engine that knows one kind."""
    await EngineForeman(engine).declare_kind(KindSpec(name=KIND, service="echo"))
    async with opening(engine) as house:
        yield house
