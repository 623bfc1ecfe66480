"""Hostler with all that it promises: leases, fences, priorities, fairness, events, results, history."""

import asyncio
from contextlib import AsyncExitStack, aclosing
from typing import Any

import msgspec
from msgspec import Raw
from side import AT_ONCE, IO, URL, Client, become, begun

import hostler
from hostler.broker.desk import EngineDesk
from hostler.broker.foreman import EngineForeman
from hostler.contracts.job import JobRequest
from hostler.kernel.settings import EngineSettings, LogSettings
from hostler.telemetry.logs import configure
from hostler.valkeyio.engine import Engine
from hostler.valkeyio.library import Library
from hostler.worker.handlers import HandlerSet


@hostler.handler("noop", queue="peer")
async def noop(call: hostler.Call[dict[str, Any]]) -> None:
    begun(call.payload["sent"], call.payload["data"])


@hostler.handler("io", queue="peer")
async def io(call: hostler.Call[dict[str, Any]]) -> None:
    begun(call.payload["sent"], call.payload["data"])
    await asyncio.sleep(IO)


class Hostler(Client):
    """Straight to the engine, as its peers go; `submit` takes many."""

    async def open(self) -> None:
        configure(LogSettings(level="error"), role="bench")  # what it writes is read
        self._stack = AsyncExitStack()
        engine = await self._stack.enter_async_context(
            Engine.open(EngineSettings(url=URL, allow_degraded=True), role="bench")
        )
        await Library(engine).ensure()
        foreman = EngineForeman(engine)
        for kind in HandlerSet.of(noop, io).kinds():
            await foreman.declare_kind(kind)
        self._desk = await self._stack.enter_async_context(aclosing(EngineDesk(engine)))
        self._submits = 0

    async def close(self) -> None:
        await self._stack.aclose()

    async def _submit(self, *requests: JobRequest) -> None:
        self._submits += 1
        for answer in await self._desk.submit(requests, operation=f"peer/{self._submits}"):
            if isinstance(answer, Exception):
                raise answer

    async def one(self, work: str, sent: int, data: str) -> None:
        await self._submit(_request(work, sent, data))

    async def many(self, work: str, jobs: list[tuple[int, str]]) -> None:
        await self._submit(*(_request(work, sent, data) for sent, data in jobs))

    async def later(self, work: str, due: int, seconds: float) -> None:
        await self._submit(_request(work, due, "", delay=seconds))


def _request(work: str, sent: int, data: str, **more: Any) -> JobRequest:
    return JobRequest(kind=work, payload=Raw(msgspec.json.encode({"sent": sent, "data": data})), **more)


def worker(_: str) -> None:
    become(
        "hostler", "worker", "--engine", URL, "--handlers", "hostler_side", "--slots", str(AT_ONCE), "--allow-degraded"
    )


CLIENT = Hostler
