"""`hostler services`: where AI services are, how they are, why they get jobs or do not."""

from typing import Annotated

from cyclopts import App, Parameter

from hostler.cli.flags import ToGateway
from hostler.cli.output import FAILED, OK, Out
from hostler.cli.talk import facts_table, pairs, talking
from hostler.contracts.api import EndpointReasons, EndpointVerb
from hostler.contracts.service import BreakerMode, Endpoint, Source
from hostler.kernel.units import Seconds

services = App(name="services", help="List, show, explain, register, pause and resume endpoints of AI services.")

Reason = Annotated[str, Parameter(help="Why; it is kept with the event.")]


@services.command(name="list")
async def list_(
    *,
    service: Annotated[str | None, Parameter(help="Only the endpoints of this service.")] = None,
    common: ToGateway = ToGateway(),
) -> int:
    """List endpoints: those that workers serve, and those that were announced."""
    out = Out(json=common.json)
    async with talking(common) as fleet:
        found = await fleet.services.list(service)
    if out.json:
        out.document({"items": found})
        return OK
    rows = [
        (one.service, one.id, one.url, _state(one), _load(one), one.traffic.breaker, _source(one), len(one.workers))
        for one in found
    ]
    head = ("service", "endpoint", "url", "state", "load", "breaker", "source", "workers")
    out.table(head, rows, empty="no endpoints: no worker serves a service, and none was announced")
    return OK


@services.command
async def show(endpoint: str, /, *, common: ToGateway = ToGateway()) -> int:
    """Show one endpoint: what it has, what workers measured there, how each of them sees it."""
    out = Out(json=common.json)
    async with talking(common) as fleet:
        found = await fleet.services.get(endpoint)
    if out.json:
        out.document(found)
        return OK
    facts_table(out, _facts(found))
    for sight in found.workers:
        out.say(f"seen by       {sight.worker}: {sight.state}, {sight.traffic.in_flight} in flight, {sight.message}")
    return OK


@services.command
async def explain(name: str, /, *, common: ToGateway = ToGateway()) -> int:
    """Say why endpoints get jobs or do not; NAME is an endpoint's id, a service or a connector."""
    out = Out(json=common.json)
    async with talking(common) as fleet:
        found = await fleet.services.explain(name)
    if out.json:
        out.document(found)
        return OK
    for one in found.endpoints:
        out.say(_sentence(one))
        for reason in one.reasons:
            out.say(f"  - {reason}")
    return OK


@services.command
async def register(
    url: str,
    /,
    *,
    connector: Annotated[str, Parameter(help="Connector that drives it, as simulation-http.")],
    endpoint: Annotated[
        str | None, Parameter(name="--id", help="Its id; made from connector and URL unless given.")
    ] = None,
    ttl: Annotated[Seconds, Parameter(help="Seconds of its lease, which is renewed three times in that time.")] = 10.0,
    slots: Annotated[int | None, Parameter(help="Work that it takes at the same time.")] = None,
    label: Annotated[tuple[str, ...], Parameter(help="name=value, offered to jobs that need it.")] = (),
    once: Annotated[
        bool, Parameter(negative="", help="Announce it once and end; it is forgotten after --ttl.")
    ] = False,
    common: ToGateway = ToGateway(),
) -> int:
    """Announce a service that runs at URL, for as long as it answers and this command runs.

    It is probed as a worker would before each renewal: one that does not answer is not announced, so that it leaves
    routing within its lease. SIGTERM takes the announcement back.
    """
    from hostler.cli.register import Registrar

    out = Out(json=common.json)
    registrar = Registrar(
        out, url=url, connector=connector, endpoint=endpoint, ttl=ttl, slots=slots, labels=pairs(label, flag="--label")
    )
    async with talking(common) as fleet:
        if once:
            return OK if await registrar.announce(fleet) else FAILED
        await registrar.run(fleet)
    return OK


@services.command
async def leave(endpoint: str, /, *, reason: Reason = "", common: ToGateway = ToGateway()) -> int:
    """Take back the announcement of an endpoint; what runs there goes on."""
    async with talking(common) as fleet:
        left = await fleet.services.leave(endpoint, reason=reason)
    words = f"{endpoint} is not announced any more" if left else f"{endpoint} was not announced"
    Out(json=common.json).answer({"endpoint": endpoint, "left": left}, words)
    return OK


@services.command
async def pause(endpoint: str, /, *, reason: Reason = "", common: ToGateway = ToGateway()) -> int:
    """Give an endpoint nothing more; what runs there goes on."""
    return await _mark(endpoint, EndpointVerb.PAUSE, reason, common)


@services.command
async def resume(endpoint: str, /, *, reason: Reason = "", common: ToGateway = ToGateway()) -> int:
    """Let a paused endpoint get jobs again."""
    return await _mark(endpoint, EndpointVerb.RESUME, reason, common)


@services.command
async def reset(endpoint: str, /, *, reason: Reason = "", common: ToGateway = ToGateway()) -> int:
    """Close the breakers that workers have of an endpoint."""
    return await _mark(endpoint, EndpointVerb.RESET, reason, common)


async def _mark(endpoint: str, verb: EndpointVerb, reason: str, common: ToGateway) -> int:
    async with talking(common) as fleet:
        say = {
            EndpointVerb.PAUSE: fleet.services.pause,
            EndpointVerb.RESUME: fleet.services.resume,
            EndpointVerb.RESET: fleet.services.reset,
        }
        await say[verb](endpoint, reason=reason)
    words = f"workers take {verb} of {endpoint} up within three seconds"
    Out(json=common.json).answer({"endpoint": endpoint, "verb": verb}, words)
    return OK


def _facts(found: Endpoint) -> tuple[tuple[str, object], ...]:
    traffic, has = found.traffic, found.capabilities
    rate = (
        f"{traffic.failed} of {traffic.calls} calls in half a minute" if traffic.calls else "no calls in half a minute"
    )
    open_for = "" if traffic.breaker_s is None else f", for {traffic.breaker_s:.1f} s"
    return (
        ("endpoint", found.id),
        ("service", found.service),
        ("connector", found.connector),
        ("url", found.url),
        ("protocol", found.protocol),
        ("state", _state(found)),
        ("message", found.message),
        ("version", found.version),
        ("source", _source(found)),
        ("health check", found.health_check),
        ("seen", found.seen_at),
        ("lease ends", found.expires_at),
        ("load", _load(found)),
        ("failed", rate),
        ("p50, p95", None if traffic.p95_s is None else f"{traffic.p50_s:.3f} s, {traffic.p95_s:.3f} s"),
        ("breaker", f"{traffic.breaker}{open_for}" if traffic.breaker is not BreakerMode.CLOSED else traffic.breaker),
        ("left alone", None if traffic.cooled_s is None else f"for {traffic.cooled_s:.1f} s, as it asked"),
        ("last error", traffic.last_error),
        ("kinds", None if has is None else ", ".join(has.kinds)),
        ("models", None if has is None or not has.models else ", ".join(has.models)),
        ("in memory", None if found.loaded is None else ", ".join(found.loaded) or "nothing"),
    )


def _source(one: Endpoint) -> str:
    return "static (mapping)" if one.source is Source.MAPPING else str(one.source)


def _state(one: Endpoint) -> str:
    return f"{one.state}, paused" if one.paused is not None else str(one.state)


def _load(one: Endpoint) -> str:
    return f"{one.traffic.in_flight}/{'?' if one.slots is None else f'{one.slots:g}'}"


def _sentence(one: EndpointReasons) -> str:
    return f"{one.endpoint} {'gets jobs' if one.open else 'gets no jobs'}: {one.state}; {one.found}"
