"""Asking the nodes of a cluster who has which slots."""

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any, Final, cast

import msgspec
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from hostler.kernel.errors import EngineDeniedError, EngineUnavailableError, HostlerError, SettingsError
from hostler.kernel.settings import EngineSettings
from hostler.kernel.units import Seconds
from hostler.valkeyio.client import make_client, make_pool, send
from hostler.valkeyio.connections import Address
from hostler.valkeyio.faults import mapped
from hostler.valkeyio.slots import View, read_view
from hostler.valkeyio.urls import ClusterUrl, place_text

_ANSWER: Final[Seconds] = 1.0


class Views:
    """Asks nodes, primaries or not; each has one connection, and a second to answer."""

    def __init__(self, settings: EngineSettings, target: ClusterUrl) -> None:
        self._quick = msgspec.structs.replace(settings, connect_timeout=_ANSWER, command_timeout=_ANSWER)
        self._target = target
        self._clients: dict[Address, Redis] = {}

    async def look(self, places: Sequence[Address]) -> tuple[View, ...]:
        """Return what those say that answer.

        `SettingsError` when they are no nodes of a cluster, `EngineUnavailableError` when none of them answers,
        `EngineDeniedError` when they want a password.
        """
        for place in self._clients.keys() - set(places):
            await _close(self._clients[place])
            self._clients.pop(place, None)
        answers = await asyncio.gather(*(self._try(place) for place in places))
        found = tuple(answer for answer in answers if isinstance(answer, View))
        if not found:
            raise _none(places, [answer for answer in answers if isinstance(answer, HostlerError)])
        return found

    async def aclose(self) -> None:
        """Close all connections."""
        for client in self._clients.values():
            await _close(client)

    async def _try(self, place: Address) -> View | HostlerError:
        try:
            return await self._ask(place)
        except HostlerError as error:
            return error

    async def _ask(self, place: Address) -> View:
        client = self._clients.get(place)
        if client is None:
            pool = make_pool(self._quick, self._target.node(place), name="hostler-views", limit=1)
            client = self._clients[place] = make_client(pool)
        with mapped():
            try:
                slots = cast("Sequence[Any]", await send(client, "CLUSTER", "SLOTS"))
                nodes = cast("bytes", await send(client, "CLUSTER", "NODES"))
            except ResponseError as error:
                if "cluster support disabled" not in str(error):
                    raise
                message = (
                    f"{place_text(place)} is a server by itself and no node of a cluster: give the engine's URL as "
                    f"redis://{place_text(place)}"
                )
                raise SettingsError(message, field="engine.url", problems=(message,)) from error
        return read_view(place, slots, nodes.decode())


async def _close(client: Redis) -> None:
    with contextlib.suppress(OSError), mapped():
        await client.aclose()


def _none(places: Sequence[Address], failures: Sequence[HostlerError]) -> HostlerError:
    for kind in (SettingsError, EngineDeniedError):
        if of_kind := [failure for failure in failures if isinstance(failure, kind)]:
            return of_kind[0]
    names = ", ".join(map(place_text, places))
    return EngineUnavailableError(
        f"none of the cluster's nodes {names} answers: start them, or correct their addresses ({failures[0].message})"
    )
