"""What is known of every endpoint, put together from what workers see and what the registry keeps: pure."""

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from hostler.contracts.needs import Lane
from hostler.contracts.offer import Offer
from hostler.contracts.queue import KindSpec
from hostler.contracts.service import (
    BreakerMode,
    Census,
    Endpoint,
    EndpointMark,
    EndpointState,
    Enrolled,
    Enrolment,
    ServiceCapabilities,
    Sight,
    Source,
    Traffic,
)
from hostler.contracts.worker import Worker
from hostler.kernel.units import Seconds

_WELL: Final = frozenset({EndpointState.READY, EndpointState.DEGRADED})
_WORST: Final = (BreakerMode.OPEN, BreakerMode.HALF_OPEN, BreakerMode.CLOSED)
UNSERVED: Final = "announced, and no worker serves it"
_NAMED: Final = 5
"""Announced endpoints of one connector that a sentence names."""


def endpoints_of(workers: Sequence[Worker], census: Census) -> tuple[Endpoint, ...]:
    """Return every endpoint that a live worker serves or that was announced, by id.

    Each worker sees an endpoint for itself; the latest sight gives its state, all of them together its traffic.
    """
    seen: dict[str, list[tuple[Worker, Endpoint]]] = {}
    for worker in workers:
        for endpoint in worker.endpoints:
            seen.setdefault(endpoint.id, []).append((worker, endpoint))
    announced = {one.enrolment.id: one for one in census.enrolled}
    return tuple(
        _joined(name, seen.get(name, ()), announced.get(name), census.marks.get(name, EndpointMark()))
        for name in sorted(seen.keys() | announced.keys())
    )


def why_not(endpoint: Endpoint) -> tuple[str, ...]:
    """Return what keeps jobs away from an endpoint now, the most important first; empty when nothing does."""
    if not endpoint.workers:
        return (f"{UNSERVED}: {_start(endpoint.connector)}",)
    reasons: list[str] = []
    if endpoint.paused is not None:
        reasons.append(f"an operator paused it{f': {endpoint.paused}' if endpoint.paused else ''}")
    for sight in endpoint.workers:
        reasons += _of(sight)
    if endpoint.slots is not None and endpoint.traffic.in_flight >= endpoint.slots:
        reasons.append(f"all {endpoint.slots:g} slots are taken")
    return tuple(reasons)


def unserved(lane: Lane, kind: KindSpec, census: Census, workers: Iterable[Worker]) -> tuple[str, ...]:
    """Return what is announced and could run a job, for all that is said of it, while no worker serves it.

    What an endpoint has is known once a worker asked it: service and announced labels are all that is judged.
    """
    served = {endpoint.id for worker in workers for endpoint in worker.endpoints}
    idle: dict[str, list[str]] = {}
    for enrolled in census.enrolled:
        said = enrolled.enrolment
        if said.id not in served and _could(lane, kind, said):
            idle.setdefault(said.connector, []).append(said.id)
    return tuple(_idle(connector, names) for connector, names in sorted(idle.items()))


def _could(lane: Lane, kind: KindSpec, said: Enrolment) -> bool:
    service = service_of(said)
    wanted = lane.needs.service or service
    if (
        wanted != service
        or lane.avoid.service == service
        or not {service, said.connector} & {kind.service, kind.declared_by}
    ):
        return False
    return all(said.labels.get(name, value) == value for name, value in lane.needs.labels.items())


