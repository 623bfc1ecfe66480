"""The bad networks of a rig: the way of each process to the engine, and of all workers to each service."""

from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final, Self
from urllib.parse import urlsplit

from hostler.chaos.proxy import FaultProxy
from hostler.cli.rig.house import PRESS

NOWHERE: Final = ("127.0.0.1", 0)
"""Where a service is as long as it has not said."""


class Ways:
    """`async with` opens them; what leads to a service leads nowhere before `aim`."""

    def __init__(
        self, engine: Path | None, callers: Sequence[str], services: Sequence[str], *, metered: bool, seed: int
    ) -> None:
        self.engine = {name: FaultProxy(engine, seed=seed) for name in callers} if engine is not None else {}
        """To an engine that is in one place, by worker and gateway."""
        self.services = {name: FaultProxy(NOWHERE, seed=seed) for name in services}
        self._press = FaultProxy(NOWHERE, seed=seed) if metered and services else None
        """One more to the first service: whose calls are limited."""
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            for proxy in (*self.engine.values(), *self.services.values(), *([self._press] if self._press else ())):
                await stack.enter_async_context(proxy)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    def aim(self, service: str, url: str) -> None:
        """Let all ways to a service lead to where it is."""
        place = urlsplit(url)
        target = (place.hostname or "", place.port or 0)
        self.services[service].target = target
        if self._press is not None and service == self._first:
            self._press.target = target

    def ports(self) -> dict[str, int]:
        """Return where each entry of connectors is to be called."""
        ports = {name: proxy.port for name, proxy in self.services.items()}
        return ports if self._press is None else ports | {PRESS: self._press.port}

    def entries(self, service: str) -> tuple[str, ...]:
        """Return the entries under which a service is called."""
        return (service, PRESS) if self._press is not None and service == self._first else (service,)

    def entry(self, url: str) -> str | None:
        """Return the entry that calls this address; None when none does."""
        port = urlsplit(url).port
        return next((name for name, known in self.ports().items() if known == port), None)

    def heal(self) -> None:
        """Let everything through again."""
        for proxy in (*self.engine.values(), *self.services.values()):
            proxy.heal()

    @property
    def _first(self) -> str:
        return next(iter(self.services))
