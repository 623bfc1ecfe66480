"""Which models wait, asked of the engine now and then, so that endpoints that hold one at a time change in time."""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

import structlog

from hostler.contracts.queue import Demand
from hostler.contracts.service import Waiting
from hostler.kernel.errors import HostlerError
from hostler.kernel.units import Seconds
from hostler.policy.matching import fits
from hostler.policy.pressure import Line
from hostler.ports.broker import Broker
from hostler.ports.clock import Dice
from hostler.ports.discovery import Discovery
from hostler.worker.endpoints import Stations, held_elsewhere
from hostler.worker.patience import passing
from hostler.worker.station import Station

_LOG = structlog.stdlib.get_logger("hostler.worker.swaps")

LOOK: Final[Seconds] = 0.25
"""How often the engine is asked, by workers that have an endpoint that holds one model at a time."""
AT_A_TIME: Final = 10
"""Queues that are asked in that time at most; with more of them it is done so much less often."""


class Swaps:
    """Decides, endpoint by endpoint, which model comes next; each sees what the ones before it decided."""

    def __init__(
        self, broker: Broker, stations: Stations, worker: str, dice: Dice, *, discovery: Discovery | None = None
    ) -> None:
        self._broker = broker
        self._discovery = discovery
        self._stations = stations
        self._worker = worker
        self._dice = dice
        self._others: dict[str, tuple[Mapping[str, Waiting], ...]] = {}
        """What other workers in front of an endpoint told of jobs that wait."""

    async def run(self, queues: Callable[[], Sequence[str]], changed: Callable[[], None]) -> None:
        """Ask and decide, until cancelled; `changed` hears when an endpoint takes other jobs than before."""
        asked: Sequence[str] = ()
        while True:
            await asyncio.sleep(LOOK * max(1.0, len(asked) / AT_A_TIME) * (0.8 + 0.4 * self._dice.roll()))
            if not any(station.gauge.memory.single for station in self._stations):
                asked = ()
                continue
            asked = queues()
            try:
                found = [await self._broker.demand(queue) for queue in asked]
            except HostlerError as error:
                if not passing(error):
                    _LOG.warning("what waits for models was refused", code=error.code, error=error.message)
                continue
            if await self.decide([one for part in found for one in part]):
                changed()

    async def decide(self, demands: Sequence[Demand]) -> bool:
        """Decide from what waits and from what other workers do; tell whether an endpoint takes other jobs now."""
        moved = False
        for station in self._stations:
            memory = station.gauge.memory
            if not memory.single:
                continue
            before = self._stations.standing(station)
            own = self._lines(station, demands)
            memory.decide(_together(own, self._others.get(station.key, ())), station.offer.models)
            if self._discovery is not None and station.offer.healthy:
                await self._share(self._discovery, station, own)
            after = self._stations.standing(station)
            moved = moved or (before.loaded, before.swaps) != (after.loaded, after.swaps)
        return moved

    async def _share(self, discovery: Discovery, station: Station, own: Mapping[str, Line]) -> None:
        """Tell the other workers in front of an endpoint what this one does and sees, and take in what they do."""
        memory, told = station.gauge.memory, station.gauge.memory.begun
        shared = await discovery.share(
            station.id,
            self._worker,
            coming=memory.next,
            loads=told,
            busy=station.gauge.outstanding > 0,
            waiting={model: Waiting(jobs=line.waiting, oldest=line.oldest) for model, line in own.items()},
        )
        if shared is not None:
            memory.heed(shared, worker=self._worker, told=told)
            self._others[station.key] = shared.waiting

    def _lines(self, station: Station, demands: Iterable[Demand]) -> dict[str, Line]:
        """Return what waits for each model and could run here."""
        held, lines = held_elsewhere(self._stations, station), dict[str, Line]()
        for demand in demands:
            if fits(demand.lane, (station.offer,), worker=self._worker) is None:
                continue
            for model in demand.lane.needs.models:
                known = lines.get(model, Line(elsewhere=held.get(model, 0)))
                lines[model] = Line(
                    waiting=known.waiting + demand.waiting,
                    oldest=max(known.oldest, demand.oldest),
                    elsewhere=known.elsewhere,
                )
        return lines


def _together(own: Mapping[str, Line], others: Iterable[Mapping[str, Waiting]]) -> dict[str, Line]:
    """Return what waits for each model: mostly the same jobs, of which each worker sees those that it could run."""
    lines = dict(own)
    for seen in others:
        for model, more in seen.items():
            known = lines.get(model, Line())
            lines[model] = Line(
                waiting=max(known.waiting, more.jobs),
                oldest=max(known.oldest, more.oldest),
                elsewhere=known.elsewhere,
            )
    return lines
