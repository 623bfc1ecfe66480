"""Breaks a stage, one way at a time, and mends it again."""

import asyncio
import signal
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

import aiohttp
from msgspec import Struct

from hostler.chaos import clock, disk, power
from hostler.chaos.kinds import KINDS, Kind, Part
from hostler.chaos.proxy import Weather
from hostler.chaos.schedule import Strike
from hostler.cli.children import kill_group, signal_group
from hostler.cli.rig.engines import Moments
from hostler.cli.rig.stage import Stage
from hostler.kernel.units import Seconds

KNOBS_WITHIN: Final[Seconds] = 10.0
JUMP: Final[Seconds] = 3600.0
LATENCY: Final[Seconds] = 1.0
NARROW: Final = 3_000
"""Bytes a second at the least; up to four times as many."""
CUT_AFTER: Final = 2_000
WELL: Final[Mapping[str, Any]] = MappingProxyType(
    {
        "duration": 0.5,
        "failures": {},
        "missed_rate": 0.0,
        "drop_rate": 0.0,
        "burst_rate": 0.0,
        "health_failure_rate": 0.0,
        "hang_rate": 0.0,
    }
)
"""Knobs of a simulated service that does what it should."""


def unable() -> dict[Kind, str]:
    """Return the kinds that this machine cannot show, each with the reason."""
    found: dict[Kind, str] = {}
    if power.compiler() is None:
        found[Kind.POWER_CUT] = f"there is no C compiler here ({', '.join(power.COMPILERS)})"
    if (why := disk.why_not()) is not None:
        found[Kind.DISK_FULL] = f"there can be no small disk here: {why}"
    if clock.library() is None:
        found[Kind.CLOCK_JUMP] = "libfaketime is not installed (Debian: libfaketime)"
    return found


class Struck(Struct, frozen=True, kw_only=True):
    """What a fault really hit."""

    workers: tuple[str, ...] = ()
    endpoints: tuple[str, ...] = ()


