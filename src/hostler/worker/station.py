"""One endpoint of a worker: probed, asked for what it has, measured by the calls that go there."""

import asyncio
from collections.abc import Callable, Collection, Mapping
from collections.abc import Set as AbstractSet

import msgspec
import structlog

from hostler.contracts.offer import Offer, Pool, Standing
from hostler.contracts.service import Endpoint, EndpointMark, EndpointState, Probe, ServiceCapabilities
from hostler.dispatch.gauge import Gauge
from hostler.dispatch.limited import Limited
from hostler.dispatch.places import SharedPlaces
from hostler.dispatch.repeats import Repeats
from hostler.kernel.errors import ServiceUnavailableError
from hostler.kernel.units import Seconds
from hostler.policy.concurrency import MOST
from hostler.ports.clock import Clock
from hostler.ports.discovery import Discovery, Placed
from hostler.ports.limiter import Limiter

_LOG = structlog.stdlib.get_logger("hostler.worker.endpoints")

PROBE_LIMIT: Seconds = 5.0
"""Longest probe; a slower endpoint counts as unhealthy."""
REFRESH: Seconds = 30.0
"""How often a healthy endpoint is asked for its capabilities again."""
_WELL = frozenset({EndpointState.READY, EndpointState.DEGRADED})


class Station:
    """One connector with what is known of its endpoint; `told` hears of each change: was, is, and why.

    With a `limiter`, calls of an endpoint that several queues share keep to its slots together with other workers.
    """

    def __init__(
        self,
        placed: Placed,
        labels: Mapping[str, str],
        clock: Clock,
        gauge: Gauge,
        repeats: Repeats,
        *,
        told: Callable[["Station", str, str, str], None] | None = None,
        limiter: Limiter | None = None,
    ) -> None:
        self.placed = placed
        self.connector = placed.connector
        self.places = SharedPlaces()
        self.driven = self.connector if limiter is None else Limited(self.connector, limiter, self.places)
        """What runs jobs: the connector, kept to the places that are shared with other queues' workers."""
        self.specs = {spec.name: spec for spec in placed.connector.kinds()}
        self.probe = Probe(state=EndpointState.UNKNOWN)
        self.gauge = gauge
        self.repeats = repeats
        """The retry budget that it shares with the other endpoints of its service."""
        self.mark = EndpointMark()
        self.key = placed.connector.endpoint
        """Its name among the worker's stations."""
        self.leaving = False
        """Whether discovery no longer knows it: it gets nothing more, and is closed once it is idle."""
        self._labels = dict(labels)
        self._clock = clock
        self._told = told
        gauge.told = self._turned
        self._found: ServiceCapabilities | None = None
        self._asked_at: float | None = None
        self._seen_at = clock.now()
        self.offer = self._make_offer()

    @property
    def id(self) -> str:
        """Return the endpoint's id; opaque."""
        return self.connector.endpoint

    @property
    def state(self) -> EndpointState:
        """Return how the endpoint is."""
        return EndpointState.DRAINING if self.leaving else self.probe.state

    @property
    def _loaded(self) -> tuple[str, ...] | None:
        """Return the models in its memory: what the last probe says, else what was asked for with the rest."""
        if self.probe.loaded is not None or self._found is None:
            return self.probe.loaded
        return self._found.loaded

    async def look(self) -> bool:
        """Probe the endpoint, ask for its capabilities when they are due, and tell whether the offer changed."""
        before = self.probe
        self.probe = await self._probe()
        now = self._clock.monotonic()
        changed = before.version != self.probe.version or before.state not in _WELL
        if self.probe.state in _WELL and (changed or self._asked_at is None or now - self._asked_at >= REFRESH):
            await self._ask(now)
        self._seen_at = self._clock.now()
        self.gauge.memory.saw(self._loaded, single=self.probe.single)
        self._notice(before)
        return self.renew()

    def renew(self) -> bool:
        """Make the offer anew from what is known, and tell whether it changed."""
        before, self.offer = self.offer, self._make_offer()
        return before != self.offer

    def roomy(self, models: AbstractSet[str]) -> bool:
        """Tell whether one more call may go there now, besides what is claimed, without a load of these models.

        Where it has slots, some of them must be idle: by our own calls, and by its last probe if that tells, since
        other workers may have taken them.
        """
        busy, slots = max(self.probe.busy or 0, self.gauge.outstanding), self.gauge.slots
        idle = slots is None or busy < slots
        cold = self._loaded is not None and not models <= set(self._loaded)
        return self.offer.healthy and self.gauge.spare() > 0 and idle and not cold

    def spared(self) -> Offer:
        """Return the offer with what the endpoint may get now."""
        slots = self.offer.pools.get("slots")
        if slots is None:  # it was never asked yet, so it is not healthy either
            return self.offer
        drains = self.gauge.memory.next is not None and self.gauge.outstanding > 0
        spare = 0.0 if drains else float(self.gauge.spare())
        pools = {**self.offer.pools, "slots": msgspec.structs.replace(slots, free=spare)}
        return msgspec.structs.replace(self.offer, pools=pools)

    @property
    def holds(self) -> Collection[str]:
        """Return the models in its memory, as far as it or its calls tell."""
        memory = self.gauge.memory
        return memory.models if memory.single else self._loaded or ()

    def standing(self, usual: Mapping[str, Seconds], taken: Collection[str] = ()) -> Standing:
        """Return how it stands beside the others, whose calls take as long as `usual` says.

        `taken` are the models that others hold.
        """
        weight, memory = round(self.gauge.weight(usual), 3), self.gauge.memory
        if not memory.single:
            return Standing(weight=weight, loaded=self._loaded)
        return memory.standing(weight, self.offer.models, busy=self.gauge.outstanding > 0, taken=taken)

    def endpoint(self, usual: Mapping[str, Seconds], standing: Standing) -> Endpoint:
        """Return what is shown of it, which stands like this."""
        connector = self.connector
        slots = self.offer.pools.get("slots")
        traffic = msgspec.structs.replace(self.gauge.traffic(), weight=round(self.gauge.weight(usual), 3))
        return Endpoint(
            id=self.id,
            service=connector.service,
            connector=connector.name,
            url=self.placed.url,
            protocol=connector.name.rpartition("-")[2],
            state=self.state,
            message=self.probe.message,
            seen_at=self._seen_at,
            version=self.probe.version,
            source=self.placed.source,
            health_check=f"{connector.name}.probe",
            paused=self.mark.paused,
            expires_at=self.placed.expires_at,
            slots=None if slots is None or self.gauge.slots is None else slots.total,
            loaded=tuple(self.holds) if self.gauge.memory.single else self._loaded,
            may_load=standing.swaps,
            traffic=traffic,
        )

    def marked(self, mark: EndpointMark) -> bool:
        """Take in what an operator said; tell whether the offer changed."""
        if mark.resets > self.mark.resets:
            self.gauge.reset()
        self.mark = mark
        return self.renew()

    def _notice(self, before: Probe) -> None:
        well, was = self.probe.state in _WELL, before.state in _WELL
        if well and not was:
            self.gauge.came()
        if before.state is not self.probe.state:
            words = {"endpoint": self.id, "state": self.probe.state.value}
            _LOG.info("endpoint", healthy=well, message=self.probe.message, **words)
            if self._told is not None:
                self._told(self, before.state, self.state, self.probe.message)

    def _turned(self, was: str, now: str, why: str) -> None:
        """Take in what the calls that went there brought about."""
        _LOG.info("endpoint", endpoint=self.id, state=now, was=was, message=why)
        if self._told is not None:
            self._told(self, was, now, why)

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
        if "slots" not in pools:
            pools["slots"] = Pool(id=f"{connector.endpoint}/slots", total=float(self.probe.slots or MOST))
        known = self.probe.slots is not None or "slots" in found.pools
        self.gauge.declare(pools["slots"].total if known else None)
        self.places.pool = pools["slots"] if known else None
        return Offer(
            kinds=tuple(kind for kind in found.kinds if kind in self.specs),
            service=connector.service,
            endpoint=connector.endpoint,
            healthy=self.probe.state in _WELL and self.mark.paused is None and not self.leaving,
            models=found.models,
            models_known=found.models_known,
            labels={**self._labels, **found.labels},
            versions=found.versions,
            pools=pools,
        )


class Witness:
    """Has changes of endpoints recorded as events: states, breakers, pauses; nothing waits for that."""

    def __init__(self, worker: str, discovery: Discovery | None) -> None:
        self._worker = worker
        self._discovery = discovery
        self._telling: set[asyncio.Task[None]] = set()

    def tell(self, station: Station, was: str, now: str, reason: str) -> None:
        """Record that a station's endpoint is no longer as it was."""
        if self._discovery is None:
            return
        said = self._discovery.observed(self._worker, station.id, was=was, state=now, reason=reason)
        task = asyncio.create_task(said, name=f"tell of {station.id}")
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    def close(self) -> None:
        """Drop what is not recorded yet."""
        for task in tuple(self._telling):
            task.cancel()
