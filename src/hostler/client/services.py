"""The services of a fleet, as a program sees them."""

from urllib.parse import quote

from hostler.client.many import pages
from hostler.client.wire import Wire
from hostler.contracts.api import (
    Announced,
    Announcement,
    Because,
    EndpointVerb,
    Left,
    Listing,
    Marked,
    ServiceReasons,
)
from hostler.contracts.service import Endpoint


class Services:
    """Endpoints of AI services: look, announce, pause, resume, reset."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    async def list(self, service: str | None = None) -> tuple[Endpoint, ...]:
        """Return every endpoint by id, or those of one service."""
        query = {} if service is None else {"service": service}
        return tuple([row async for row in pages(self._wire, "v1/services", Listing[Endpoint], query)])

    async def get(self, endpoint: str) -> Endpoint:
        """Return one endpoint; `NotFoundError`."""
        return await self._wire.read(_path(endpoint), Endpoint)

    async def explain(self, name: str) -> ServiceReasons:
        """Say why the endpoints of a name get jobs or do not; `NotFoundError`."""
        return await self._wire.read(f"{_path(name)}/explain", ServiceReasons)

    async def announce(self, endpoint: Announcement) -> Announced:
        """Announce an endpoint for `ttl` seconds, or renew it; `InvalidError`."""
        return await self._wire.change("v1/services", endpoint, Announced)

    async def leave(self, endpoint: str, *, reason: str = "") -> bool:
        """Take back an announcement; False when there was none."""
        return (await self._wire.change(f"{_path(endpoint)}/leave", Because(reason=reason), Left)).left

    async def pause(self, endpoint: str, *, reason: str = "") -> None:
        """Give it nothing more; what runs there goes on."""
        await self._mark(endpoint, EndpointVerb.PAUSE, reason)

    async def resume(self, endpoint: str, *, reason: str = "") -> None:
        """Let it get jobs again."""
        await self._mark(endpoint, EndpointVerb.RESUME, reason)

    async def reset(self, endpoint: str, *, reason: str = "") -> None:
        """Close its breakers."""
        await self._mark(endpoint, EndpointVerb.RESET, reason)

    async def _mark(self, endpoint: str, verb: EndpointVerb, reason: str) -> None:
        await self._wire.change(f"{_path(endpoint)}/{verb}", Because(reason=reason), Marked)


def _path(name: str) -> str:
    return f"v1/services/{quote(name, safe='')}"