class Faults:
    """Every kind of fault on one stage: `begin` breaks, `end` mends; both are safe to repeat."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._notes: dict[Strike, str] = {}
        self._begins: dict[Part, Callable[[Strike], Awaitable[None]]] = {
            Part.WORKER: self._process,
            Part.GATEWAY: self._process,
            Part.ENGINE: self._engine,
            Part.PRIMARY: self._engine,
            Part.SENTINEL: self._engine,
            Part.CLOCK: self._clock,
            Part.MACHINE: self._machine,
            Part.LINK: self._link,
            Part.SERVICE_LINK: self._link,
            Part.SERVICE: self._service,
        }

    async def begin(self, strike: Strike) -> Struck:
        """Break it; return whose work that strikes."""
        struck = self._struck(strike)
        await self._begins[KINDS[strike.kind].part](strike)
        return struck

    async def end(self, strike: Strike) -> str:
        """Mend it; return what there is to say about it."""
        stage, part = self._stage, KINDS[strike.kind].part
        if part in (Part.WORKER, Part.GATEWAY):
            signal_group(stage.child(strike.target), signal.SIGCONT)
        elif part in (Part.ENGINE, Part.PRIMARY, Part.SENTINEL):
            self._notes[strike] = self._notes.get(strike, "") + await stage.engine.end(strike)
        elif part is Part.CLOCK and stage.clock is not None:
            await asyncio.to_thread(stage.clock.set, 0)
        elif part is Part.MACHINE:
            for name in stage.members(strike.target):
                self._fell(name)
        elif part is Part.LINK:
            stage.ways.engine[strike.target].heal()
        elif part is Part.SERVICE_LINK:
            stage.ways.services[strike.target].heal()
        elif part is Part.SERVICE:
            await self.well(strike.target)
        return self._notes.pop(strike, "")

    def loses(self, strike: Strike, moments: Moments) -> tuple[tuple[Seconds, Seconds], ...]:
        """Return from when to when that was acknowledged which it may lose."""
        part = KINDS[strike.kind].part
        of_engine = part in (Part.ENGINE, Part.PRIMARY, Part.SENTINEL)
        return self._stage.engine.loses(strike, moments) if of_engine else ()

    def _struck(self, strike: Strike) -> Struck:
        """Return whose work a strike hits: without workers that of all, of a service its own, which has no leases."""
        stage, part = self._stage, KINDS[strike.kind].part
        if part is Part.MACHINE:
            worker, _, service = stage.members(strike.target)
            return Struck(workers=stage.ids(worker)[-1:], endpoints=stage.ways.entries(service))
        if part is Part.SERVICE_LINK:
            return Struck(workers=(strike.target,), endpoints=(strike.target,))
        if part is Part.SERVICE:
            return Struck(workers=(strike.target,), endpoints=stage.ways.entries(strike.target))
        return Struck(workers=stage.ids(strike.target)[-1:])

    async def well(self, service: str) -> None:
        """Let a service be as the run wants it when nothing is broken."""
        await self._set(service, {**WELL, **self._stage.cast.knobs})

    def _fell(self, name: str) -> None:
        child = self._stage.child(name)
        if child.pid is not None:
            self._stage.felled.add(child.pid)
        kill_group(child)

    async def _process(self, strike: Strike) -> None:
        if strike.kind in (Kind.WORKER_KILL, Kind.GATEWAY_KILL):
            self._fell(strike.target)
        else:
            signal_group(self._stage.child(strike.target), signal.SIGSTOP)

    async def _machine(self, strike: Strike) -> None:
        for name in self._stage.members(strike.target):
            signal_group(self._stage.child(name), signal.SIGSTOP)

    async def _engine(self, strike: Strike) -> None:
        self._notes[strike] = await self._stage.engine.begin(strike)

    async def _clock(self, strike: Strike) -> None:
        if self._stage.clock is not None:
            await asyncio.to_thread(self._stage.clock.set, JUMP if strike.strength < 0.5 else -JUMP)  # noqa: PLR2004 - either way

    async def _link(self, strike: Strike) -> None:
        stage = self._stage
        link = KINDS[strike.kind].part is Part.LINK
        proxy = (stage.ways.engine if link else stage.ways.services)[strike.target]
        weather = _weather(strike)
        if weather is None:
            proxy.reset(refusing=strike.length > 0)
        elif strike.kind is Kind.LINK_ONE_WAY:
            up = strike.strength < 0.5  # noqa: PLR2004 - either way
            self._notes[strike] = "to the engine" if up else "from the engine"
            proxy.set(up=weather if up else None, down=None if up else weather)
        else:
            proxy.set(both=weather)

    async def _service(self, strike: Strike) -> None:
        bad = 0.3 + 0.7 * strike.strength
        knobs: dict[Kind, dict[str, Any]] = {
            Kind.SERVICE_SLOW: {"duration": 2.0 + 4.0 * strike.strength},
            Kind.SERVICE_LIES: {"missed_rate": 0.5 * bad, "drop_rate": 0.5 * bad, "health_failure_rate": bad},
            Kind.SERVICE_ERRORS: {
                "burst_rate": 0.3 * bad,
                "failures": {"internal_error": 0.3 * bad, "out_of_memory": 0.1 * bad},
            },
        }
        await self._set(strike.target, knobs[strike.kind])

    async def _set(self, service: str, knobs: Mapping[str, Any]) -> None:
        timeout = aiohttp.ClientTimeout(total=KNOBS_WITHIN)
        url = f"{self._stage.services[service]}/knobs"
        async with aiohttp.ClientSession(timeout=timeout) as http, http.put(url, json=dict(knobs)) as answer:
            answer.raise_for_status()


def _weather(strike: Strike) -> Weather | None:
    """Return what a link has to bear; None for a reset."""
    if strike.kind in (Kind.LINK_SLOW, Kind.SERVICE_LINK_SLOW):
        return Weather(latency=LATENCY * strike.strength / 2, jitter=LATENCY * strike.strength / 2)
    if strike.kind is Kind.LINK_NARROW:
        return Weather(rate=int(NARROW * (1 + 3 * strike.strength)))
    if strike.kind is Kind.LINK_CUT:
        return Weather(cut_after=int(CUT_AFTER * (1 + 10 * strike.strength)))
    if strike.kind in (Kind.LINK_LOST, Kind.LINK_ONE_WAY, Kind.SERVICE_LINK_LOST):
        return Weather(lost=True)
    return None
