"""A client of many servers: each command goes to that primary of a cluster which has its key."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol, cast

from redis import exceptions as foreign
from redis.exceptions import AskError, MovedError

from hostler.kernel.errors import EngineTimeoutError, EngineUnavailableError, InternalError
from hostler.valkeyio.client import Client, send
from hostler.valkeyio.connections import Address
from hostler.valkeyio.faults import translate
from hostler.valkeyio.urls import place_text

_KEY_AT: Final[Mapping[str, int]] = {
    "FCALL": 3,
    "FCALL_RO": 3,
    "ZSCAN": 1,
    "EXISTS": 1,
    "GET": 1,
    "SET": 1,
    "XREAD": -2,
}
"""Where each command that Hostler sends has its key; of streams it reads one at a time."""

_ANYWHERE: Final = frozenset({"PING", "TIME"})
"""Commands without a key that any primary can answer."""

_DOUBTFUL: Final = (
    foreign.ConnectionError,
    foreign.ReadOnlyError,
    foreign.ClusterDownError,
    foreign.TryAgainError,
    AskError,
)
"""Failures after which another node may have the slot."""


class Lead(Protocol):
    """What the client needs of whoever knows the cluster."""

    def owner_of(self, key: str | bytes) -> Address:
        """Return which primary has a key's slot; `EngineUnavailableError` when none has."""
        ...

    def moved(self, key: str | bytes, address: Address) -> None:
        """Take note of a node's word that another has this key's slot now."""
        ...

    def doubt(self) -> None:
        """Take note that what is known may be old."""
        ...

    def primaries(self) -> Sequence[Address]:
        """Return all of them, those that answer first."""
        ...


class Spread:
    """Sends what has a key to the primary that has its slot, and follows a slot that has moved, once.

    A node that answers `MOVED` has not executed the command, so that is the one answer after which it is sent
    again. While a slot is moved key by key (`ASK`) nothing is: a function reads keys that no node was told of,
    and would find some of them missing on either side.
    """

    def __init__(self, lead: Lead, client_at: Callable[[Address], Client]) -> None:
        self._lead = lead
        self._client_at = client_at
        self._turns = itertools.count()

    async def execute_command(self, *words: Any) -> Any:
        """Send one command and return its reply; errors are the library's, or ours where no node is known."""
        name = cast("str", words[0])
        if name in _ANYWHERE:
            return await send(self._next(), *words)
        if name not in _KEY_AT:
            raise InternalError(f"{name} is not known to have a key, so no node of the cluster can be chosen for it")
        key = cast("str | bytes", words[_KEY_AT[name]])
        try:
            return await self._send(key, words)
        except MovedError as error:
            self._lead.moved(key, _place(error))
        try:
            return await self._send(key, words)
        except MovedError as error:
            raise EngineUnavailableError(
                f"the slot of {_text(key)} moves from node to node of the cluster ({error})",
                executed=False,
                server=place_text(_place(error)),
            ) from error

    def pubsub(self) -> Any:
        """Return a subscription to come, at another primary than the last one: all of them hear what is published."""
        return self._next().pubsub()

    async def standing(self, key: str) -> Client:
        """Return the client of the primary that says that it has a key's slot."""
        await self.execute_command("EXISTS", key)
        return self.owner(key)

    def owner(self, key: str) -> Client:
        """Return the client of the primary that has a key's slot, as far as is known."""
        return self._client_at(self._lead.owner_of(key))

    def all(self) -> tuple[Client, ...]:
        """Return the clients of all primaries."""
        return tuple(map(self._client_at, self._lead.primaries()))

    async def _send(self, key: str | bytes, words: Sequence[Any]) -> Any:
        address = self._lead.owner_of(key)
        try:
            return await send(self._client_at(address), *words)
        except Exception as error:  # each is translated or raised as it is
            if isinstance(error, _DOUBTFUL):
                self._lead.doubt()
            ours = _moving(error, key) or translate(error)
            if not isinstance(ours, EngineUnavailableError | EngineTimeoutError):
                raise
            ours.facts["server"] = place_text(address)
            raise ours from error

    def _next(self) -> Client:
        """Return the next of those that answer; of all, when none does."""
        primaries = self._lead.primaries()
        if not primaries:
            raise EngineUnavailableError("no primary of the cluster is known")
        return self._client_at(primaries[next(self._turns) % len(primaries)])


def _moving(error: Exception, key: str | bytes) -> EngineUnavailableError | None:
    if not isinstance(error, AskError) or isinstance(error, MovedError):
        return None
    return EngineUnavailableError(
        f"the slot of {_text(key)} is being moved to another node of the cluster: it serves nobody until that is done",
        executed=False,
    )


def _place(error: MovedError) -> Address:
    host, port = cast("tuple[str, int]", cast("Any", error).node_addr)
    return host.strip("[]"), port


def _text(key: str | bytes) -> str:
    return key.decode(errors="replace") if isinstance(key, bytes) else key


def servers(client: Client) -> tuple[Client, ...]:
    """Return a client for each primary that there is: of one server, or of a cluster."""
    return client.all() if isinstance(client, Spread) else (client,)


def server_of(client: Client, key: str) -> Client:
    """Return a client for the primary that has a key, as far as is known."""
    return client.owner(key) if isinstance(client, Spread) else client


async def standing(client: Client, key: str) -> Client:
    """Return a client for the primary that says that it has a key: for a walk that must not change servers."""
    return await client.standing(key) if isinstance(client, Spread) else client
