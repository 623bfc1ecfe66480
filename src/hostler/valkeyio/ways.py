"""How the engine is reached where one server keeps it: three pools to it, and it may stand still or be followed."""

import contextlib
import os
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from redis.asyncio import Redis

from hostler.kernel.errors import HostlerError
from hostler.kernel.settings import EngineSettings
from hostler.kernel.units import Seconds
from hostler.valkeyio.client import BLOCKING_LIMIT, BoundedPool, Client, PoolUsage, make_client, make_pool, send
from hostler.valkeyio.connections import Route
from hostler.valkeyio.faults import mapped
from hostler.valkeyio.pipes import Piped
from hostler.valkeyio.safety import Facts, Verdict, judge, read_facts
from hostler.valkeyio.sentinels import Sentinels

PROBE_TIMEOUT: Final[Seconds] = 2.0
_MARGIN: Final[Seconds] = 5.0

Heal = Callable[[HostlerError], Awaitable[None]]
"""Does what may help after this failure; raises an error of ours that says why nothing did."""


class Way(Protocol):
    """What the engine needs of whatever leads to its server."""

    @property
    def client(self) -> Client:
        """Return the client for commands that answer at once."""
        ...

    @property
    def blocking(self) -> Client:
        """Return the client for blocking commands and subscriptions."""
        ...

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

    async def judged(self) -> tuple[Verdict, str]:
        """Return what is to be thought of the engine, and what it is, like `valkey 9.1.2`."""
        ...

    async def aclose(self) -> None:
        """Close all connections."""
        ...


class Straight:
    """Leads to one server, which stays where it is."""

    def __init__(self, settings: EngineSettings, url: str, role: str, route: Route | None = None) -> None:
        name = f"hostler-{role}-{os.getpid()}".replace(" ", "-")
        self._main: BoundedPool = make_pool(settings, url, name=name, route=route)
        self._calls: BoundedPool = make_pool(settings, url, name=name, route=route)
        self._blocking: BoundedPool = make_pool(
            settings, url, name=f"{name}-blocking", timeout=BLOCKING_LIMIT + _MARGIN, route=route
        )
        self._probe: BoundedPool = make_pool(
            settings, url, name=f"{name}-probe", timeout=PROBE_TIMEOUT, limit=1, route=route, probing=True
        )
        self.client: Piped = Piped(make_client(self._main), self._calls, limit=settings.command_timeout)
        self.blocking: Redis = make_client(self._blocking)
        self._asker: Redis = make_client(self._probe)

    def pools(self) -> dict[str, PoolUsage]:
        """Return the numbers of the pools."""
        pools = {"calls": self._calls, "client": self._main, "blocking": self._blocking}
        return {name: pool.usage() for name, pool in pools.items()}

    def cut(self) -> None:
        """Break all connections that are in use."""
        for pool in (self._calls, self._main, self._blocking, self._probe):
            pool.cut()

    def wake(self) -> None:
        """Break the connections of those that only wait: nothing of theirs is in doubt, and they try elsewhere."""
        self._blocking.cut()

    @property
    def busy(self) -> bool:
        """Whether anybody uses a connection now."""
        return self.client.busy or any(pool.usage().in_use for pool in (self._main, self._blocking, self._probe))

    async def begin(self) -> None:
        """There is nothing to find."""

    async def ask(self) -> None:
        """Ask the server for a word."""
        with mapped():
            await send(self._asker, "PING")

    async def heal(self, failure: HostlerError) -> None:
        """Nothing helps but to ask again."""

    async def facts(self) -> Facts:
        """Return what the server says of itself."""
        return await read_facts(self._asker)

    async def judged(self) -> tuple[Verdict, str]:
        """Judge the server by what it says of itself."""
        facts = await self.facts()
        return judge(facts), facts.product

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
        self._failure: HostlerError | None = None
        """Since which the sentinels have not said where the primary is."""
        self._straight = Straight(settings, sentinels.target.server, role, self._route)
        self.client: Piped = self._straight.client
        self.blocking: Redis = self._straight.blocking

    def pools(self) -> dict[str, PoolUsage]:
        """Return the numbers of the pools."""
        return self._straight.pools()

    async def begin(self) -> None:
        """Ask the sentinels where the primary is."""
        self._route.move((await self._sentinels.find()).primary)

    async def ask(self) -> None:
        """Ask the primary for a word, and one of the sentinels whether it still is the primary: all after a failure."""
        if self._failure is None:
            await self._sentinels.check(self._route.address)
        else:
            await self.heal(self._failure)
        await self._straight.ask()

    async def heal(self, failure: HostlerError) -> None:
        """Go where the sentinels say the primary is now; what waits on the one before fails at once.

        Until they say, no new connection leads there: a primary that died comes back as one, and knows what is old.
        """
        self._failure, self._route.doubted = failure, True
        moved = self._route.move(await self._sentinels.find_instead(self._route.address, failure))
        self._failure, self._route.doubted = None, False
        if moved:
            self._straight.cut()

    async def judged(self) -> tuple[Verdict, str]:
        """Judge the primary by what it says of itself, and by what the sentinels say."""
        facts = await self._straight.facts()
        return judge(facts, (await self._sentinels.find()).watch), facts.product

    async def aclose(self) -> None:
        """Close all connections."""
        await self._straight.aclose()
        await self._sentinels.aclose()
