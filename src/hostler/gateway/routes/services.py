"""Services: their endpoints as workers see them, announcements, operators' marks, and why one gets nothing."""

import difflib
from typing import Any

from hostler.contracts.api import (
    Announced,
    Announcement,
    Because,
    EndpointReasons,
    EndpointVerb,
    Left,
    Listing,
    Marked,
    ServiceReasons,
)
from hostler.contracts.service import BreakerMode, Endpoint, EndpointState
from hostler.gateway.operation import Answer, Call, Nothing, Operation, Reply
from hostler.gateway.pages import page_of
from hostler.gateway.rooms import Rooms
from hostler.gateway.shapes import ServicesQuery
from hostler.kernel.errors import InvalidError, NotFoundError
from hostler.policy.sightings import endpoints_of, found_by, named, why_not

ONE = "/v1/services/{endpoint:str}"
_WELL = frozenset({EndpointState.READY, EndpointState.DEGRADED})


class ServiceRoutes:
    """The handlers of `/v1/services`."""

    def __init__(self, rooms: Rooms) -> None:
        self._registry = rooms.registry
        self._endpoints = rooms.endpoints

    async def list_services(self, _call: Call, query: ServicesQuery, _body: None) -> Answer:
        """List the endpoints of every service, by id: those that workers serve, and those that were announced."""
        found = await self._all()
        if query.service is not None:
            found = tuple(one for one in found if one.service == query.service)
        page, following = page_of(found, query, key=lambda endpoint: endpoint.id)
        return Answer(body=Listing(items=tuple(page), next=following))

    async def get_service(self, call: Call, _query: Nothing, _body: None) -> Answer:
        """Look at one endpoint, by its id: where it is, what it has, how every worker sees it."""
        for endpoint in await self._all():
            if endpoint.id == call.path["endpoint"]:
                return Answer(body=endpoint)
        raise _unknown(call.path["endpoint"], await self._all())

    async def explain_service(self, call: Call, _query: Nothing, _body: None) -> Answer:
        """Say why endpoints get jobs or do not; the name is an endpoint's id, a service's or a connector's."""
        name, everything = call.path["endpoint"], await self._all()
        found = named(everything, name)
        if not found:
            raise _unknown(name, everything)
        return Answer(body=ServiceReasons(name=name, endpoints=tuple(_reasons(one) for one in found)))

    async def announce_service(self, _call: Call, _query: Nothing, body: Announcement) -> Answer:
        """Announce an endpoint, or renew its lease; it is forgotten when the lease runs out."""
        news = await self._endpoints.enroll(body.enrolment(), ttl=body.ttl)
        return Answer(body=Announced(endpoint=body.id, news=news), status=201 if news else 200)

    async def leave_service(self, call: Call, _query: Nothing, body: Because) -> Answer:
        """Forget an announced endpoint at once; what runs there is not touched."""
        name = call.path["endpoint"]
        return Answer(body=Left(endpoint=name, left=await self._endpoints.leave(name, reason=body.reason)))

    async def pause_service(self, call: Call, _query: Nothing, body: Because) -> Answer:
        """Give an endpoint nothing more; what runs there goes on."""
        return await self._mark(call, body, EndpointVerb.PAUSE)

    async def resume_service(self, call: Call, _query: Nothing, body: Because) -> Answer:
        """Let a paused endpoint get jobs again."""
        return await self._mark(call, body, EndpointVerb.RESUME)

    async def reset_service(self, call: Call, _query: Nothing, body: Because) -> Answer:
        """Close the breaker that every worker has of an endpoint, and forget the pauses that it asked for."""
        return await self._mark(call, body, EndpointVerb.RESET)

    async def _mark(self, call: Call, body: Because, verb: EndpointVerb) -> Answer:
        name, everything = call.path["endpoint"], await self._all()
        if verb is not EndpointVerb.RESUME and all(one.id != name for one in everything):
            raise _unknown(name, everything)
        changed = await self._endpoints.mark(name, verb.value, reason=body.reason)
        return Answer(body=Marked(endpoint=name, verb=verb, changed=changed), status=202)

    async def _all(self) -> tuple[Endpoint, ...]:
        return endpoints_of(await self._registry.workers(), await self._endpoints.census())

    def operations(self) -> tuple[Operation[Any, Any], ...]:
        """Return the routes."""
        return (*self._looks(), *self._changes())

    def _looks(self) -> tuple[Operation[Any, Any], ...]:
        return (
            Operation(
                method="GET",
                path="/v1/services",
                handler=self.list_services,
                query=ServicesQuery,
                replies={200: Reply(about="The endpoints.", type=Listing[Endpoint])},
                tag="services",
            ),
            Operation(
                method="GET",
                path=ONE,
                handler=self.get_service,
                replies={200: Reply(about="The endpoint.", type=Endpoint)},
                errors=(NotFoundError,),
                tag="services",
            ),
            Operation(
                method="GET",
                path=f"{ONE}/explain",
                handler=self.explain_service,
                replies={200: Reply(about="The reasons.", type=ServiceReasons)},
                errors=(NotFoundError,),
                tag="services",
            ),
        )

    def _changes(self) -> tuple[Operation[Any, Any], ...]:
        verbs = {"pause": self.pause_service, "resume": self.resume_service, "reset": self.reset_service}
        return (
            Operation(
                method="POST",
                path="/v1/services",
                handler=self.announce_service,
                body=Announcement,
                replies={
                    201: Reply(about="It is known now, or otherwise than before.", type=Announced),
                    200: Reply(about="Its lease was renewed.", type=Announced),
                },
                errors=(InvalidError,),
                tag="services",
            ),
            Operation(
                method="POST",
                path=f"{ONE}/leave",
                handler=self.leave_service,
                body=Because,
                body_optional=True,
                replies={200: Reply(about="It is not announced any more.", type=Left)},
                tag="services",
            ),
            *(
                Operation(
                    method="POST",
                    path=f"{ONE}/{verb}",
                    handler=handler,
                    body=Because,
                    body_optional=True,
                    replies={202: Reply(about="Workers will take it up.", type=Marked)},
                    errors=(NotFoundError,),
                    tag="services",
                )
                for verb, handler in verbs.items()
            ),
        )


def _reasons(endpoint: Endpoint) -> EndpointReasons:
    shut = endpoint.paused is not None or not any(
        sight.state in _WELL
        and (sight.traffic.breaker is not BreakerMode.OPEN or sight.traffic.forced)
        and not sight.traffic.cooled_s
        for sight in endpoint.workers
    )
    return EndpointReasons(
        endpoint=endpoint.id,
        service=endpoint.service,
        state=endpoint.state,
        source=endpoint.source,
        found=found_by(endpoint),
        open=not shut,
        reasons=why_not(endpoint),
    )


def _unknown(name: str, everything: tuple[Endpoint, ...]) -> NotFoundError:
    known = sorted({word for one in everything for word in (one.id, one.service)})
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else "GET /v1/services lists all that are known."
    return NotFoundError(f"There is no endpoint {name}; {hint}", endpoint=name, near=tuple(near))
