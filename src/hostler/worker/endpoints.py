"""What a worker's connectors can do now: each endpoint is opened, probed and asked for its capabilities."""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

import structlog

from hostler.contracts.offer import Offer, Pool
from hostler.contracts.queue import KindSpec
from hostler.contracts.service import EndpointState, Probe, ServiceCapabilities
from hostler.kernel.errors import ServiceUnavailableError
from hostler.kernel.units import Seconds
from hostler.ports.clock import Clock, Dice
from hostler.ports.connector import Connector

_LOG = structlog.stdlib.get_logger("hostler.worker.endpoints")

PROBE_LIMIT: Seconds = 5.0
"""Longest probe; a slower endpoint counts as unhealthy."""
REFRESH: Seconds = 30.0
"""How often a healthy endpoint is asked for its capabilities again."""
_WELL = frozenset({EndpointState.READY, EndpointState.DEGRADED})


class Station:
    """One connector with what is known of its endpoint."""

    def __init__(self, connector: Connector, labels: Mapping[str, str], clock: Clock) -> None:
        self.connector = connector
        self.specs = {spec.name: spec for spec in connector.kinds()}
        self.probe = Probe(state=EndpointState.UNKNOWN)
        self._labels = dict(labels)
        self._clock = clock
        self._found: ServiceCapabilities | None = None
        self._asked_at: float | None = None
        self.offer = self._make_offer()

    async def look(self) -> bool:
        """Probe the endpoint, ask for its capabilities when they are due, and tell whether the offer changed."""
        self.probe = await self._probe()
        now = self._clock.monotonic()
        if self.probe.state in _WELL and (self._asked_at is None or now - self._asked_at >= REFRESH):
            await self._ask(now)
        before, self.offer = self.offer, self._make_offer()
        if before.healthy != self.offer.healthy:
            words = {"endpoint": self.connector.endpoint, "state": self.probe.state.value}
            _LOG.info("endpoint", healthy=self.offer.healthy, message=self.probe.message, **words)
        return before != self.offer

    async def _probe(self) -> Probe:
        try:
            async with asyncio.timeout(PROBE_LIMIT):
                return await self.connector.probe()
        except TimeoutError:
            return Probe(state=EndpointState.UNHEALTHY, message=f"no answer within {PROBE_LIMIT:g} s")
        except Exception as error:  # noqa: BLE001 - a probe never raises; one that does must not stop the others
            _LOG.exception("a probe raised", connector=self.connector.name)
            return Probe(state=EndpointState.UNHEALTHY, message=f"{type(error).__name__}: {error}")

    async def _ask(self, now: float) -> None:
        try:
            async with asyncio.timeout(PROBE_LIMIT):
                self._found = await self.connector.capabilities()
            self._asked_at = now
        except (ServiceUnavailableError, TimeoutError) as error:
            self.probe = Probe(state=EndpointState.UNHEALTHY, message=f"it does not say what it has: {error}")
        except Exception as error:  # noqa: BLE001 - one connector's defect must not stop the worker's other endpoints
            words = f"{type(error).__name__}: {error}"
            _LOG.error("capabilities raised", connector=self.connector.name, error=words)
            self.probe = Probe(state=EndpointState.UNHEALTHY, message=words)

    def _make_offer(self) -> Offer:
        connector, found = self.connector, self._found
        if found is None:
            return Offer(
                kinds=tuple(self.specs),
                service=connector.service,
                endpoint=connector.endpoint,
                healthy=False,
                models_known=False,
                labels=self._labels,
            )
        pools = dict(found.pools)
        if "slots" not in pools and self.probe.slots is not None:
            pools["slots"] = Pool(id=f"{connector.endpoint}:slots", total=float(self.probe.slots))
        return Offer(
            kinds=tuple(kind for kind in found.kinds if kind in self.specs),
            service=connector.service,
            endpoint=connector.endpoint,
            healthy=self.probe.state in _WELL,
            models=found.models,
            models_known=found.models_known,
            labels={**self._labels, **found.labels},
            versions=found.versions,
            pools=pools,
        )


class Stations:
    """All connectors of one worker; `async with` opens and closes them.

    A connector that cannot be opened raises out of it; an endpoint that does not answer does not.
    """

    def __init__(
        self,
        connectors: Sequence[Connector],
        *,
        labels: Mapping[str, str],
        interval: Seconds,
        clock: Clock,
        dice: Dice,
    ) -> None:
        self._connectors = tuple(connectors)
        self._labels = labels
        self._interval = interval
        self._clock = clock
        self._dice = dice
        self._open = AsyncExitStack()
        self._stations: list[Station] = []

    async def __aenter__(self) -> Self:
        try:
            for connector in self._connectors:
                opened = await self._open.enter_async_context(connector)
                self._stations.append(Station(opened, self._labels, self._clock))
            await asyncio.gather(*(station.look() for station in self._stations))
        except BaseException:  # cancelled or failed alike: close what is open
            await self._open.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._open.__aexit__(kind, value, trace)

    def __iter__(self) -> Iterator[Station]:
        return iter(self._stations)

    def kinds(self) -> tuple[KindSpec, ...]:
        """Return the rows that the connectors declare, one for each kind."""
        found: dict[str, KindSpec] = {}
        for station in self._stations:
            found.update(station.specs)
        return tuple(found.values())

    async def watch(self, changed: Callable[[], None]) -> None:
        """Look at every endpoint each interval, until cancelled; `changed` is called after an offer did."""
        never = asyncio.Event()  # without a station there is nothing to watch, and this still does not return
        await asyncio.gather(never.wait(), *(self._watch(station, changed) for station in self._stations))

    async def _watch(self, station: Station, changed: Callable[[], None]) -> None:
        while True:
            await asyncio.sleep(self._interval * (0.8 + 0.4 * self._dice.roll()))
            if await station.look():
                changed()
