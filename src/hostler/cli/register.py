"""Announces a service for as long as it answers: the sidecar behind `hostler services register`."""

import asyncio
from typing import Final

from hostler.cli.children import stop_requested
from hostler.cli.output import Out
from hostler.client import Fleet
from hostler.connectors.catalogue import build
from hostler.contracts.api import Announcement
from hostler.contracts.service import EndpointState
from hostler.kernel.errors import HostlerError
from hostler.kernel.units import Seconds

PROBE: Final[Seconds] = 5.0
"""Longest wait for the service's answer."""
TIMES: Final = 3
"""A lease is renewed so many times before it would run out."""
_ANSWERS = frozenset({EndpointState.READY, EndpointState.DEGRADED, EndpointState.LOADING})


class Registrar:
    """One endpoint that is probed and announced; `InvalidError` for a connector or a URL that cannot work."""

    def __init__(
        self,
        out: Out,
        *,
        url: str,
        connector: str,
        endpoint: str | None,
        ttl: Seconds,
        slots: int | None,
        labels: dict[str, str],
    ) -> None:
        self._out = out
        self._connector = build(connector, url=url, endpoint=endpoint, slots=slots, labels=labels)
        self._ttl = ttl
        self._said = Announcement(
            id=self._connector.endpoint,
            connector=connector,
            service=self._connector.service,
            url=url,
            slots=slots,
            labels=labels,
            ttl=ttl,
        )

    async def announce(self, fleet: Fleet) -> bool:
        """Probe once and announce what answers; tell whether it did."""
        async with self._connector:
            return await self._renew(fleet)

    async def run(self, fleet: Fleet) -> None:
        """Probe and announce until SIGTERM or SIGINT, then take the announcement back."""
        stop = await stop_requested()
        stopping = asyncio.create_task(stop.wait())
        try:
            async with self._connector:
                while not stopping.done():
                    await self._renew(fleet)
                    await asyncio.wait({stopping}, timeout=self._ttl / TIMES)
        finally:
            stopping.cancel()
        if await fleet.services.leave(self._said.id, reason="its sidecar was stopped"):
            self._out.answer({"event": "left", "endpoint": self._said.id}, f"{self._said.id} is not announced any more")

    async def _renew(self, fleet: Fleet) -> bool:
        """Probe the service and renew its lease if it answers; what goes wrong is said, and tried again."""
        try:
            async with asyncio.timeout(PROBE):
                probe = await self._connector.probe()
        except TimeoutError:
            return self._silent(f"no answer within {PROBE:g} s")
        if probe.state not in _ANSWERS:
            return self._silent(probe.message)
        try:
            answer = await fleet.services.announce(self._said)
        except HostlerError as error:
            if error.retry != "later":
                raise
            return self._silent(f"the gateway does not answer: {error.message}")
        if answer.news:
            self._out.answer(
                {"event": "announced", "endpoint": self._said.id, "url": self._said.url, "state": probe.state},
                f"{self._said.id} is announced: {probe.message}",
            )
        return True

    def _silent(self, why: str) -> bool:
        facts = {"event": "silent", "endpoint": self._said.id, "reason": why}
        self._out.answer(facts, f"{self._said.id} is not announced: {why}")
        return False
