"""Queues: look at them, pause, resume, drain."""

from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar, cast

import msgspec

from hostler.contracts.api import Because, Listing, Reconfigured
from hostler.contracts.queue import KindSpec, QueueSpec, QueueView, RegistryRow
from hostler.gateway.operation import Answer, Call, Nothing, Operation, Reply
from hostler.gateway.pages import page_of
from hostler.gateway.rooms import Rooms
from hostler.gateway.shapes import PageQuery
from hostler.kernel.errors import (
    ConflictError,
    EngineTimeoutError,
    EngineUnavailableError,
    InvalidError,
    UnknownQueueError,
)
from hostler.kernel.fields import known_fields
from hostler.kernel.names import listed, nearest
from hostler.kernel.units import Json
from hostler.policy.sharding import home_of

S = TypeVar("S", bound=msgspec.Struct)

_OF_CODE: Final = ("name", "queue", "service", "payload", "result", "planned", "declared_by")
"""Parts of a kind that are its code's to say."""


class QueueRoutes:
    """The handlers of `/v1/queues`."""

    def __init__(self, rooms: Rooms) -> None:
        self._foreman = rooms.foreman

    async def list_queues(self, _call: Call, query: PageQuery, _body: None) -> Answer:
        """List all queues with their kinds and exact counters."""
        rows, following = page_of(await self._foreman.registry(), query, key=lambda row: row.queue.name)
        return Answer(body=Listing(items=tuple([await self._listed(row) for row in rows]), next=following))

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

    async def configure_queue(self, call: Call, _query: Nothing, body: Reconfigured) -> Answer:
        """Change a queue's row, or rows of its kinds, while everything runs; workers follow within seconds."""
        row = await self._row(call.path["name"])
        if call.path["name"] != row.queue.name:
            raise InvalidError(f"All shards of {row.queue.name} go by its row: configure that.", field="name")
        queue = changed(row.queue, body.queue, QueueSpec, keep=("name",), field="queue")
        known = {kind.name: kind for kind in row.kinds}
        kinds: list[KindSpec] = []
        for name, part in body.kinds.items():
            if name not in known:
                words = f"{row.queue.name} has no kind {name}; it has {listed(known)}{nearest(name, known)}"
                raise InvalidError(words, field=f"kinds.{name}")
            kind = changed(known[name], part, KindSpec, keep=_OF_CODE, field=f"kinds.{name}")
            kinds.append(msgspec.structs.replace(kind, declared_by="configuration"))
        if body.queue:
            await self._foreman.declare_queue(queue, reason=body.reason)
        for kind in kinds:
            await self._foreman.declare_kind(kind, reason=body.reason)
        return Answer(body=await self._named(row.queue.name))

    async def _change(self, verb: Callable[..., Awaitable[None]], call: Call, body: Because) -> Answer:
        await verb(call.path["name"], operation=call.operation, reason=body.reason)
        return Answer(body=await self._named(call.path["name"]))

    async def _named(self, name: str) -> QueueView:
        return await self._view(await self._row(name), name)

    async def _row(self, name: str) -> RegistryRow:
        rows = {row.queue.name: row for row in await self._foreman.registry()}
        if home_of(name) not in rows:
            hint = nearest(name, rows) or "; GET /v1/queues lists all."
            raise UnknownQueueError(f"There is no queue {name}{hint}", queue=name)
        return rows[home_of(name)]

    async def _listed(self, row: RegistryRow) -> QueueView:
        try:
            return await self._view(row, row.queue.name)
        except (EngineUnavailableError, EngineTimeoutError) as error:
            if "server" not in error.facts:
                raise
            raise type(error)(
                f"The queue {row.queue.name} cannot be measured now, so there is no list of all; the others are shown "
                f"by name ({error.message})",
                **error.facts,
            ) from error

    async def _view(self, row: RegistryRow, name: str) -> QueueView:
        """Return a queue, or a shard of it: the row is the queue's."""
        stats = await self._foreman.stats(name)
        return QueueView(name=name, spec=row.queue, kinds=row.kinds, stats=stats)

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
            Operation(
                method="POST",
                path="/v1/queues/{name:str}/configure",
                handler=self.configure_queue,
                body=Reconfigured,
                replies=one,
                errors=(UnknownQueueError, ConflictError),
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


def changed(row: S, part: dict[str, Json], shape: type[S], *, keep: tuple[str, ...], field: str) -> S:
    """Return a row with a part of it changed, deeply; `InvalidError` names what cannot be."""
    for name in keep:
        if name in part:
            raise InvalidError(f"{field}.{name} cannot be changed while it runs.", field=f"{field}.{name}")
    try:
        return msgspec.convert(_merged(msgspec.to_builtins(row), part), shape)
    except msgspec.ValidationError as error:
        raise InvalidError(f"{field}: {error}{known_fields(error, shape, besides=keep)}", field=field) from error


def _merged(row: dict[str, Json], part: dict[str, Json]) -> dict[str, Json]:
    found = dict(row)
    for name, value in part.items():
        before = found.get(name)
        inner = isinstance(value, dict) and isinstance(before, dict)
        found[name] = _merged(cast("dict[str, Json]", before), cast("dict[str, Json]", value)) if inner else value
    return found
