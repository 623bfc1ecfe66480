"""pydocket: one process, 64 jobs at a time, nothing kept after the end."""

import asyncio
from datetime import UTC, datetime, timedelta
from importlib import import_module
from typing import Any

from side import AT_ONCE, IO, URL, Client, begun

docket: Any = import_module("docket")


async def noop(sent: int, data: str) -> None:
    begun(sent, data)


async def io(sent: int, data: str) -> None:
    begun(sent, data)
    await asyncio.sleep(IO)


FUNCTIONS = {"noop": noop, "io": io}


def opened() -> Any:
    """Return the docket that both sides use."""
    return docket.Docket(name="peer", url=URL, execution_ttl=timedelta(0))


class Pydocket(Client):
    """Several at a time with `add_many`."""

    async def open(self) -> None:
        self._docket: Any = await opened().__aenter__()
        for function in FUNCTIONS.values():
            self._docket.register(function)

    async def close(self) -> None:
        await self._docket.__aexit__(None, None, None)

    async def one(self, work: str, sent: int, data: str) -> None:
        await self._docket.add(FUNCTIONS[work])(sent, data)

    async def many(self, work: str, jobs: list[tuple[int, str]]) -> None:
        await self._docket.add_many([self._docket.call(FUNCTIONS[work])(*job) for job in jobs])

    async def later(self, work: str, due: int, seconds: float) -> None:
        await self._docket.add(FUNCTIONS[work], when=datetime.now(UTC) + timedelta(seconds=seconds))(due, "")


async def _work() -> None:
    async with opened() as there:
        for function in FUNCTIONS.values():
            there.register(function)
        async with docket.Worker(there, concurrency=AT_ONCE) as worker:
            await worker.run_forever()


def worker(_: str) -> None:
    asyncio.run(_work())


CLIENT = Pydocket
