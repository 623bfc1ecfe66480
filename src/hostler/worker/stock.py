"""What a worker can do now: its endpoints and its handlers, as offers by queue."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import msgspec

from hostler.contracts.failure import FailureClass
from hostler.contracts.lease import Lease
from hostler.contracts.offer import Offer, Standing
from hostler.contracts.queue import KindSpec, RegistryRow
from hostler.contracts.service import Endpoint
from hostler.policy.matching import fits
from hostler.policy.sharding import shards_of
from hostler.worker.attempt import Route
from hostler.worker.endpoints import Stations
from hostler.worker.handlers import HandlerSet
from hostler.worker.hedges import Hedge, Second
from hostler.worker.station import Station

CONFIGURED = "configuration"
"""Who declared a kind that an operator configured."""


class _Names(NamedTuple):
    """Queues by name, as of so many changes of the stations."""

    changes: int
    own: frozenset[str]
    queues: tuple[str, ...]
    shards: tuple[str, ...]


class WorkerStock:
    """Endpoints first, then handlers; a kind that both have is run by what the broker matched."""

    def __init__(self, worker: str, stations: Stations, handlers: HandlerSet, labels: Mapping[str, str]) -> None:
        self._worker = worker
        self._stations = stations
        self._handlers = handlers
        self._of_handlers = handlers.offers(labels)
        self._configured: dict[str, KindSpec] = {}
        self._registered: tuple[str, ...] = ()
        self._shards: dict[str, tuple[str, ...]] = {}
        self._names: _Names | None = None

    def kinds(self) -> tuple[KindSpec, ...]:
        """Return the rows of all kinds that this worker has, the operator's where there is one."""
        return tuple(self._row(spec) for spec in (*self._stations.kinds(), *self._handlers.kinds()))

    def adopt(self, rows: Sequence[RegistryRow]) -> bool:
        """Take the registry of queues in; tell whether the queues to claim from are others now.

        What the operator configured for a kind (its queue, retries, timeouts) wins over what code says. A job
        may be put in any queue, so there is work for this worker in any of them.
        """
        before = self.shards()
        self._names = None
        self._configured = {kind.name: kind for row in rows for kind in row.kinds if kind.declared_by == CONFIGURED}
        self._registered = tuple(row.queue.name for row in rows)
        self._shards = {row.queue.name: shards_of(row.queue) for row in rows}
        return self.shards() != before

    def own(self) -> frozenset[str]:
        """Return the queues that its kinds go to unless a submit names another."""
        return self._named().own

    def queues(self) -> tuple[str, ...]:
        """Return the queues that may hold work for it, its own first, each part by name."""
        return self._named().queues

    def shards(self) -> tuple[str, ...]:
        """Return what work is claimed from: these queues, those of several shards shard by shard."""
        return self._named().shards

    def _named(self) -> "_Names":
        """Return the names that follow from kinds and registry, which the claim loop asks for with every look."""
        if self._names is None or self._names.changes != self._stations.changes:
            own = frozenset(spec.queue for spec in self.kinds())
            queues = (*sorted(own), *sorted(set(self._registered) - own))
            shards = tuple(shard for queue in queues for shard in self._shards.get(queue, (queue,)))
            self._names = _Names(self._stations.changes, own, queues, shards)
        return self._names

    def all_offers(self) -> tuple[Offer, ...]:
        """Return every offer, those of unhealthy endpoints too."""
        return (*(station.offer for station in self._stations), *self._of_handlers)

    def offered(self) -> tuple[tuple[Offer, ...], tuple[Standing, ...]]:
        """Return the healthy offers with what each endpoint may get now, and how they stand."""
        self._stations.steady()
        pairs = self._standing()
        return tuple(offer for offer, _ in pairs), tuple(standing for _, standing in pairs)

    def endpoints(self) -> tuple[Endpoint, ...]:
        """Return what is shown of the endpoints."""
        return self._stations.endpoints()

    def _standing(self) -> list[tuple[Offer, Standing]]:
        pairs = [(station.spared(), self._stations.standing(station)) for station in self._stations]
        pairs += [(offer, Standing()) for offer in self._of_handlers]
        return [(offer, standing) for offer, standing in pairs if offer.healthy and offer.kinds]

    def route(self, lease: Lease, offers: Sequence[Offer]) -> Route:
        """Return what runs this lease, which was claimed with these offers; `LookupError` when nothing does.

        An endpoint of ours that began the work in an earlier attempt goes first: only it can say how that is.
        """
        if (station := self._began(lease)) is not None:
            return self._by_station(station, station.offer, lease)
        index = lease.offer if lease.offer is not None else fits(lease.lane, offers, worker=self._worker)
        if index is None or not 0 <= index < len(offers):
            raise LookupError(f"no offer of this worker fits {lease.kind}")
        offer = offers[index]
        if offer.endpoint is None:
            handler = self._handlers.get(lease.kind)
            if handler is None:
                raise LookupError(f"no handler of this worker runs {lease.kind}")
            return Route(spec=self._row(handler.spec), by=handler, pools=offer.pools)
        for station in self._stations:
            same = (station.offer.service, station.offer.endpoint) == (offer.service, offer.endpoint)
            if same and lease.kind in station.specs:
                return self._by_station(station, offer, lease)
        raise LookupError(f"no endpoint of this worker runs {lease.kind}")

    def _began(self, lease: Lease) -> Station | None:
        """Return the station where work of this job may still go on, or wait to be fetched."""
        if lease.remote is None or lease.remote_endpoint is None or _over(lease):
            return None
        for station in self._stations:
            mine = station.connector.endpoint == lease.remote_endpoint and lease.kind in station.specs
            if mine and fits(lease.lane, (station.offer,), worker=self._worker) is not None:
                return station
        return None

    def _by_station(self, station: Station, offer: Offer, lease: Lease) -> Route:
        station.places.shared = station.places.shared or self._several(station, lease)
        lane, here = lease.lane, (*lease.lane.avoid.workers, *lease.lane.avoid.shunned, station.id)
        return Route(
            spec=self._row(station.specs[lease.kind]),
            by=station.driven if station.places.shared else station.connector,
            pools=offer.pools,
            gauge=station.gauge,
            repeats=station.repeats,
            hedge=self._hedge(station, lease),
            others=any(
                other.id not in here and fits(lane, (other.offer,), worker=self._worker) is not None
                for other in self._stations
            ),
        )

    def _hedge(self, station: Station, lease: Lease) -> Hedge | None:
        """Return how a call is asked of another endpoint of the service too; None without one, or for no short read."""
        if not self._row(station.specs[lease.kind]).read or not any(self._beside(station, lease)):
            return None
        return Hedge(gauge=station.gauge, repeats=station.repeats, find=lambda: self._second(station, lease))

    def _beside(self, first: Station, lease: Lease) -> Iterator[Station]:
        """Yield the other endpoints of a service that have a job's kind."""
        for station in self._stations:
            same = station is not first and station.connector.service == first.connector.service
            if same and lease.kind in station.specs:
                yield station

    def _second(self, first: Station, lease: Lease) -> Second | None:
        """Return the least busy of the other endpoints that fit, have room, and need load no model for it."""
        wanted = set(lease.lane.needs.models)
        fit = [
            station
            for station in self._beside(first, lease)
            if station.roomy(wanted) and fits(lease.lane, (station.offer,), worker=self._worker) is not None
        ]
        best = min(fit, key=lambda station: station.gauge.outstanding, default=None)
        if best is None:
            return None
        return Second(connector=best.driven if best.places.shared else best.connector, gauge=best.gauge)

    def _several(self, station: Station, lease: Lease) -> bool:
        """Tell whether jobs of several queues go to an endpoint, as far as this worker knows."""
        kinds = station.specs.values()
        return len({lease.queue, *(self._configured.get(spec.name, spec).queue for spec in kinds)}) > 1

    def _row(self, spec: KindSpec) -> KindSpec:
        row = self._configured.get(spec.name)
        if row is None:
            return spec
        return msgspec.structs.replace(  # types are the code's to say unless the operator did
            row,
            service=row.service or spec.service,
            payload=row.payload if row.payload is not None else spec.payload,
            result=row.result if row.result is not None else spec.result,
            read=row.read if row.read is not None else spec.read,
            affinity=row.affinity if row.affinity is not None else spec.affinity,
        )


def _over(lease: Lease) -> bool:
    """Tell whether the last attempt is known to have failed: then nothing goes on there, and another may be better."""
    last = lease.history[-1].error if lease.history else None
    return last is not None and not last.unsent and last.class_ is not FailureClass.LOST
