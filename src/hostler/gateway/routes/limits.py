"""Limits that all processes share: what is used and held, and an operator's word to go on."""

from typing import Any

from hostler.contracts.api import Listing
from hostler.contracts.limit import Lift, Lifted, LimitView
from hostler.gateway.operation import Answer, Call, Nothing, Operation, Reply
from hostler.gateway.pages import page_of
from hostler.gateway.rooms import Rooms
from hostler.gateway.shapes import PageQuery


class LimitRoutes:
    """The handlers of `/v1/limits`."""

    def __init__(self, rooms: Rooms) -> None:
        self._limiter = rooms.limiter

    async def list_limits(self, _call: Call, query: PageQuery, _body: None) -> Answer:
        """List the limits that are in use or held, by name; one that nobody used lately is as if there were none."""
        page, following = page_of(await self._limiter.list(), query, key=lambda limit: limit.name)
        return Answer(body=Listing(items=tuple(page), next=following))

    async def lift_limit(self, _call: Call, _query: Nothing, body: Lift) -> Answer:
        """Let calls go again that a service's word holds; what was used stays used."""
        return Answer(body=Lifted(lifted=await self._limiter.lift(body.name, reason=body.reason)))

    def operations(self) -> tuple[Operation[Any, Any], ...]:
        """Return the routes."""
        return (
            Operation(
                method="GET",
                path="/v1/limits",
                handler=self.list_limits,
                query=PageQuery,
                replies={200: Reply(about="The limits.", type=Listing[LimitView])},
                tag="limits",
            ),
            Operation(
                method="POST",
                path="/v1/limits/lift",
                handler=self.lift_limit,
                body=Lift,
                replies={200: Reply(about="It is done.", type=Lifted)},
                tag="limits",
            ),
        )
