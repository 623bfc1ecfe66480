"""Where services are: the promises of discovery."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from hostler.contracts.queue import KindSpec
from hostler.contracts.service import EndpointMark, Shared, Source, Waiting
from hostler.kernel.units import Instant
from hostler.ports.connector import Connector


@dataclass(frozen=True, kw_only=True)
class Placed:
    """A connector with where it leads and how that was found."""

    connector: Connector
    url: str
    """Without a credential; shown to operators."""
    source: Source = Source.STATIC
    expires_at: Instant | None = None
    """End of the endpoint's lease, where it has one."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """All that discovery knows at one moment."""

    placed: tuple[Placed, ...] = ()
    """One for each endpoint; the same connector, not opened here, as long as nothing about its endpoint changed."""
    marks: Mapping[str, EndpointMark] | None = None
    """By endpoint id; None when nobody could be asked, so that what was known holds on."""


class Discovery(Protocol):
    """Follows the sources of endpoints that one worker serves beyond those it was given."""

    def kinds(self) -> tuple[KindSpec, ...]:
        """Return the kinds that found endpoints may serve, known before any is found."""
        ...

    async def find(self) -> Found:
        """Return what is known now.

        A source that cannot be asked keeps what it said last, never nothing; raises only for a defect.
        """
        ...

    async def observed(self, worker: str, endpoint: str, *, was: str, state: str, reason: str = "") -> None:
        """Have it recorded that a worker saw the state of an endpoint change; never raises: an event may be missed."""
        ...

    async def share(
        self,
        endpoint: str,
        worker: str,
        *,
        coming: str | None,
        loads: tuple[str, ...],
        busy: bool,
        waiting: Mapping[str, Waiting],
    ) -> Shared | None:
        """Tell what a worker does at an endpoint that holds one model, and return what all told; never raises.

        As `ports.registry.EndpointRegistry.share`; None when nobody could be asked: what was known holds on.
        """
        ...
