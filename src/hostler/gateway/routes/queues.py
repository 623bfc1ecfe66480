"""Queues: look at them, pause, resume, drain."""

from collections.abc import Awaitable, Callable
from typing import Any

from hostler.contracts.api import Because, Listing
from hostler.contracts.queue import QueueView, RegistryRow
from hostler.gateway.operation import Answer, Call, Nothing, Operation, Reply
from hostler.gateway.pages import page_of
from hostler.gateway.rooms import Rooms
from hostler.gateway.shapes import PageQuery
from hostler.kernel.errors import UnknownQueueError


class QueueRoutes:
    """The handlers of `/v1/queues`."""

    def __init__(self, rooms: Rooms) -> None:
        self._foreman = rooms.foreman

    async def list_queues(self, _call: Call, query: PageQuery, _body: None) -> Answer:
        """List all queues with their kinds and exact counters."""
        rows, following = page_of(await self._foreman.registry(), query, key=lambda row: row.queue.name)
        return Answer(body=Listing(items=tuple([await self._view(row) for row in rows]), next=following))

    async def get_queue(self, call: Call, _query: Nothing, _body: None) -> Answer:
        """Look at one queue."""
        return Answer(body=await self._named(call.path["name"]))

    async def pause_queue(self, call: Call, _query: Nothing, body: Because) -> Answer:
        """Stop claims; running work goes on."""
        return await self._change(self._foreman.pause, call, body)

    async def resume_queue(self, call: Call, _query: Nothing, body: Because) -> Answer:
        """Allow claims again; ends a drain too."""
        return await self._change(self._foreman.resume, call, body)

    async def drain_queue(self, call: Call, _query: Nothing, body: Because) -> Answer:
        """Refuse new jobs and let what is there run out."""
        return await self._change(self._foreman.drain, call, body)

    async def _change(self, verb: Callable[..., Awaitable[None]], call: Call, body: Because) -> Answer:
        await verb(call.path["name"], operation=call.operation, reason=body.reason)
        return Answer(body=await self._named(call.path["name"]))

    async def _named(self, name: str) -> QueueView:
        for row in await self._foreman.registry():
            if row.queue.name == name:
                return await self._view(row)
        raise UnknownQueueError(f"There is no queue {name}; GET /v1/queues lists all.", queue=name)

    async def _view(self, row: RegistryRow) -> QueueView:
        stats = await self._foreman.stats(row.queue.name)
        return QueueView(name=row.queue.name, spec=row.queue, kinds=row.kinds, stats=stats)

    def operations(self) -> tuple[Operation[Any, Any], ...]:
        """Return the routes."""
        one = {200: Reply(about="The queue as it is now.", type=QueueView)}
        verbs = {"pause": self.pause_queue, "resume": self.resume_queue, "drain": self.drain_queue}
        return (
            Operation(
                method="GET",
                path="/v1/queues",
                handler=self.list_queues,
                query=PageQuery,
                replies={200: Reply(about="The queues, by name.", type=Listing[QueueView])},
                tag="queues",
            ),
            Operation(
                method="GET",
                path="/v1/queues/{name:str}",
                handler=self.get_queue,
                replies=one,
                errors=(UnknownQueueError,),
                tag="queues",
            ),
            *(
                Operation(
                    method="POST",
                    path=f"/v1/queues/{{name:str}}/{verb}",
                    handler=handler,
                    body=Because,
                    body_optional=True,
                    replies=one,
                    errors=(UnknownQueueError,),
                    tag="queues",
                )
                for verb, handler in verbs.items()
            ),
        )
