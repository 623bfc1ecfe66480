"""The endpoints of one worker: those it was given and those that discovery knows, opened, watched, weighed, closed."""

import asyncio
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Self

import structlog

from hostler.contracts.offer import Standing
from hostler.contracts.queue import KindSpec
from hostler.contracts.service import Endpoint, EndpointMark
from hostler.dispatch.gauge import Gauge
from hostler.dispatch.memory import Memory
from hostler.dispatch.repeats import Repeats
from hostler.kernel.settings import WorkerSettings
from hostler.kernel.units import Seconds
from hostler.policy.breaker import panics
from hostler.ports.clock import Clock, Dice
from hostler.ports.connector import Connector
from hostler.ports.discovery import Discovery, Found, Placed
from hostler.ports.limiter import Limiter
from hostler.worker.gates import heed
from hostler.worker.station import Station, Witness

_LOG = structlog.stdlib.get_logger("hostler.worker.endpoints")

FOLLOW: Seconds = 1.0
"""How often discovery is asked."""
_GATES = "/gates"
"""Key of what watches them all; no endpoint's id has a slash."""


class Stations:
    """All endpoints of one worker; `async with` opens and closes them.

    A given connector that cannot be opened raises out of it; an endpoint that does not answer does not, nor does
    one that discovery found. An endpoint that does not say how many calls it takes begins with the worker's slots.
    """

    def __init__(
        self,
        connectors: Sequence[Connector | Placed],
        settings: WorkerSettings,
        worker: str,
        chance: tuple[Clock, Dice],
        *,
        discovery: Discovery | None = None,
        limiter: Limiter | None = None,
    ) -> None:
        self._given = tuple(one if isinstance(one, Placed) else Placed(connector=one, url="") for one in connectors)
        self._settings = settings
        self._clock, self._dice = chance
        self._discovery = discovery
        self._limiter = limiter
        self._witness = Witness(worker, discovery)
        self._stations: dict[str, Station] = {}
        self.changes = 0
        """How often an endpoint came or went."""
        self._fixed: set[str] = set()
        """Keys of those that were given: discovery has no say over them, marks apart."""
        self._repeats: dict[str, Repeats] = {}
        """Retry budgets by service."""
        self._watches: dict[str, asyncio.Task[None]] = {}
        self._changed: Callable[[], None] = _nobody

    async def __aenter__(self) -> Self:
        try:
            for placed in self._given:
                self._fixed.add((await self._add(placed)).key)
            if self._discovery is not None:
                await self._follow_once(self._discovery)
            await asyncio.gather(*(station.look() for station in self._stations.values()))
        except BaseException:  # cancelled or failed alike: close what is open
            await self._close_all()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._close_all()

    def __iter__(self) -> Iterator[Station]:
        return iter(tuple(self._stations.values()))

    def kinds(self) -> tuple[KindSpec, ...]:
        """Return the rows that the connectors declare, one for each kind."""
        found: dict[str, KindSpec] = {}
        for spec in () if self._discovery is None else self._discovery.kinds():
            found[spec.name] = spec
        for station in self:
            found.update(station.specs)
        return tuple(found.values())

    def standing(self, station: Station) -> Standing:
        """Return how a station stands among those of its service."""
        taken = held_elsewhere(self, station) if station.gauge.memory.single else {}
        return station.standing(self._usual(station.connector.service), taken)

    def endpoints(self) -> tuple[Endpoint, ...]:
        """Return what is shown of all of them."""
        return tuple(
            station.endpoint(self._usual(station.connector.service), self.standing(station)) for station in self
        )

    def steady(self) -> None:
        """Let no breaker keep more than half of a service's endpoints out: then the fault is elsewhere."""
        services: dict[str, list[Station]] = {}
        for station in self:
            if station.offer.healthy:
                services.setdefault(station.connector.service, []).append(station)
        for pool in services.values():
            panic = panics(sum(station.gauge.out for station in pool), len(pool))
            for station in pool:
                station.gauge.forced = panic

    async def watch(self, changed: Callable[[], None]) -> None:
        """Look at every endpoint each interval and follow discovery, until cancelled; `changed` hears of new offers."""
        self._changed = changed
        if self._limiter is not None:
            heeding = heed(self, self._limiter, self._dice)
            self._watches[_GATES] = asyncio.create_task(heeding, name="heed what others heard")
        try:
            for key, station in self._stations.items():
                self._begin(key, station)
            while True:
                await asyncio.sleep(FOLLOW * (0.8 + 0.4 * self._dice.roll()))
                try:
                    moved = self._discovery is not None and await self._follow_once(self._discovery)
                except Exception:  # noqa: BLE001 - a source's defect must not end what the worker serves already
                    _LOG.exception("following endpoints broke; what was known holds")
                    continue
                if moved:
                    changed()
        finally:
            watches = tuple(self._watches.values())
            self._watches.clear()
            for watch in watches:
                watch.cancel()
            await asyncio.gather(*watches, return_exceptions=True)

    def _usual(self, service: str) -> dict[str, Seconds]:
        """Return how long calls usually take at a service, by kind: the median of its endpoints."""
        times: dict[str, list[Seconds]] = {}
        for station in self:
            if station.connector.service == service:
                for kind, average in station.gauge.averages().items():
                    times.setdefault(kind, []).append(average)
        return {kind: statistics.median(all_) for kind, all_ in times.items()}

    def _begin(self, key: str, station: Station) -> None:
        if self._changed is not _nobody and key not in self._watches:
            self._watches[key] = asyncio.create_task(self._watch(station), name=f"watch {key}")

    async def _watch(self, station: Station) -> None:
        while True:
            if await station.look():
                self._changed()
            await asyncio.sleep(self._settings.probe_interval * (0.8 + 0.4 * self._dice.roll()))

    async def _add(self, placed: Placed) -> Station:
        await placed.connector.__aenter__()
        memory = Memory(self._clock, dwell=self._settings.dwell)
        gauge = Gauge(clock=self._clock, dice=self._dice, first=self._settings.slots, woken=self._wake, memory=memory)
        service = placed.connector.service
        repeats = self._repeats.setdefault(service, Repeats(service, clock=self._clock, dice=self._dice))
        station = Station(
            placed,
            self._settings.labels,
            self._clock,
            gauge,
            repeats,
            told=self._witness.tell,
            limiter=self._limiter,
        )
        key = station.id
        while key in self._stations:  # one address may be served twice, with other options
            key += "+"
        station.key = key
        self._stations[key] = station
        self.changes += 1
        return station

    def _wake(self, seconds: Seconds) -> None:
        """Have the claim loop look again when an endpoint may get calls again."""
        asyncio.get_running_loop().call_later(seconds + 0.005, self._changed)

    async def _follow_once(self, discovery: Discovery) -> bool:
        """Take in what discovery knows now; tell whether that changed an offer."""
        found = await discovery.find()
        changed = self._mark(found)
        wanted = {placed.connector.endpoint: placed for placed in found.placed}
        for name, placed in wanted.items():
            known = self._stations.get(name)
            if name in self._fixed:
                continue
            if known is not None and known.connector is placed.connector:
                known.placed = placed
                if known.leaving:
                    known.leaving, changed = False, True
                    known.renew()
                continue
            if known is not None:
                changed = await self._leave(known) or changed
                if name in self._stations:
                    continue  # its last calls end first; then the new one takes its place
            await self._join(placed, (found.marks or {}).get(name, EndpointMark()))
        for key, station in tuple(self._stations.items()):
            if key not in self._fixed and station.id not in wanted:
                changed = await self._leave(station) or changed
        return changed

    def _mark(self, found: Found) -> bool:
        if found.marks is None:
            return False
        changed = [station.marked(found.marks.get(station.id, EndpointMark())) for station in self]
        return any(changed)

    async def _join(self, placed: Placed, mark: EndpointMark) -> None:
        """Open an endpoint that was found; its watch looks at it, so that a silent one holds up no other."""
        try:
            station = await self._add(placed)
        except Exception as error:  # noqa: BLE001 - what one found endpoint needs and lacks must not stop the others
            words = f"{type(error).__name__}: {error}"
            _LOG.error("a found endpoint cannot be opened", endpoint=placed.connector.endpoint, error=words)
            return
        _LOG.info("endpoint joined", endpoint=station.id, source=placed.source.value)
        station.mark = mark
        self._begin(station.key, station)

    async def _leave(self, station: Station) -> bool:
        """Offer an endpoint no more; close it once nothing runs there. Tells whether an offer changed."""
        changed = not station.leaving
        if changed:
            station.leaving = True
            _LOG.info("endpoint left", endpoint=station.id, in_flight=station.gauge.outstanding)
        station.renew()
        if station.gauge.outstanding == 0:
            changed = True
            try:
                await self._close(station.key)
            except Exception:  # noqa: BLE001 - a connector's defect must not stop the worker's other endpoints
                _LOG.exception("a connector did not close", endpoint=station.id)
        return changed

    async def _close(self, key: str) -> None:
        station = self._stations.pop(key)  # before anything is waited for: no job finds it from here on
        self.changes += 1
        if (watch := self._watches.pop(key, None)) is not None:
            watch.cancel()
            await asyncio.wait({watch})
        await station.driven.__aexit__(None, None, None)

    async def _close_all(self) -> None:
        """Close every connector, the others too when one fails; the first failure is raised afterwards."""
        failures: list[BaseException] = []
        self._witness.close()
        for key in reversed(tuple(self._stations)):
            try:
                await self._close(key)
            except Exception as error:  # noqa: BLE001 - raised below, when all are closed
                failures.append(error)
        if failures:
            raise failures[0]


def held_elsewhere(stations: Iterable[Station], here: Station) -> dict[str, int]:
    """Return how many other endpoints of the same service that may get jobs hold each model."""
    held: dict[str, int] = {}
    for other in stations:
        same = other is not here and other.connector.service == here.connector.service
        if same and other.offer.healthy and not other.gauge.out:
            for model in other.holds:
                held[model] = held.get(model, 0) + 1
    return held


def _nobody() -> None:
    """Nobody watches yet."""
