"""The cache of results: how it is used, and cleared."""

from typing import Any

from hostler.contracts.result import CacheClear, CacheCleared, CacheView
from hostler.gateway.operation import Answer, Call, Nothing, Operation, Reply
from hostler.gateway.rooms import Rooms


class CacheRoutes:
    """The handlers of `/v1/cache`."""

    def __init__(self, rooms: Rooms) -> None:
        self._results = rooms.results

    async def get_cache(self, _call: Call, _query: Nothing, _body: None) -> Answer:
        """Say how much is kept, and how often each kind was answered from there."""
        return Answer(body=await self._results.view())

    async def clear_cache(self, _call: Call, _query: Nothing, body: CacheClear) -> Answer:
        """Drop results by what their keys begin with; work that runs goes on."""
        return Answer(body=CacheCleared(dropped=await self._results.clear(body.prefix)))

    def operations(self) -> tuple[Operation[Any, Any], ...]:
        """Return the routes."""
        return (
            Operation(
                method="GET",
                path="/v1/cache",
                handler=self.get_cache,
                replies={200: Reply(about="The cache.", type=CacheView)},
                tag="cache",
            ),
            Operation(
                method="POST",
                path="/v1/cache/clear",
                handler=self.clear_cache,
                body=CacheClear,
                replies={200: Reply(about="It is done.", type=CacheCleared)},
                tag="cache",
            ),
        )
