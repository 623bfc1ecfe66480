"""Every source of endpoints that come and go in one place: announced ones, names, and operators' marks."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import structlog

from hostler.contracts.queue import KindSpec
from hostler.contracts.service import Census, Enrolment, Shared, Source, Waiting
from hostler.kernel.errors import EngineError, HostlerError
from hostler.kernel.units import Seconds
from hostler.ports.connector import Connector
from hostler.ports.discovery import Found, Placed
from hostler.ports.registry import EndpointRegistry
from hostler.registry.names import Names, Target

_LOG = structlog.stdlib.get_logger("hostler.registry.discovery")

MARKS_EVERY: Final[Seconds] = 1.5
"""How often a worker that follows no announcements asks for operators' marks."""


class Where(NamedTuple):
    """One endpoint as a source names it: what decides whether its connector has to be made anew."""

    connector: str
    url: str
    id: str | None = None
    labels: tuple[tuple[str, str], ...] = ()
    slots: int | None = None


Build = Callable[[Where], Connector]
"""Makes the connector of one endpoint, not opened; `InvalidError` when it cannot."""


@dataclass(frozen=True, kw_only=True)
class Followed:
    """One entry of the configuration that stands for endpoints which come and go."""

    name: str
    connector: str
    build: Build
    kinds: tuple[KindSpec, ...]
    announced: bool = False
    """Whether it takes in announced endpoints of its connector."""
    dns: str | None = None
    url_of: Callable[[Target], str] = field(default=lambda target: f"http://{target.host}:{target.port}")
    """How a place that a name leads to becomes a URL."""


class EngineDiscovery:
    """Implements `ports.discovery.Discovery` over the registry of endpoints and the names that entries follow.

    A source that does not answer keeps what it said last: endpoints then leave only by their own health.
    """

    def __init__(
        self,
        registry: EndpointRegistry,
        followed: Sequence[Followed] = (),
        *,
        names: Names | None = None,
        interval: Seconds = 5.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._registry = registry
        self._followed = tuple(followed)
        self._names = names or Names()
        self._interval = interval
        self._monotonic = monotonic
        self._census = Census(version="")
        self._asked_at: float | None = None
        self._targets: dict[str, tuple[Target, ...]] = {}
        self._resolved_at: dict[str, float] = {}
        self._built: dict[Where, Connector | None] = {}

    def kinds(self) -> tuple[KindSpec, ...]:
        """Return the kinds of every followed entry."""
        return tuple(kind for entry in self._followed for kind in entry.kinds)

    async def find(self) -> Found:
        """Return what is known now."""
        asked = await self._ask()
        placed: list[Placed] = []
        wanted: dict[Where, Connector | None] = {}
        for entry in self._followed:
            found = [(self._announced(one.enrolment), one.expires_at) for one in self._census.enrolled]
            for where, expires_at in found if entry.announced else ():
                if where.connector == entry.connector:
                    self._place(entry, where, wanted, placed, source=Source.ANNOUNCED, expires_at=expires_at)
            if entry.dns is not None:
                for target in await self._resolve(entry.dns):
                    where = Where(entry.connector, entry.url_of(target))
                    self._place(entry, where, wanted, placed, source=Source.DNS)
        self._built = wanted
        return Found(placed=tuple(placed), marks=dict(self._census.marks) if asked else None)

    async def observed(self, worker: str, endpoint: str, *, was: str, state: str, reason: str = "") -> None:
        """Record as an event that a worker saw the state of an endpoint change."""
        try:
            await self._registry.observed(worker, endpoint, was=was, state=state, reason=reason)
        except EngineError as error:
            _LOG.warning("a change of an endpoint was not recorded", endpoint=endpoint, state=state, code=error.code)

    async def share(
        self,
        endpoint: str,
        worker: str,
        *,
        coming: str | None,
        loads: tuple[str, ...],
        busy: bool,
        waiting: Mapping[str, Waiting],
    ) -> Shared | None:
        """Tell what a worker does at an endpoint that holds one model, and return what all told."""
        try:
            return await self._registry.share(endpoint, worker, coming=coming, loads=loads, busy=busy, waiting=waiting)
        except EngineError as error:
            _LOG.warning("what a worker does at an endpoint was not told", endpoint=endpoint, code=error.code)
            return None

    def _place(
        self,
        entry: Followed,
        where: Where,
        wanted: dict[Where, Connector | None],
        placed: list[Placed],
        **facts: Any,
    ) -> None:
        if where in wanted:
            return
        if where not in self._built:
            try:
                self._built[where] = entry.build(where)
            except Exception as error:  # noqa: BLE001 - what was announced is a stranger's word: it must not stop the others
                words = f"{type(error).__name__}: {error}"
                _LOG.error("a found endpoint cannot be served", url=where.url, error=words)
                self._built[where] = None
        wanted[where] = connector = self._built[where]
        if connector is not None:
            placed.append(Placed(connector=connector, url=where.url, **facts))

    def _announced(self, enrolment: Enrolment) -> Where:
        labels = tuple(sorted(enrolment.labels.items()))
        return Where(enrolment.connector, enrolment.url, enrolment.id, labels, enrolment.slots)

    async def _ask(self) -> bool:
        """Ask the registry, unless only marks are wanted and were asked for just now; False when it does not answer."""
        now = self._monotonic()
        follows = any(entry.announced for entry in self._followed)
        if not follows and self._asked_at is not None and now - self._asked_at < MARKS_EVERY:
            return True
        try:
            found = await self._registry.census(version=self._census.version)
        except EngineError as error:
            _LOG.warning("the registry of endpoints does not answer, what was known holds", code=error.code)
            return False
        self._asked_at = now
        if found.version != self._census.version:
            self._census = found
        return True

    async def _resolve(self, name: str) -> tuple[Target, ...]:
        now = self._monotonic()
        if name not in self._resolved_at or now - self._resolved_at[name] >= self._interval:
            self._resolved_at[name] = now
            try:
                self._targets[name] = await self._names.targets(name)
            except HostlerError as error:
                _LOG.warning("a name is not answered, what was known holds", name=name, error=error.message)
        return self._targets.get(name, ())


def labelled(own: Mapping[str, str], where: Where) -> dict[str, str]:
    """Return the labels of an entry with those that an endpoint announced."""
    return {**own, **dict(where.labels)}
