"""The limits that a fleet's processes share, as a program sees them."""

from hostler.client.many import pages
from hostler.client.wire import Wire
from hostler.contracts.api import Listing
from hostler.contracts.limit import Lift, Lifted, LimitView


class Limits:
    """What is used of each limit and what is held."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    async def list(self) -> tuple[LimitView, ...]:
        """Return the limits that are in use or held, by name."""
        return tuple([row async for row in pages(self._wire, "v1/limits", Listing[LimitView], {})])

    async def lift(self, name: str, *, reason: str = "") -> bool:
        """Let calls go again that a service's word holds; False when nothing held them."""
        return (await self._wire.change("v1/limits/lift", Lift(name=name, reason=reason), Lifted)).lifted
