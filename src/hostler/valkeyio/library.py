"""The function library in the engine: installed once, verified, called by named arguments."""

from collections.abc import Sequence
from typing import Any, Final, Protocol, cast

from redis.exceptions import ResponseError

from hostler.kernel.errors import (
    EngineTimeoutError,
    EngineUnavailableError,
    HostlerError,
    InternalError,
    LibraryMismatchError,
)
from hostler.valkeyio.client import Client, send
from hostler.valkeyio.faults import mapped
from hostler.valkeyio.keys import meta_key, registry_key
from hostler.valkeyio.library_text import PRODUCTION, Argument, Build, LibraryText, Verb, shipped
from hostler.valkeyio.spread import server_of, servers

Value = str | bytes | int | float | bool | Sequence[bytes] | Sequence[str]
"""What a named argument may be; a sequence only for the last one, when its header says `*name`."""

Reply = Any
"""What a function returned: int, bytes, None, or lists of those, as its header says."""


class HasClient(Protocol):
    """What the library needs of an engine."""

    @property
    def client(self) -> Client:
        """Return the client for commands that do not block."""
        ...


class Library:
    """Calls the functions of one engine; the only way in which Hostler changes a queue.

    `LibraryMismatchError` when the engine holds another text under the same name: an older or newer Hostler
    uses it, and the two must not share queues unless their library names differ.
    """

    def __init__(self, engine: HasClient, *, build: Build = PRODUCTION) -> None:
        self._engine = engine
        self._text: LibraryText = shipped(build)
        self._encoders = {name: _Encoder(verb) for name, verb in self._text.verbs.items()}

    @property
    def sha256(self) -> str:
        """Return the hash of the text that this Hostler brings."""
        return self._text.sha256

    async def installed(self) -> str | None:
        """Return the hash of the text in the engine, None when the library is absent; of a cluster: somewhere."""
        found = {await _installed(server, self._text.name) for server in servers(self._engine.client)}
        return None if None in found else next(iter(sorted(cast("set[str]", found - {self.sha256}))), self.sha256)

    async def ensure(self) -> None:
        """Install the library when it is absent, and verify it when it is there.

        Atomic: several processes may do it at once. `LibraryMismatchError` names both hashes. A primary of a cluster
        that does not answer gets it with its first call.
        """
        failures: list[HostlerError] = []
        there = servers(self._engine.client)
        for server in there:
            try:
                await self._ensure_at(server)
            except (EngineUnavailableError, EngineTimeoutError) as error:
                failures.append(error)
        if len(failures) == len(there):
            raise failures[0]

    async def _ensure_at(self, server: Client) -> None:
        found = await _installed(server, self._text.name)
        if found is None:
            await self._load(server)
            found = await _installed(server, self._text.name)
        if found != self._text.sha256:
            raise LibraryMismatchError(
                f"The engine holds function library {self._text.name} {str(found)[:12]}, this Hostler brings "
                f"{self._text.sha256[:12]}. Stop every process of the other version, then run "
                "`hostler doctor --replace-library`.",
                library=self._text.name,
                found=found,
                brought=self._text.sha256,
            )

    async def replace(self) -> None:
        """Install this text whatever is there: for an operator, once nothing of the other version runs."""
        for server in servers(self._engine.client):
            await _send(server, "FUNCTION", "LOAD", "REPLACE", self._text.text)

    async def call(self, verb: str, queue: str, **named: Value) -> Reply:
        """Call one function for one queue; `InternalError` when the names differ from its header.

        Every error is one of ours (`faults.mapped`).
        A library that is missing (an engine that was flushed) is installed first; another version never is.
        """
        with mapped():
            return await self._call(verb, meta_key(queue), named)

    async def call_registry(self, verb: str, **named: Value) -> Reply:
        """Call one function for what belongs to no queue: workers, kinds and queues; otherwise like `call`."""
        with mapped():
            return await self._call(verb, registry_key("meta"), named)

    async def _call(self, verb: str, key: str, named: dict[str, Value]) -> Reply:
        encoder = self._encoders.get(verb)
        if encoder is None:
            raise InternalError(f"The function library has no verb {verb!r}", verb=verb)
        words = (encoder.command, f"{self._text.name}_{verb}", 1, key, *encoder.encode(named))
        try:
            return await _send(self._engine.client, *words)
        except _AbsentError:
            await self._ensure_at(server_of(self._engine.client, key))
        return await _send(self._engine.client, *words)

    async def _load(self, server: Client) -> None:
        with mapped():
            try:
                await send(server, "FUNCTION", "LOAD", self._text.text)
            except ResponseError as error:
                if "already exists" not in str(error):  # another process was faster: `ensure` verifies what it loaded
                    raise


class _AbsentError(Exception):
    """The engine has no such library."""


async def _installed(server: Client, name: str) -> str | None:
    try:
        found = cast("bytes", await _send(server, "FCALL_RO", f"{name}_version", 0))
    except _AbsentError:
        return None
    return found.decode()


async def _send(client: Client, *words: str | bytes | float) -> Reply:
    with mapped():
        try:
            return await send(client, *words)
        except ResponseError as error:
            if "function not found" in str(error).lower():
                raise _AbsentError from error
            raise


class _Encoder:
    """Turns the named arguments of one verb into words, in the order of its header."""

    def __init__(self, verb: Verb) -> None:
        self.command: Final = "FCALL_RO" if verb.read_only else "FCALL"
        self._verb = verb
        self._names = frozenset(argument.name for argument in verb.arguments)

    def encode(self, named: dict[str, Value]) -> list[str | bytes | int | float]:
        if named.keys() != self._names:
            lacking = sorted(self._names - named.keys())
            unknown = sorted(named.keys() - self._names)
            raise InternalError(
                f"{self._verb.name} takes {sorted(self._names)}: lacking {lacking}, unknown {unknown}",
                verb=self._verb.name,
            )
        words: list[str | bytes | int | float] = []
        for argument in self._verb.arguments:
            value = named[argument.name]
            if argument.rest:
                words.extend(cast("Sequence[bytes]", value))
            else:
                words.append(self._word(argument, value))
        return words

    def _word(self, argument: Argument, value: Value) -> str | bytes | int | float:
        kind = argument.type
        if kind == "flag" and isinstance(value, bool):
            return int(value)
        if kind in {"int", "num"} and isinstance(value, (int, float)) and not isinstance(value, bool):
            return value
        if kind in {"text", "blob", "pack"} and isinstance(value, (str, bytes)):
            return value
        raise InternalError(
            f"{self._verb.name}: {argument.name} must be {kind}, not {type(value).__name__}", verb=self._verb.name
        )
