"""How the engine is reached: three pools to one server, which may stand still or be followed."""

import contextlib
import os
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Final, Protocol

from redis.asyncio import Redis

from hostler.kernel.errors import HostlerError
from hostler.kernel.settings import EngineSettings
from hostler.kernel.units import Seconds
from hostler.valkeyio.client import BLOCKING_LIMIT, BoundedPool, PoolUsage, make_client, make_pool, send
from hostler.valkeyio.connections import Route
from hostler.valkeyio.faults import mapped
from hostler.valkeyio.safety import Facts, Watch, read_facts
from hostler.valkeyio.sentinels import Sentinels
from hostler.valkeyio.urls import sentinel_url

PROBE_TIMEOUT: Final[Seconds] = 2.0
_MARGIN: Final[Seconds] = 5.0

Heal = Callable[[HostlerError], Awaitable[None]]
"""Does what may help after this failure; raises an error of ours that says why nothing did."""


class Way(Protocol):
    """What the engine needs of whatever leads to its server."""

    client: Redis
    blocking: Redis

    def pools(self) -> dict[str, PoolUsage]:
        """Return the numbers of the pools `client` and `blocking`."""
        ...

    async def begin(self) -> None:
        """Find the server; an error of ours when it cannot be found now."""
        ...

    async def ask(self) -> None:
        """Return when the server answers as it should; an error of ours otherwise."""
        ...

    async def heal(self, failure: HostlerError) -> None:
        """Do what may help after `ask` failed; an error of ours that says why nothing did."""
        ...

    async def facts(self) -> tuple[Facts, Watch | None]:
        """Return what the server says of itself, and what those say who watch it."""
        ...

    async def aclose(self) -> None:
        """Close all connections."""
        ...


class Straight:
    """Leads to one server, which stays where it is."""

    def __init__(self, settings: EngineSettings, url: str, role: str, route: Route | None = None) -> None:
        name = f"hostler-{role}-{os.getpid()}".replace(" ", "-")
        self._main: BoundedPool = make_pool(settings, url, name=name, route=route)
        self._blocking: BoundedPool = make_pool(
            settings, url, name=f"{name}-blocking", timeout=BLOCKING_LIMIT + _MARGIN, route=route
        )
        self._probe: BoundedPool = make_pool(
            settings, url, name=f"{name}-probe", timeout=PROBE_TIMEOUT, limit=1, route=route
        )
        self.client: Redis = make_client(self._main)
        self.blocking: Redis = make_client(self._blocking)
        self._asker: Redis = make_client(self._probe)

    def pools(self) -> dict[str, PoolUsage]:
        """Return the numbers of both pools."""
        return {"client": self._main.usage(), "blocking": self._blocking.usage()}

    def cut(self) -> None:
        """Break all connections that are in use."""
        for pool in (self._main, self._blocking, self._probe):
            pool.cut()

    async def begin(self) -> None:
        """There is nothing to find."""

    async def ask(self) -> None:
        """Ask the server for a word."""
        with mapped():
            await send(self._asker, "PING")

    async def heal(self, failure: HostlerError) -> None:
        """Nothing helps but to ask again."""

    async def facts(self) -> tuple[Facts, Watch | None]:
        """Return what the server says of itself."""
        return await read_facts(self._asker), None

    async def aclose(self) -> None:
        """Close all connections."""
        for client in (self.client, self.blocking, self._asker):
            with contextlib.suppress(OSError), mapped():
                await client.aclose()


class Followed:
    """Leads to whatever server the sentinels name as the primary."""

    def __init__(self, settings: EngineSettings, sentinels: Sentinels, role: str) -> None:
        self._sentinels = sentinels
        self._route = Route(sentinels.target.places[0])
        self._straight = Straight(settings, sentinels.target.server, role, self._route)
        self.client: Redis = self._straight.client
        self.blocking: Redis = self._straight.blocking

    def pools(self) -> dict[str, PoolUsage]:
        """Return the numbers of both pools."""
        return self._straight.pools()

    async def begin(self) -> None:
        """Ask the sentinels where the primary is."""
        self._route.move((await self._sentinels.find()).primary)

    async def ask(self) -> None:
        """Ask the primary for a word, and one of the sentinels whether it still is the primary."""
        await self._sentinels.check(self._route.address)
        await self._straight.ask()

    async def heal(self, failure: HostlerError) -> None:
        """Go where the sentinels say the primary is now; what waits on the one before fails at once."""
        if self._route.move(await self._sentinels.find_instead(self._route.address, failure)):
            self._straight.cut()

    async def facts(self) -> tuple[Facts, Watch | None]:
        """Return what the primary says of itself, and what the sentinels say."""
        facts, _ = await self._straight.facts()
        return facts, (await self._sentinels.find()).watch

    async def aclose(self) -> None:
        """Close all connections."""
        await self._straight.aclose()
        await self._sentinels.aclose()


@contextlib.asynccontextmanager
async def way_to(settings: EngineSettings, url: str, role: str) -> AsyncGenerator[Way]:
    """Yield the way to the engine at `url`; nothing is connected yet."""
    target = sentinel_url(url)
    way: Way = Followed(settings, Sentinels(settings, target), role) if target else Straight(settings, url, role)
    try:
        yield way
    finally:
        await way.aclose()