def _idle(connector: str, names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    who = f"{', '.join(names[:_NAMED])}{more} ({connector})"
    if len(names) == 1:
        return f"{who} is {UNSERVED}: {_start(connector)}"
    return f"{who} are announced, and no worker serves them: {_start(connector)}"


def _start(connector: str) -> str:
    return f"start one with `hostler worker --connectors {connector}:*`"


def service_of(said: Enrolment) -> str:
    """Return the service of an announced endpoint: the connector's own unless it says another."""
    return said.service or said.connector.rpartition("-")[0] or said.connector


def _of(sight: Sight) -> Iterable[str]:
    traffic = sight.traffic
    if sight.state not in _WELL:
        yield f"{sight.worker} finds it {sight.state}: {sight.message or 'it was not probed yet'}"
    if traffic.breaker is BreakerMode.OPEN and traffic.forced:
        yield f"{sight.worker} has its breaker open, and ignores that: most of its service is out"
    elif traffic.breaker is BreakerMode.OPEN:
        yield f"{sight.worker} has its breaker open for {_short(traffic.breaker_s)}, {_last(traffic)}"
    elif traffic.breaker is BreakerMode.HALF_OPEN:
        yield f"{sight.worker} tries it out after its breaker was open, {_last(traffic)}"
    if traffic.cooled_s:
        why = traffic.cooled_why or _last(traffic)
        yield f"{sight.worker} leaves it alone for {_short(traffic.cooled_s)}, {why}"
    elif traffic.limit is not None and traffic.in_flight >= traffic.limit:
        yield f"{sight.worker} has {traffic.in_flight} calls there, as many as it takes now"


def found_by(endpoint: Endpoint) -> str:
    """Return the sentence that says how an endpoint became known."""
    if endpoint.source is Source.CONVENTION and endpoint.protocol == "process":
        return "it is a command that its worker runs on its own machine"
    return {
        Source.ANNOUNCED: "it was announced, with a lease",
        Source.STATIC: "the configuration names its address",
        Source.CONVENTION: "no address is configured: it is where the ports of its service are by convention",
        Source.MAPPING: "the imported service mapping names it",
        Source.DNS: "a name that the configuration follows leads there",
    }[endpoint.source]


def _joined(
    name: str, seen: Sequence[tuple[Worker, Endpoint]], announced: Enrolled | None, mark: EndpointMark
) -> Endpoint:
    if not seen:
        if announced is None:
            raise AssertionError(f"{name} is neither seen nor announced")
        return _unserved(announced, mark)
    worker, latest = max(seen, key=lambda pair: pair[1].seen_at)
    return msgspec.structs.replace(
        latest,
        capabilities=_capabilities(offer for offer in worker.offers if offer.endpoint == name),
        source=latest.source if announced is None else Source.ANNOUNCED,
        expires_at=None if announced is None else announced.expires_at,
        paused=mark.paused,
        traffic=_together([endpoint.traffic for _, endpoint in seen]),
        workers=tuple(
            Sight(
                worker=one.id,
                state=endpoint.state,
                seen_at=endpoint.seen_at,
                message=endpoint.message,
                traffic=endpoint.traffic,
            )
            for one, endpoint in seen
        ),
    )


def _unserved(announced: Enrolled, mark: EndpointMark) -> Endpoint:
    said = announced.enrolment
    return Endpoint(
        id=said.id,
        service=service_of(said),
        connector=said.connector,
        url=said.url,
        protocol=said.connector.rpartition("-")[2],
        state=EndpointState.UNKNOWN,
        message=UNSERVED,
        seen_at=announced.seen_at,
        version=said.version,
        source=Source.ANNOUNCED,
        paused=mark.paused,
        expires_at=announced.expires_at,
        slots=said.slots,
    )


def _capabilities(offers: Iterable[Offer]) -> ServiceCapabilities | None:
    for offer in offers:
        return ServiceCapabilities(
            kinds=offer.kinds,
            models=offer.models,
            models_known=offer.models_known,
            labels=offer.labels,
            versions=offer.versions,
            pools=offer.pools,
        )
    return None


def _together(parts: Sequence[Traffic]) -> Traffic:
    """Return the traffic of all workers: counts added, times and breakers at their worst."""
    if len(parts) == 1:
        return parts[0]
    limits = [part.limit for part in parts if part.limit is not None]
    return Traffic(
        in_flight=sum(part.in_flight for part in parts),
        limit=sum(limits) if limits else None,
        calls=sum(part.calls for part in parts),
        failed=sum(part.failed for part in parts),
        p50_s=_most(part.p50_s for part in parts),
        p95_s=_most(part.p95_s for part in parts),
        breaker=min((part.breaker for part in parts), key=_WORST.index),
        breaker_s=_most(part.breaker_s for part in parts),
        cooled_s=_most(part.cooled_s for part in parts),
        cooled_by=next((part.cooled_by for part in parts if part.cooled_by), None),
        cooled_why=next((part.cooled_why for part in parts if part.cooled_why), None),
        forced=any(part.forced for part in parts),
        weight=max(part.weight for part in parts),
        last_error=next((part.last_error for part in parts if part.last_error), None),
    )


def _most(times: Iterable[Seconds | None]) -> Seconds | None:
    return max((time for time in times if time is not None), default=None)


def _last(traffic: Traffic) -> str:
    return f"last error: {traffic.last_error}" if traffic.last_error else "no error yet"


def _short(seconds: Seconds | None) -> str:
    return f"{seconds or 0.0:.1f} s"


def named(endpoints: Sequence[Endpoint], name: str) -> tuple[Endpoint, ...]:
    """Return the endpoint of that id, else all of the service or of the connector of that name."""
    exact = tuple(one for one in endpoints if one.id == name)
    return exact or tuple(one for one in endpoints if name in {one.service, one.connector})
